"""Settings and arguments that cannot work; drawn in ``keystead.errors``."""

from __future__ import annotations

from keystead.errors.root import KMSError


class ConfigurationError(KMSError):
    """A setting, URL or combination of options cannot work; the message names the cure."""

    code = "configuration"


class MissingDependencyError(ConfigurationError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    code = "missing_dependency"


class KekMismatchError(ConfigurationError):
    """A log was sealed under another KEK than the one it is opened with; the message names both, and how to go on."""

    code = "kek_mismatch"


class AlreadyInitializedError(ConfigurationError):
    """``initialize()`` was called again with another configuration."""

    code = "already_initialized"


class InvalidSeedError(ConfigurationError):
    """The root key's seed is missing, or one that must never be used."""

    code = "invalid_seed"


class InvalidSaltError(ConfigurationError):
    """The root key's salt is missing, or one that must never be used."""

    code = "invalid_salt"


class InvalidIterationsError(ConfigurationError):
    """Fewer than 10 000 PBKDF2 iterations."""

    code = "invalid_iterations"


class InvalidKeyLengthError(ConfigurationError):
    """A root key length other than 16, 24 or 32 bytes."""

    code = "invalid_key_length"


class InvalidAlgorithmError(ConfigurationError):
    """An algorithm name that Keystead does not know, or that the mode in force forbids."""

    code = "invalid_algorithm"


class InvalidInputError(KMSError, ValueError):
    """An argument of the wrong type, size or form. Nothing was changed."""

    code = "invalid_input"


class InvalidKeyVersionError(InvalidInputError):
    """A version that is neither a positive integer nor a legacy version text."""

    code = "invalid_key_version"


class HardcodedCredentialWarning(UserWarning):
    """A credential is written into the configuration; the message says where it would be safe."""
