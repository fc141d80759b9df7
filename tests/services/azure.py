"""A fake Azure for the session: Entra ID, managed identities, a vault and a managed HSM, over https."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import pytest

from keystead.providers.azure.provider import AzureKMSConfig
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure, clear_challenges

_numbers: Final = itertools.count(1)


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A running fake; whoever uses it makes keys of names of their own, and heals what they broke."""
    clear_challenges()
    with FakeAzure(tmp_path_factory.mktemp("azure")) as fake:
        yield fake
    clear_challenges()


def new_name(kind: str) -> str:
    """Return a key name that no other test uses."""
    return f"{kind}-{next(_numbers)}"


def reach(azure: FakeAzure, **given: Any) -> dict[str, Any]:
    """Return the configuration's members that lead to the fake, signed in by a client secret; ``given`` goes first."""
    return {
        "vault_url": azure.vault.url,
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "allowed_hosts": azure.hosts,
        "authority": azure.authority,
        "ca_file": azure.ca_file,
        **given,
    }


def config_for(azure: FakeAzure, **given: Any) -> AzureKMSConfig:
    """Return a configuration that leads to the fake."""
    return AzureKMSConfig(**reach(azure, **given))
