"""What the Azure provider is told: vault, credentials, signing key, hosts; and how key ids are read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, SupportsIndex
from urllib.parse import urlsplit

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.model import SecretText

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

AUTHORITIES: Final[Mapping[str, str]] = {
    "azure.net": "https://login.microsoftonline.com",
    "azure.cn": "https://login.chinacloudapi.cn",
    "usgovcloudapi.net": "https://login.microsoftonline.us",
}
"""Where each of the vendor's clouds signs in."""

SUFFIXES: Final = tuple(f".{kind}.{cloud}" for kind in ("vault", "managedhsm") for cloud in AUTHORITIES)
"""Hosts that need not be listed: one label before any of these."""

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_AUTHORITY: Final = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?\Z")
_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}\Z")
_VERSION: Final = re.compile(r"[0-9A-Za-z]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class AzureKeyId:
    """A key, or one version of it. ``host`` is lower case, with its port where it is not 443."""

    host: str
    name: str
    version: str | None = None

    @property
    def vault_url(self) -> str:
        """The URL of the vault or managed HSM."""
        return f"https://{self.host}"

    @property
    def base(self) -> str:
        """The id without a version."""
        return f"https://{self.host}/keys/{self.name}"

    def __str__(self) -> str:
        return self.base if self.version is None else f"{self.base}/{self.version}"


@dataclass(frozen=True, slots=True)
class AzureKMSConfig:
    """Where keys are, and who asks.

    Args:
        vault_url: ``https://NAME.vault.azure.net`` or ``https://NAME.managedhsm.azure.net``; key ids may then be short
            (``NAME`` or ``NAME/VERSION``). Without it they are complete (``https://HOST/keys/NAME[/VERSION]``).
        tenant_id, client_id: with a secret (``client_secret``, or ``AZURE_CLIENT_SECRET``) a service principal, with
            ``AZURE_FEDERATED_TOKEN_FILE`` a workload identity. ``client_id`` alone: a user-assigned managed identity.
            Neither: ``DefaultAzureCredential``.
        credential: a function that returns an asyncio credential of your own, called once in each event loop and
            closed with the provider; instead of the three above.
        sign_key: id of the key that signs what RSA keys wrap (EC, or RSA with PS256). Of several the first signs, and
            what any of them signed is accepted. A wrap that is made with a public key proves nothing else about its
            origin; managed HSM keys that are AES need none.
        allow_unauthenticated_wrap: wrap with RSA keys without a signature, and accept wraps that have none.
        allowed_hosts: further hosts (``kv.example.org``, with port where it is not 443) that key ids may name; the
            token is sent there.
        managed_hsm: whether the vault at ``vault_url`` is a managed HSM and has MACs; told by its name otherwise.
        authority: where tokens come from; by the vault's cloud, or ``AZURE_AUTHORITY_HOST``, otherwise.
        ca_file: PEM file of the authorities to trust instead of the system's, for vault and sign-in alike.
        key_max_age_s: how long a key's version, state and public half are believed.
        connect_timeout_s, read_timeout_s: of one request.
        max_connections: how many requests may be under way in one event loop; more wait for their turn.

    Its repr hides what is secret; it cannot be pickled.

    Raises:
        ConfigurationError: a host that is neither Azure's nor listed, plain http, or credentials that are incomplete.
    """

    vault_url: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    credential: Callable[[], AsyncTokenCredential] | None = field(default=None, repr=False)
    sign_key: str | Sequence[str] | None = None
    allow_unauthenticated_wrap: bool = False
    allowed_hosts: Sequence[str] = ()
    managed_hsm: bool | None = None
    authority: str | None = None
    ca_file: str | os.PathLike[str] | None = None
    key_max_age_s: float = 300.0
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 5.0
    max_connections: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.allowed_hosts, str):
            raise ConfigurationError("allowed_hosts is a list of hosts: allowed_hosts=['kv.example.org']")
        listed = tuple(host.lower().removesuffix(":443") for host in self.allowed_hosts)
        if unusable := [host for host in listed if not _AUTHORITY.match(host)]:
            raise ConfigurationError(f"allowed_hosts takes host names, with a port at most, not {unusable[0]!r}")
        object.__setattr__(self, "allowed_hosts", listed)
        if self.vault_url is not None:
            host, path = self._split(self.vault_url)
            if path not in ([""], ["", ""]):
                raise ConfigurationError("vault_url has a host and no path: https://NAME.vault.azure.net")
            object.__setattr__(self, "vault_url", f"https://{host}")
        signers = (self.sign_key,) if isinstance(self.sign_key, str) else tuple(self.sign_key or ())
        object.__setattr__(self, "sign_key", tuple(str(self._signer(one)) for one in signers))
        self._check_credentials()
        if self.client_secret is not None:
            object.__setattr__(self, "client_secret", SecretText(self.client_secret))
        if self.authority is not None and not self.authority.startswith("https://"):
            raise ConfigurationError("authority is an https URL, such as https://login.microsoftonline.us")
        limits = (self.key_max_age_s, self.connect_timeout_s, self.read_timeout_s, self.max_connections)
        if not all(limit > 0 for limit in limits):
            raise ConfigurationError(
                "key_max_age_s, connect_timeout_s, read_timeout_s and max_connections are greater than zero"
            )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("AzureKMSConfig may hold a secret and cannot be pickled or copied")

    @property
    def signers(self) -> tuple[AzureKeyId, ...]:
        """The signing keys, the one that signs first."""
        return tuple(self.key_id(one) for one in self.sign_key or ())

    @property
    def has_macs(self) -> bool:
        """Whether the keys at ``vault_url`` may be ones that make MACs."""
        if self.managed_hsm is not None:
            return self.managed_hsm
        return self.vault_url is not None and ".managedhsm." in self.vault_url

    def is_listed(self, host: str) -> bool:
        """Whether ``host`` is one of ``allowed_hosts`` and not the vendor's own."""
        return host in self.allowed_hosts and not is_azure_host(host)

    def key_id(self, text: str) -> AzureKeyId:
        """Read a key id: complete, or short where there is a ``vault_url``.

        Raises:
            InvalidInputError: this is none.
            ConfigurationError: it names a host that is neither Azure's nor listed, or is short without a ``vault_url``.
        """
        if not isinstance(text, str) or not text or not text.isascii():
            raise InvalidInputError("an Azure key id is ASCII text, as in https://HOST/keys/NAME")
        if "://" in text:
            host, path = self._split(text)
            if path[:2] != ["", "keys"]:
                raise InvalidInputError("a complete Azure key id reads https://HOST/keys/NAME or .../NAME/VERSION")
            parts = path[2:]
        else:
            if self.vault_url is None:
                raise ConfigurationError(
                    "a key id without a host needs AzureKMSConfig(vault_url=...); or write https://HOST/keys/NAME"
                )
            host, parts = self.vault_url.removeprefix("https://"), text.split("/")
        name, version = parts[0] if parts else "", parts[1] if len(parts) > 1 else None
        if len(parts) > 2 or not _NAME.match(name) or (version is not None and not _VERSION.match(version)):
            raise InvalidInputError(
                "an Azure key's name has 1 to 127 letters, digits and hyphens, and its version letters and digits"
            )
        return AzureKeyId(host, name, version)

    def _signer(self, text: str) -> AzureKeyId:
        signer = self.key_id(text)
        if signer.version is not None:
            raise ConfigurationError("sign_key names a key without a version: its newest version signs")
        return signer

    def _split(self, url: str) -> tuple[str, list[str]]:
        """Return the host of an https URL, once it may be talked to, and the parts of the path."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigurationError("the URL of a vault or key cannot be read") from None
        if parts.scheme.lower() != "https":
            raise ConfigurationError("Azure Key Vault is reached by https only")
        host = parts.netloc.lower().removesuffix(":443")
        if parts.query or parts.fragment or not _AUTHORITY.match(host):
            raise ConfigurationError("the URL of a vault or key has a host and a path, and nothing else")
        if not is_azure_host(host) and host not in self.allowed_hosts:
            raise ConfigurationError(
                f"{host} is not a host of Azure Key Vault ({', '.join('*' + suffix for suffix in SUFFIXES)}); if "
                "access tokens may be sent there, list it in AzureKMSConfig(allowed_hosts=[...])"
            )
        return host, parts.path.split("/")

    def _check_credentials(self) -> None:
        given = [self.tenant_id, self.client_id, self.client_secret]
        if self.credential is not None and any(one is not None for one in given):
            raise ConfigurationError("give credential, or tenant_id, client_id and client_secret, not both")
        if self.client_secret is not None and not (self.tenant_id and self.client_id and self.client_secret):
            raise ConfigurationError("a client_secret goes with the tenant_id and the client_id it belongs to")
        if self.tenant_id is not None and not self.client_id:
            raise ConfigurationError("a tenant_id goes with the client_id of an application in it")
        if self.client_id == "":
            raise ConfigurationError("client_id is empty; leave it out for the default credentials")


def is_azure_host(host: str) -> bool:
    """Return whether ``host`` is a vault or managed HSM in one of the vendor's clouds."""
    return any(host.endswith(suffix) and bool(_LABEL.match(host.removesuffix(suffix))) for suffix in SUFFIXES)
