"""Signers over each KMS, made from what the constructors of the fapilog-tamper design are given. Nothing here does I/O.

A provider's module is imported where it is needed, and its SDK at the first call.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.ledger.signers.material import MaterialSigner
from keystead.ledger.signers.native import VaultForm
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.ports import KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.key_sources import FileSource, VariableSource

if TYPE_CHECKING:
    from keystead.providers.aws.provider import AWSKMSConfig
    from keystead.providers.azure.provider import AzureKMSConfig
    from keystead.providers.gcp.config import GCPKMSConfig
    from keystead.providers.vault.config import VaultConfig

FILE_TTL_S: Final = 1.0
"""How long what a file holds counts before it is looked at again."""


def variable_signer(
    variable: str,
    settings: SignerSettings,
    *,
    key_id: str | None = None,
    environ: Mapping[str, str] | None = None,
    production: bool = False,
) -> MaterialSigner:
    """Return a signer by the keys in a variable of the environment, which is read at the first call.

    Raises:
        ConfigurationError: this is no name of a variable.
    """
    if not isinstance(variable, str) or not variable or "=" in variable or "\x00" in variable:
        raise ConfigurationError("give the name of an environment variable that holds the key, not the key")
    source = VariableSource(variable, environ=environ, production=production)
    return MaterialSigner(source, f"env:{variable}", settings, key_id=key_id)


def file_signer(
    path: str | os.PathLike[str],
    settings: SignerSettings,
    *,
    key_id: str | None = None,
    allow_group_read: bool = False,
    production: bool = False,
) -> MaterialSigner:
    """Return a signer by the keys in a file or folder, which is opened at the first call.

    Raises:
        ConfigurationError: no path.
    """
    if not os.fspath(path):
        raise ConfigurationError("give the path of the file, or of the folder, that holds the keys")
    full = os.path.abspath(os.fspath(path))
    source = FileSource(full, allow_group_read=allow_group_read, production=production)
    return MaterialSigner(source, f"file:{full}", settings, key_id=key_id)


def kms_signer(provider: KmsProvider, key_id: str, settings: SignerSettings, **options: Any) -> KmsSigner:
    """Return a signer over a provider that is made already, with a guard around it unless it has one."""
    if not isinstance(provider, GuardedProvider):
        provider = GuardedProvider(provider, provider.provider_name, clock=settings.clock, random=settings.random)
    return KmsSigner(provider, key_id, settings, **options)


def aws_signer(
    key_id: str, settings: SignerSettings, *, region: str | None = None, config: AWSKMSConfig | None = None
) -> tuple[KmsSigner, Callable[[], Awaitable[str | None]]]:
    """Return a signer over AWS KMS, and what tells how boto3 found the credentials.

    Raises:
        ConfigurationError: ``region`` and one in ``config`` that differ.
        MissingDependencyError: boto3 is not installed.
    """
    from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider

    if config is not None and region not in (None, config.region):
        raise ConfigurationError("region and config.region differ; give one of them")
    provider = AWSKMSProvider(config or AWSKMSConfig(region), clock=settings.clock)
    return kms_signer(provider, key_id, settings), provider.credential_method


def gcp_signer(key_id: str, settings: SignerSettings, *, config: GCPKMSConfig | None = None) -> KmsSigner:
    """Return a signer over Google Cloud KMS.

    Raises:
        InvalidInputError: ``key_id`` is no resource name.
        MissingDependencyError: google-cloud-kms is not installed.
    """
    from keystead.providers.gcp.config import GCPKMSConfig
    from keystead.providers.gcp.provider import GCPKMSProvider

    config = config or GCPKMSConfig()
    name = config.find_name(key_id)
    full = name.key if name.version is None else name.version_name(name.version)
    provider = GCPKMSProvider(config, random=settings.random, clock=settings.clock)
    return kms_signer(provider, full, settings)


def azure_signer(
    key_id: str,
    settings: SignerSettings,
    *,
    tenant_id: str | None = None,
    client_id: str | None = None,
    client_secret: str | None = None,
    allowed_hosts: Sequence[str] = (),
    sign_key: str | Sequence[str] | None = None,
    config: AzureKMSConfig | None = None,
    environ: Mapping[str, str] | None = None,
) -> KmsSigner:
    """Return a signer over Azure Key Vault or a managed HSM.

    Session keys that an RSA key wraps are signed by ``sign_key``, by default the same key: a wrap that is made with a
    public key says nothing of its origin.

    Raises:
        ConfigurationError: a key id on a host that is not Azure's and not listed, or credentials that are incomplete.
        InvalidInputError: ``key_id`` is none.
        MissingDependencyError: azure-keyvault-keys or azure-identity is not installed.
    """
    from keystead.providers.azure.provider import AzureKMSConfig, AzureKMSProvider

    if config is None:
        found = AzureKMSConfig(allowed_hosts=allowed_hosts).key_id(key_id)
        config = AzureKMSConfig(
            vault_url=found.vault_url,
            tenant_id=tenant_id,
            client_id=client_id,
            client_secret=client_secret,
            allowed_hosts=allowed_hosts,
            sign_key=sign_key or found.base,
        )
    elif (tenant_id, client_id, client_secret, sign_key) != (None,) * 4 or allowed_hosts:
        raise ConfigurationError("give config, or the settings it is made of, not both")
    if config.allow_unauthenticated_wrap:
        raise ConfigurationError(
            "allow_unauthenticated_wrap=True would let everybody who has the public key sign; leave it out"
        )
    found = config.key_id(key_id)
    if not config.sign_key:
        config = replace(config, sign_key=found.base)
    provider = AzureKMSProvider(config, environ=environ, random=settings.random, clock=settings.clock)
    return kms_signer(provider, str(found), settings)


def vault_signer(
    key_id: str,
    settings: SignerSettings,
    config: VaultConfig,
    *,
    production: bool = False,
    environ: Mapping[str, str] | None = None,
) -> KmsSigner:
    """Return a signer over a Transit engine. Keys that encrypt make MACs as well, where that is asked for.

    Raises:
        ConfigurationError: ``tls_verify=False`` in production.
        MissingDependencyError: hvac is not installed.
    """
    from keystead.providers.vault.provider import VaultKMSProvider

    provider = VaultKMSProvider(
        config, production=production, environ=environ, random=settings.random, clock=settings.clock
    )
    return kms_signer(provider, key_id, settings, form=VaultForm(), makes_macs_with_any_key=True)


def vault_key(path: str, mount: str | None = None) -> tuple[str | None, str]:
    """Return mount and name of a Transit key: of ``transit/keys/NAME``, ``MOUNT/NAME``, or ``NAME``.

    Raises:
        ConfigurationError: it is none of these, or of another mount than ``mount``.
    """
    from keystead.providers.vault.keys import split_key_path

    try:
        found, name = split_key_path(path)
    except InvalidInputError as exc:
        raise ConfigurationError(str(exc)) from None
    if found is not None and mount is not None and found != mount.strip("/"):
        raise ConfigurationError(f"the key {path!r} is in another mount than {mount!r}")
    return found or mount, name


def vault_config(named: Mapping[str, Any], more: Mapping[str, Any]) -> VaultConfig:
    """Return the configuration of a Vault provider, from what is named and from ``more`` by VaultConfig's names.

    Raises:
        ConfigurationError: a setting is given twice or unknown, or one that VaultConfig refuses.
    """
    from keystead.providers.vault.config import VaultConfig

    given = {name: value for name, value in named.items() if value is not None}
    if twice := sorted(set(given) & set(more)):
        raise ConfigurationError(f"{twice[0]} is given twice, by itself and in vault=")
    if unknown := sorted(set(more) - set(VaultConfig.__dataclass_fields__)):
        raise ConfigurationError(f"vault= has no {unknown[0]!r}; it takes what VaultConfig takes")
    return VaultConfig(**given, **more)
