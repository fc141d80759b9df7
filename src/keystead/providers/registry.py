"""The registry: URI schemes and the classes behind them, as text, so that nothing is imported before it is used.

A provider of your own joins with ``register("mykms", "mypackage.kms:MyProvider")``; its class has a classmethod
``from_uri(uri: ProviderUri, settings: ProviderSettings) -> tuple[provider, default key id or None]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from keystead.errors import ConfigurationError, MissingDependencyError
from keystead.ports import KmsProvider
from keystead.providers.uri import ProviderSettings, ProviderUri


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered scheme: ``module:Class``, and the extra of Keystead that installs what it needs."""

    target: str
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class OpenedProvider:
    """A provider made from a URI. ``name`` is what records will call this instance: the provider's kind."""

    name: str
    provider: KmsProvider
    default_key_id: str | None


class OpensFromUri(Protocol):
    """What a registered class offers."""

    def from_uri(self, uri: ProviderUri, settings: ProviderSettings) -> tuple[KmsProvider, str | None]:
        """Return a provider and its default key id; a classmethod, without I/O."""


_LOCAL: Final = Entry("keystead.providers.local.provider:LocalKMSProvider")

_REGISTRY: Final[dict[str, Entry]] = {
    "local": _LOCAL,
    "file": _LOCAL,
    "env": _LOCAL,
    "multi": Entry("keystead.providers.multi.provider:MultiKMSProvider"),
    "hashivault": Entry("keystead.providers.vault.provider:VaultKMSProvider", "vault"),
    "pkcs11": Entry("keystead.providers.pkcs11.provider:Pkcs11KMSProvider", "pkcs11"),
    "awskms": Entry("keystead.providers.aws.provider:AWSKMSProvider", "aws"),
    "azurekms": Entry("keystead.providers.azure.provider:AzureKMSProvider", "azure"),
    "gcpkms": Entry("keystead.providers.gcp.provider:GCPKMSProvider", "gcp"),
}

_OTHERS_SPELLINGS: Final = {
    "aws": "awskms",
    "aws-kms": "awskms",
    "azure": "azurekms",
    "azure-kv": "azurekms",
    "azurekeyvault": "azurekms",
    "base64key": "env",
    "file2": "file",
    "gcp": "gcpkms",
    "gcp-kms": "gcpkms",
    "hcvault": "hashivault",
    "hsm": "pkcs11",
    "hv": "hashivault",
    "vault": "hashivault",
}


def register(scheme: str, target: str, extra: str | None = None) -> None:
    """Register ``scheme`` for the class at ``target`` (``module:Class``).

    Raises:
        ConfigurationError: the scheme is taken, or ``target`` is of another form.
    """
    scheme = scheme.lower()
    if scheme in _REGISTRY:
        raise ConfigurationError(f"the scheme {scheme}: is registered already, for {_REGISTRY[scheme].target}")
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise ConfigurationError("a provider is registered as 'module:Class'")
    _REGISTRY[scheme] = Entry(target, extra)


def schemes() -> list[str]:
    """Return the registered schemes, sorted."""
    return sorted(_REGISTRY)


def open_provider(uri: str, settings: ProviderSettings | None = None) -> OpenedProvider:
    """Return the provider a URI names. Opens no file and makes no connection.

    Raises:
        ConfigurationError: an unknown scheme, a malformed URI, a credential inside it, or what the provider refuses.
        MissingDependencyError: the provider's extra is not installed.
    """
    parsed = ProviderUri.parse(uri)
    entry = _REGISTRY.get(parsed.scheme)
    if entry is None:
        raise _unknown(parsed.scheme)
    provider, default_key_id = _load(parsed.scheme, entry).from_uri(parsed, settings or ProviderSettings())
    return OpenedProvider(provider.provider_name, provider, default_key_id)


def default_key_id_of(provider: KmsProvider) -> str | None:
    """Return the key id a provider falls back to: the local one derives a key for any id."""
    return "default" if provider.provider_name == "local" else getattr(provider, "default_key_id", None)


def _load(scheme: str, entry: Entry) -> OpensFromUri:
    module, _, name = entry.target.partition(":")
    try:
        return cast(OpensFromUri, getattr(import_module(module), name))
    except ImportError as exc:
        if entry.extra is not None:
            raise MissingDependencyError(
                f"{scheme}: needs an extra of Keystead: pip install 'keystead[{entry.extra}]'"
            ) from exc
        raise ConfigurationError(f"{scheme}: is registered for {entry.target}, which cannot be imported") from exc
    except AttributeError:
        raise ConfigurationError(f"{scheme}: is registered for {entry.target}, and there is no such class") from None


def _unknown(scheme: str) -> ConfigurationError:
    known = ", ".join(f"{name}:" for name in schemes())
    ours = _OTHERS_SPELLINGS.get(scheme)
    if ours is None:
        return ConfigurationError(f"no provider has the scheme {scheme}:; this release knows {known}")
    if ours in _REGISTRY:
        return ConfigurationError(f"{scheme}: is another project's spelling; Keystead's is {ours}:")
    return ConfigurationError(
        f"{scheme}: is another project's spelling of {ours}:, which this release does not have; it knows {known}"
    )
