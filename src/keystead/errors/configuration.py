"""Settings and arguments that cannot work; drawn in ``keystead.errors``."""

from __future__ import annotations

from keystead.errors.root import KMSError


class ConfigurationError(KMSError):
    """A setting, URL or combination of options cannot work; the message names the cure."""

    code = "configuration"
    cure = "change the setting as the message says"


class MissingDependencyError(ConfigurationError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    code = "missing_dependency"
    cure = "install the extra that the message names"


class KekMismatchError(ConfigurationError):
    """A log was sealed under another KEK than the one it is opened with; the message names both, and how to go on."""

    code = "kek_mismatch"
    cure = "open the log with the KEK it was sealed under, which the message names, or keep that one behind the new one"


class AlreadyInitializedError(ConfigurationError):
    """``initialize()`` was called again with another configuration."""

    code = "already_initialized"
    cure = "close this manager, and make a new one with the other configuration"


class InvalidSeedError(ConfigurationError):
    """The root key's seed is missing, or one that must never be used."""

    code = "invalid_seed"
    cure = "set the seed that the older store was made with; for new data a random one of 16 bytes or more"


class InvalidSaltError(ConfigurationError):
    """The root key's salt is missing, or one that must never be used."""

    code = "invalid_salt"
    cure = "set the salt that the older store was made with; for new data a random one of 16 bytes or more"


class InvalidIterationsError(ConfigurationError):
    """Fewer than 10 000 PBKDF2 iterations."""

    code = "invalid_iterations"
    cure = "set 10 000 or more; for an older store exactly the number that it was made with"


class InvalidKeyLengthError(ConfigurationError):
    """A root key length other than 16, 24 or 32 bytes."""

    code = "invalid_key_length"
    cure = "set 16, 24 or 32; for an older store the length that it was made with"


class InvalidAlgorithmError(ConfigurationError):
    """An algorithm name that Keystead does not know, or that the mode in force forbids."""

    code = "invalid_algorithm"
    cure = "use one of the algorithms that the message lists, AES-256-GCM where it lists none"


class InvalidInputError(KMSError, ValueError):
    """An argument of the wrong type, size or form. Nothing was changed."""

    code = "invalid_input"
    cure = (
        "change the argument as the message says; where a key service refused it, use a key that is made for this "
        "operation"
    )


class InvalidKeyVersionError(InvalidInputError):
    """A version that is neither a positive integer nor a legacy version text."""

    code = "invalid_key_version"
    cure = "give a number from 1 on, or the whole text of a legacy version, as `keystead key list` shows it"


class HardcodedCredentialWarning(UserWarning):
    """A credential is written into the configuration; the message says where it would be safe."""
