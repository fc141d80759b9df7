"""The key providers of the fapilog-tamper design, by its names.

    config = TamperConfig(key_source="aws-kms", key_id="alias/audit", aws_region="eu-west-1")
    async with create_key_provider(config) as provider:
        signature = await provider.sign("alias/audit", b"what happened")
        recorded = await provider.current_key_id("alias/audit")
        assert await provider.verify(recorded, b"what happened", signature)

Not to be confused with the ``...KMSProvider`` classes, which encrypt and which ``KeyManager`` uses: docs/kms/
signing.md tells them side by side. ``TamperConfig`` needs the extra ``config``; each service needs its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from keystead.errors import ConfigurationError, MissingDependencyError
from keystead.integrations.tamper_faces import EnvKeyProvider, FileKeyProvider, KeyFace
from keystead.integrations.tamper_kms import (
    AwsKmsProvider,
    AzureKeyVaultProvider,
    GcpKmsProvider,
    KmsOptions,
    VaultProvider,
)
from keystead.ledger.signers.settings import AuditHook, NamedSignature
from keystead.ports import AuditEvent, Clock, KmsProvider

if TYPE_CHECKING:
    from pydantic import SecretStr

    from keystead.integrations.tamper_config import TamperConfig

__all__ = [
    "AuditEvent",
    "AuditHook",
    "AwsKmsProvider",
    "AzureKeyVaultProvider",
    "EnvKeyProvider",
    "FileKeyProvider",
    "GcpKmsProvider",
    "KeyProvider",
    "NamedSignature",
    "TamperConfig",
    "VaultProvider",
    "create_key_provider",
]

_CONFIG: Final = "keystead.integrations.tamper_config"


@runtime_checkable
class KeyProvider(Protocol):
    """A key, or several under names, wherever it lives."""

    async def get_key(self, key_id: str) -> bytes:
        """Return key material; ``KeyNotExportableError`` (a ``NotImplementedError``) where it never leaves its KMS."""

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the signature of ``data``."""

    async def verify(self, key_id: str, data: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` is of ``data``; raise where that could not be checked."""

    async def rotate_check(self) -> bool:
        """Return whether the key was rotated since the last time, and go on with the new version."""

    async def sign_batch(self, key_id: str, items: Sequence[bytes]) -> list[bytes]:
        """Return a signature for each item, each of which verifies alone."""


def create_key_provider(
    config: TamperConfig,
    *,
    audit: AuditHook | None = None,
    stream: str = "",
    kms: KmsProvider | None = None,
    clock: Clock | None = None,
) -> KeyFace:
    """Return the provider that a configuration names. Does no I/O: credentials and keys are read at the first use.

    Args:
        config: the settings.
        audit: told of each use of a key.
        stream: the name of what is signed for; session keys are bound to it.
        kms: a provider that is made already, instead of the service's own.
        clock: for tests.

    Raises:
        ConfigurationError: the source needs a setting that is missing, or has no use for one.
        MissingDependencyError: the service's SDK is not installed; an ``ImportError`` that names the extra.
    """
    shared: dict[str, Any] = {"audit": audit, "stream": stream, "grace_s": config.key_grace_seconds}
    if clock is not None:
        shared["clock"] = clock
    if config.key_source in {"env", "file"}:
        return _material(config, shared)
    key_id = _key_id(config)
    options: KmsOptions = {**shared, "trusted_key_ids": config.trusted_key_ids, "kms": kms}  # type: ignore[typeddict-item]
    if config.algorithm == "Ed25519":
        options["algorithm"] = config.algorithm
    timing: dict[str, Any] = {
        "cache_ttl": config.key_cache_ttl_seconds,
        "use_kms_signing": config.use_kms_signing,
    }
    if config.key_source == "aws-kms":
        return AwsKmsProvider(key_id, config.aws_region, **timing, **options)
    if config.key_source == "gcp-kms":
        return GcpKmsProvider(key_id, **timing, **options)
    if config.key_source == "azure-keyvault":
        return AzureKeyVaultProvider(
            key_id,
            config.azure_tenant_id,
            config.azure_client_id,
            client_secret=_secret(config.azure_client_secret),
            allowed_hosts=config.azure_allowed_hosts,
            **timing,
            **options,
        )
    return VaultProvider(
        config.vault_addr,
        config.vault_path or key_id,
        config.vault_auth_method,
        token=_secret(config.vault_token),
        role_id=config.vault_role,
        secret_id=_secret(config.vault_secret_id),
        vault=_vault(config),
        **timing,
        **options,
    )


def _material(config: TamperConfig, shared: Mapping[str, Any]) -> KeyFace:
    if config.use_kms_signing:
        raise ConfigurationError(f"use_kms_signing=True needs a KMS; the key source {config.key_source!r} is none")
    options: dict[str, Any] = {**shared, "algorithm": config.algorithm, "key_id": config.key_id or None}
    if config.key_source == "env":
        return EnvKeyProvider(config.key_env_var, **options)
    if config.key_file_path is None:
        raise ConfigurationError("the key source 'file' needs key_file_path")
    return FileKeyProvider(config.key_file_path, allow_group_read=config.key_file_allow_group_read, **options)


def _key_id(config: TamperConfig) -> str:
    if config.key_id:
        return config.key_id
    if config.key_source == "vault" and config.vault_path is not None:
        return config.vault_path
    also = " or vault_path" if config.key_source == "vault" else ""
    raise ConfigurationError(f"the key source {config.key_source!r} needs key_id{also}")


def _vault(config: TamperConfig) -> dict[str, Any]:
    given = {
        "namespace": config.vault_namespace,
        "auth_mount": config.vault_auth_mount,
        "jwt_path": config.vault_jwt_path,
        "tls_ca_cert": config.vault_ca_cert,
        "token_file": config.vault_token_file,
        "secret_id_file": config.vault_secret_id_file,
        "secret_id_is_wrapped": config.vault_secret_id_is_wrapped or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


if not TYPE_CHECKING:  # a type checker reads the import above, and sees a misspelt name

    def __getattr__(name: str) -> Any:
        if name != "TamperConfig":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = import_module(_CONFIG).TamperConfig
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.partition(".")[0] != "pydantic":
                raise
            raise MissingDependencyError(
                "TamperConfig requires pydantic. Install with: pip install keystead[config]"
            ) from exc
        globals()[name] = value
        return value
