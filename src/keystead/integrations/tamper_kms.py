"""The key providers whose keys are in AWS KMS, Google Cloud KMS, Azure Key Vault and HashiCorp Vault."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from keystead.config import is_production
from keystead.errors import HardcodedCredentialWarning
from keystead.integrations.tamper_faces import KeyFace, algorithm_of
from keystead.ledger.signers import opening as signers_open
from keystead.ledger.signers.settings import AuditHook
from keystead.ledger.signers.signer import Signer, SignerSettings
from keystead.ports import Clock, KmsProvider

if TYPE_CHECKING:
    from keystead.providers.aws.config import AWSKMSConfig
    from keystead.providers.azure.config import AzureKMSConfig
    from keystead.providers.gcp.config import GCPKMSConfig

LONG_LIVED: Final = frozenset({"boto-config", "config-file", "env", "explicit", "shared-credentials-file"})
"""How boto3 calls credentials that somebody has written down, unlike those of roles, SSO and processes."""


class KmsOptions(TypedDict, total=False):
    """What providers over a KMS take besides, by keyword; see ``keystead.ledger.signers.signer.SignerSettings``.

    Attributes:
        grace_s: for how much longer a key is used while the KMS does not answer (3600); 0 is not at all.
        stream, context: what session keys are bound to.
        trusted_key_ids: further keys that are verified by, and signed by when they are named.
        batch, concurrency: how ``sign_batch`` signs where the KMS takes one message at a time.
        algorithm: ``Ed25519`` to insist on that; by default the key's own.
        audit: told of each use of a key.
        kms: a provider that is made already, instead of the service's own.
    """

    grace_s: float | None
    stream: str
    context: Mapping[str, str]
    trusted_key_ids: Sequence[str]
    batch: Literal["merkle", "each"]
    concurrency: int
    algorithm: str | None
    audit: AuditHook | None
    clock: Clock
    kms: KmsProvider | None


class AwsKmsProvider(KeyFace):
    """AWS KMS. Credentials come from boto3's own chain; long-lived ones are warned of once, at the first use.

    ``config`` is everything else that ``AWSKMSProvider`` takes: endpoint, profile, timeouts.
    """

    def __init__(
        self,
        key_id: str,
        region: str | None = None,
        cache_ttl: float = 300,
        use_kms_signing: bool = False,
        *,
        config: AWSKMSConfig | None = None,
        **options: Unpack[KmsOptions],
    ) -> None:
        settings = _settings(cache_ttl, use_kms_signing, options)
        self._credential_method: Callable[[], Awaitable[str | None]] | None = None
        if (kms := options.get("kms")) is not None:
            self._signer = signers_open.kms_signer(kms, key_id, settings)
            return
        self._signer, self._credential_method = signers_open.aws_signer(key_id, settings, region=region, config=config)
        if config is not None and config.has_own_credentials:
            self._credential_method = None
            _warn("access_key and secret_key", "a role of the instance, container or cluster, or by SSO")

    async def _ready(self) -> Signer:
        if (ask := self._credential_method) is not None:
            self._credential_method = None
            if (method := await ask()) in LONG_LIVED:
                _warn(f"AWS credentials of boto3's kind {method!r}", "a role of the instance, container or cluster")
        return self._signer


class GcpKmsProvider(KeyFace):
    """Google Cloud KMS, by Application Default Credentials. ``config`` is what ``GCPKMSProvider`` takes."""

    def __init__(
        self,
        key_id: str,
        cache_ttl: float = 300,
        use_kms_signing: bool = False,
        *,
        config: GCPKMSConfig | None = None,
        **options: Unpack[KmsOptions],
    ) -> None:
        settings = _settings(cache_ttl, use_kms_signing, options)
        if (kms := options.get("kms")) is not None:
            self._signer = signers_open.kms_signer(kms, key_id, settings)
        else:
            self._signer = signers_open.gcp_signer(key_id, settings, config=config)


class AzureKeyVaultProvider(KeyFace):
    """Azure Key Vault and Managed HSM, by the complete key id, with or without a version.

    Tenant and client with ``AZURE_CLIENT_SECRET`` or ``AZURE_FEDERATED_TOKEN_FILE`` are a service principal or a
    workload identity, a client alone a user-assigned identity, neither the default chain.

    Args:
        client_secret: for a service principal; warned of: the environment is the place for it.
        allowed_hosts: further hosts that key ids may name.
        sign_key: signs session keys that an RSA key wraps; by default the same key does.
        config: what ``AzureKMSProvider`` takes, instead of the above.
    """

    def __init__(
        self,
        key_id: str,
        tenant_id: str | None = None,
        client_id: str | None = None,
        cache_ttl: float = 300,
        use_kms_signing: bool = False,
        *,
        client_secret: str | None = None,
        allowed_hosts: Sequence[str] = (),
        sign_key: str | Sequence[str] | None = None,
        config: AzureKMSConfig | None = None,
        environ: Mapping[str, str] | None = None,
        **options: Unpack[KmsOptions],
    ) -> None:
        settings = _settings(cache_ttl, use_kms_signing, options)
        if (kms := options.get("kms")) is not None:
            self._signer = signers_open.kms_signer(kms, key_id, settings)
            return
        self._signer = signers_open.azure_signer(
            key_id,
            settings,
            tenant_id=tenant_id,
            client_id=client_id,
            client_secret=client_secret,
            allowed_hosts=allowed_hosts,
            sign_key=sign_key,
            config=config,
            environ=environ,
        )
        if client_secret is not None or (config is not None and config.client_secret is not None):
            _warn("client_secret", "a managed or workload identity, or AZURE_CLIENT_SECRET")


class VaultProvider(KeyFace):
    """A key of a Transit engine of HashiCorp Vault or OpenBao.

    Args:
        addr: ``https://host:port``; None leaves it to ``VAULT_ADDR``.
        key_name: the key: ``audit``, ``transit/audit`` or ``transit/keys/audit``.
        token: else ``VAULT_TOKEN``, ``VAULT_TOKEN_FILE`` or ``~/.vault-token``.
        role_id: of AppRole; with ``kubernetes`` the role.
        secret_id: else ``VAULT_SECRET_ID`` or ``VAULT_SECRET_ID_FILE``.
        vault: more of what ``VaultConfig`` takes, by its names: ``role``, ``namespace``, ``auth_mount``, ``jwt_path``,
            ``tls_ca_cert``, ``token_file``, ``secret_id_file``, ``secret_id_is_wrapped``, ``timeout``...
    """

    def __init__(  # noqa: PLR0917  # the document's own order
        self,
        addr: str | None,
        key_name: str,
        auth_method: str = "token",
        token: str | None = None,
        role_id: str | None = None,
        secret_id: str | None = None,
        *,
        cache_ttl: float = 300,
        use_kms_signing: bool = False,
        vault: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        production: bool | None = None,
        **options: Unpack[KmsOptions],
    ) -> None:
        settings = _settings(cache_ttl, use_kms_signing, options)
        more = dict(vault or {})
        self._mount, self._name = signers_open.vault_key(key_name, more.pop("mount_path", None))
        if (kms := options.get("kms")) is not None:
            self._signer = signers_open.kms_signer(kms, self._name, settings)
            return
        config = signers_open.vault_config(
            {
                "vault_addr": addr,
                "auth_method": auth_method,
                "token": token,
                "role_id": role_id,
                "secret_id": secret_id,
                "mount_path": self._mount,
            },
            more,
        )
        self._signer = signers_open.vault_signer(
            self._name,
            settings,
            config,
            production=is_production() if production is None else production,
            environ=environ,
        )
        literal = [name for name in ("token", "secret_id", "wrapped_secret_id") if getattr(config, name) is not None]
        if literal:
            _warn(" and ".join(literal), "a login of the platform, VAULT_TOKEN or VAULT_SECRET_ID, or a file")

    def _own(self, key_id: str) -> str | None:
        name, mark, version = key_id.partition("#")
        if name.removeprefix(f"{self._mount or 'transit'}/").removeprefix("keys/") != self._name:
            return key_id or None
        return f"{self._name}{mark}{version}"


def _settings(cache_ttl: float, use_kms_signing: bool, options: KmsOptions) -> SignerSettings:
    algorithm = options.get("algorithm")
    given: dict[str, Any] = {
        name: value for name, value in options.items() if name not in {"algorithm", "kms", "trusted_key_ids"}
    }
    return SignerSettings(
        ttl_s=cache_ttl,
        use_kms_signing=use_kms_signing,
        trusted_key_ids=tuple(options.get("trusted_key_ids", ())),
        algorithm=None if algorithm is None else algorithm_of(algorithm),
        **given,
    )


def _warn(what: str, better: str) -> None:
    warnings.warn(
        f"{what} in the configuration live long, and are read by whoever reads that; safer is {better}",
        HardcodedCredentialWarning,
        stacklevel=3,
    )
