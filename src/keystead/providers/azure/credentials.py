"""Who the Azure provider is, from configuration and environment; made at the first call, in its event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keystead.errors import ConfigurationError
from keystead.providers.azure.config import AUTHORITIES, AzureKMSConfig

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


def make_credential(config: AzureKMSConfig, environ: Mapping[str, str], transport: object) -> AsyncTokenCredential:
    """Return the credential that ``config`` describes; it asks nobody before the first token is needed.

    Raises:
        ConfigurationError: what goes with the tenant and client is missing, or one of them cannot be.
    """
    if config.credential is not None:
        credential = config.credential()
        if not (hasattr(credential, "get_token") or hasattr(credential, "get_token_info")):
            raise ConfigurationError("credential= is a function that returns a credential: one with get_token")
        return credential
    try:
        return _from_azure_identity(config, environ, transport)
    except ValueError:
        pass
    # Outside the except block: the SDK's frames hold the secret in clear.
    raise ConfigurationError(
        "tenant_id, client_id or authority is of a form that cannot be; a tenant is a GUID or a domain name"
    )


def _from_azure_identity(config: AzureKMSConfig, environ: Mapping[str, str], transport: object) -> AsyncTokenCredential:
    from azure.identity.aio import (
        ClientSecretCredential,
        DefaultAzureCredential,
        ManagedIdentityCredential,
        WorkloadIdentityCredential,
    )

    # The guard repeats calls; what a credential repeats itself would not know of its deadline.
    options: dict[str, Any] = {"transport": transport, "retry_total": 0}
    if (authority := authority_of(config, environ)) is not None:
        options["authority"] = authority
    if config.client_id is None:
        return DefaultAzureCredential(**options)
    if config.tenant_id is None:
        return ManagedIdentityCredential(client_id=config.client_id, **options)
    if secret := config.client_secret or environ.get("AZURE_CLIENT_SECRET"):
        # A SecretText formats as its name; what is sent must not.
        return ClientSecretCredential(config.tenant_id, config.client_id, str.__str__(secret), **options)
    if path := environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return WorkloadIdentityCredential(
            tenant_id=config.tenant_id, client_id=config.client_id, token_file_path=path, **options
        )
    raise ConfigurationError(
        "a tenant and a client need AZURE_CLIENT_SECRET (or client_secret=) or AZURE_FEDERATED_TOKEN_FILE; for a "
        "managed identity leave tenant_id out, for certificates give credential="
    )


def authority_of(config: AzureKMSConfig, environ: Mapping[str, str]) -> str | None:
    """Return where to sign in: as configured, as ``AZURE_AUTHORITY_HOST`` says (None), or in the vault's own cloud."""
    if config.authority is not None or environ.get("AZURE_AUTHORITY_HOST"):
        return config.authority
    url = config.vault_url or next(iter(config.sign_key or ()), "")
    return next((login for cloud, login in AUTHORITIES.items() if f".{cloud}" in url), None)
