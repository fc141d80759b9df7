"""Which keys a sealed sink seals with, by what ``TamperConfig`` says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import quote

from keystead.errors import ConfigurationError, KMSError
from keystead.integrations.fapilog.settings import KEY_SIZE, WHERE
from keystead.integrations.tamper import create_key_provider
from keystead.integrations.tamper_faces import KeyFace, algorithm_of
from keystead.ledger.signers import opening as signers_open
from keystead.ledger.signers.signer import KmsSigner
from keystead.ledger.writing.keys import LogKeys, file_keys, given_keys, signer_keys, variable_keys
from keystead.model import SignatureAlgorithm
from keystead.runtime.loop import background_loop

if TYPE_CHECKING:
    from keystead.integrations.fapilog.settings import SinkSettings
    from keystead.integrations.tamper_config import TamperConfig

_NATIVE_ONLY: Final = (
    f"{WHERE}: algorithm='Ed25519' with a KMS is for keys that sign: add use_kms_signing=True, or leave algorithm out"
)


class SinkKeys:
    """Gives the keys to seal with, at each opening of the log. What is wrong with the settings is told at once.

    Raises:
        ConfigurationError: settings that contradict one another, or one that is missing.
        MissingDependencyError: the KMS's SDK is not installed.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._first: KeyFace | None = None
        keys = settings.keys
        is_kms = settings.is_remote and isinstance(settings.provider, KeyFace | None)
        if is_kms and keys.algorithm == "Ed25519" and not keys.use_kms_signing:
            raise ConfigurationError(_NATIVE_ONLY)
        if is_kms and settings.provider is None:
            self._first = create_key_provider(keys, stream=settings.stream)
        elif keys.use_kms_signing and not is_kms:
            raise ConfigurationError(
                f"{WHERE}: use_kms_signing=True needs a KMS; the key source {keys.key_source!r} is none"
            )
        elif keys.key_source == "file" and keys.key_file_path is None and settings.key is None:
            raise ConfigurationError(f"{WHERE}: the key source 'file' needs key_file_path")

    def read(self) -> LogKeys:
        """Return the keys. Keys in the environment and in files are read; a KMS is not called yet. Blocks.

        Raises:
            ConfigurationError, KeyNotFoundError: there is no key, or it cannot be used.
        """
        settings = self._settings
        keys, stream = settings.keys, settings.stream
        options: _Options = {"key_id": keys.key_id, "algorithm": algorithm_of(keys.algorithm)}
        if settings.key is not None:
            return given_keys(settings.key, stream, **options)
        provider = settings.provider
        if provider is not None and not isinstance(provider, KeyFace):
            return given_keys(_key_of(provider, keys.key_id), stream, **options)
        if settings.is_remote:
            return self._of_face(provider)
        if keys.key_source == "env":
            return variable_keys(keys.key_env_var, stream, **options)
        return file_keys(keys.key_file_path or "", stream, allow_group_read=keys.key_file_allow_group_read, **options)

    def _of_face(self, given: KeyFace | None) -> LogKeys:
        settings = self._settings
        face, self._first = given or self._first, None
        if face is None:
            face = create_key_provider(settings.keys, stream=settings.stream)
        signer = background_loop.run(face.ready_signer())
        if not isinstance(signer, KmsSigner):
            raise ConfigurationError(
                f"{WHERE}: of keys in the environment or a file, give the settings and no provider"
            )
        return signer_keys(
            signer,
            settings.stream,
            signs_natively=settings.keys.use_kms_signing,
            uri=None if given is not None else _uri(settings.keys),
            owns_provider=given is None,
        )


class _Options(TypedDict):
    key_id: str
    algorithm: SignatureAlgorithm


def _key_of(provider: object, key_id: str) -> bytes:
    """Return the key that a provider of the application's own gives."""
    get_key = getattr(provider, "get_key", None)
    if not inspect.iscoroutinefunction(get_key):
        raise ConfigurationError(f"{WHERE}: a provider has an async method get_key(key_id) that returns 32 bytes")
    try:
        key = background_loop.run(get_key(key_id))
    except KMSError:
        raise
    except Exception as exc:
        failure = type(exc).__name__
    else:
        if isinstance(key, bytes | bytearray) and len(key) == KEY_SIZE:
            return bytes(key)
        failure = "no 32 bytes"
    raise ConfigurationError(f"{WHERE}: the provider {type(provider).__name__} gave no key ({failure})")


def _uri(keys: TamperConfig) -> str:
    """Return what opens the KMS where readers are, by credentials of theirs."""
    if keys.key_source == "aws-kms":
        region = f"?region={quote(keys.aws_region)}" if keys.aws_region else ""
        return f"awskms:///{keys.key_id}{region}"
    if keys.key_source == "gcp-kms":
        return f"gcpkms://{keys.key_id}"
    if keys.key_source == "vault":
        mount, name = signers_open.vault_key(keys.vault_path or keys.key_id)
        return f"hashivault://{mount or 'transit'}/{name}"
    host, _, path = keys.key_id.removeprefix("https://").partition("/keys/")
    return f"azurekms://{host}/{path}{'?allow_host=true' if host in keys.azure_allowed_hosts else ''}"
