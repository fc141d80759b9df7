"""Every kind of credential against the fake Entra ID and identity endpoints, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, ProviderAuthError, ProviderConnectionError
from keystead.providers.azure.provider import AzureKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.fakes.azure_http import Response
from tests.fakes.azure_keyvault import CLIENT, MANAGED, SECRET, TENANT, WORKLOAD, FakeAzure
from tests.fakes.azure_login import MACHINE
from tests.fakes.clock import FakeClock
from tests.providers.azure.conftest import Opening
from tests.services.azure import config_for, new_name

NONE: Mapping[str, Any] = {"tenant_id": None, "client_id": None, "client_secret": None}
VARIABLES = (
    "AZURE_TENANT_ID AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_FEDERATED_TOKEN_FILE AZURE_AUTHORITY_HOST "
    "AZURE_POD_IDENTITY_AUTHORITY_HOST IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT AZURE_TOKEN_CREDENTIALS "
    "AZURE_USERNAME AZURE_CLIENT_CERTIFICATE_PATH"
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine that runs the tests, and no command line tool of the vendor's to ask."""
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def kek(cloud: FakeAzure) -> str:
    name = new_name("kek")
    cloud.hsm.state.create_key(name, "oct-HSM")
    return name


def hsm(cloud: FakeAzure, **given: Any) -> dict[str, Any]:
    return {"vault_url": cloud.hsm.url, **NONE, **given}


async def works(provider: AzureKMSProvider, kek: str) -> bool:
    sealed = await provider.encrypt(b"value", kek)
    return await provider.decrypt(sealed) == b"value"


def clients(cloud: FakeAzure) -> set[str]:
    return {token.client for token in cloud.login.issued.values()}


@pytest.fixture
def federated(tmp_path: Path) -> str:
    path = tmp_path / "federated-token"
    path.write_text("a federated token")
    return str(path)


async def test_a_client_secret_in_the_configuration_signs_in(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    cloud.login.revoke_all()
    provider = opening(**hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    assert await works(provider, kek)
    assert clients(cloud) == {CLIENT}


async def test_a_client_secret_in_the_environment_signs_in(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    environ = {"AZURE_CLIENT_SECRET": SECRET}
    provider = opening({"environ": environ}, **hsm(cloud, tenant_id=TENANT, client_id=CLIENT))
    assert await works(provider, kek)


async def test_a_federated_token_signs_a_workload_in(
    opening: Opening, cloud: FakeAzure, kek: str, federated: str
) -> None:
    cloud.login.revoke_all()
    environ = {"AZURE_FEDERATED_TOKEN_FILE": federated}
    provider = opening({"environ": environ}, **hsm(cloud, tenant_id=TENANT, client_id=WORKLOAD))
    assert await works(provider, kek)
    assert clients(cloud) == {WORKLOAD}


async def test_a_federated_token_is_read_again_when_it_is_needed(
    opening: Opening, cloud: FakeAzure, kek: str, federated: str
) -> None:
    environ = {"AZURE_FEDERATED_TOKEN_FILE": federated}
    Path(federated).write_text("a token that has run out")
    provider = opening({"environ": environ}, **hsm(cloud, tenant_id=TENANT, client_id=WORKLOAD))
    with pytest.raises(ProviderAuthError):
        await works(provider, kek)
    Path(federated).write_text("a federated token")
    # The SDK keeps what it read for some minutes.
    await provider.aclose()
    again = opening({"environ": environ}, **hsm(cloud, tenant_id=TENANT, client_id=WORKLOAD))
    assert await works(again, kek)


@pytest.mark.parametrize("kind", ["imds", "app-service"])
async def test_a_client_alone_is_a_user_assigned_identity(
    opening: Opening, cloud: FakeAzure, kek: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.identity_environment(kind).items():
        monkeypatch.setenv(name, value)
    cloud.login.revoke_all()
    assert await works(opening(**hsm(cloud, client_id=MANAGED)), kek)
    assert clients(cloud) == {MANAGED}


async def test_an_identity_that_the_machine_does_not_have_is_denied(
    opening: Opening, cloud: FakeAzure, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.identity_environment("imds").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProviderAuthError, match="managed identity"):
        await works(opening(**hsm(cloud, client_id=CLIENT)), kek)


@pytest.mark.parametrize("kind", ["secret", "federated", "imds", "app-service"])
async def test_without_tenant_and_client_the_default_credentials_sign_in(
    opening: Opening, cloud: FakeAzure, kek: str, kind: str, request: pytest.FixtureRequest
) -> None:
    variables = {
        "secret": {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET},
        "federated": {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": WORKLOAD,
            "AZURE_FEDERATED_TOKEN_FILE": request.getfixturevalue("federated"),
            # Within the default chain the SDK gives a workload no other authority than this one.
            "AZURE_AUTHORITY_HOST": cloud.authority,
        },
    }
    for name, value in (variables.get(kind) or cloud.identity_environment(kind)).items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    cloud.login.revoke_all()
    assert await works(opening(**hsm(cloud)), kek)
    assert clients(cloud) == {{"secret": CLIENT, "federated": WORKLOAD}.get(kind, MACHINE)}


async def test_the_authority_may_be_the_environments(
    opening: Opening, cloud: FakeAzure, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", cloud.authority)
    given = hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET, authority=None)
    assert await works(opening(**given), kek)


async def test_a_credential_of_ones_own_is_made_in_each_loop_and_closed(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    made: list[OwnCredential] = []

    def make() -> OwnCredential:
        made.append(OwnCredential(cloud))
        return made[-1]

    provider = opening(**hsm(cloud, credential=make))
    assert made == []
    assert await works(provider, kek)
    await provider.aclose()
    assert [each.is_closed for each in made] == [True]


class OwnCredential:
    """A credential as another program would write it."""

    def __init__(self, cloud: FakeAzure) -> None:
        self._cloud = cloud
        self.is_closed = False

    async def get_token(self, *scopes: str, **given: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(self._cloud.login.issue(scopes[0].removesuffix("/.default"), "own"), 2**33)

    async def close(self) -> None:
        self.is_closed = True

    async def __aenter__(self) -> OwnCredential:
        return self

    async def __aexit__(self, *given: object) -> None:
        await self.close()


class CachingCredential(OwnCredential):
    """Gives one token for all time, as credentials do until it expires."""

    _token: Any = None

    async def get_token(self, *scopes: str, **given: Any) -> Any:
        self._token = self._token or await super().get_token(*scopes, **given)
        return self._token


async def test_a_tenant_and_client_without_anything_secret_say_what_is_missing(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening({"environ": {}}, **hsm(cloud, tenant_id=TENANT, client_id=CLIENT))
    with pytest.raises(ConfigurationError, match="AZURE_CLIENT_SECRET"):
        await works(provider, kek)


async def test_what_is_no_credential_is_refused(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    with pytest.raises(ConfigurationError, match="get_token"):
        await works(opening(**hsm(cloud, credential=lambda: None)), kek)


async def test_a_tenant_that_cannot_be_is_a_configuration_error(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(**hsm(cloud, tenant_id="a tenant?", client_id=CLIENT, client_secret=SECRET))
    with pytest.raises(ConfigurationError, match="tenant") as caught:
        await works(provider, kek)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "given",
    [
        {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": "wrong"},
        {"tenant_id": TENANT, "client_id": "00000000-0000-4000-8000-000000000000", "client_secret": SECRET},
        {"tenant_id": "00000000-0000-4000-8000-000000000000", "client_id": CLIENT, "client_secret": SECRET},
    ],
)
async def test_what_entra_id_refuses_is_denied_and_not_asked_again(
    opening: Opening, cloud: FakeAzure, kek: str, given: dict[str, Any]
) -> None:
    cloud.login_server.requests.clear()
    guarded = GuardedProvider(opening(**hsm(cloud, **given)), "azure")
    with pytest.raises(ProviderAuthError, match="no access token") as caught:
        await guarded.encrypt(b"value", kek)
    assert not caught.value.retryable
    assert len([path for _, path in cloud.login_server.requests if path.endswith("/token")]) <= 1


async def test_no_credentials_at_all_are_denied(
    opening: Opening, cloud: FakeAzure, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fake's endpoint, where the machine has no identity: without it the SDK would look for a real one.
    for name, value in cloud.identity_environment("imds").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cloud.login, "has_machine_identity", False)
    with pytest.raises(ProviderAuthError, match="az login"):
        await works(opening(**hsm(cloud)), kek)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_sign_in_is_an_outage_and_not_a_denial(
    opening: Opening, cloud: FakeAzure, kek: str, status: int
) -> None:
    provider = opening(**hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    busy = Response(status, {"error": "temporarily_unavailable"}, {"Retry-After": "7"})
    cloud.login_server.answer_next(1, busy)
    with pytest.raises(ProviderConnectionError) as caught:
        await works(provider, kek)
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 7.0)
    assert await works(provider, kek)


async def test_a_sign_in_that_cannot_be_reached_is_an_outage(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    given = hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET, authority="https://127.0.0.1:9")
    with pytest.raises(ProviderConnectionError) as caught:
        await works(opening(**given), kek)
    assert caught.value.retryable


@pytest.mark.parametrize("status", [410, 429, 500, None])
async def test_a_machines_identity_endpoint_out_of_order_is_an_outage(
    opening: Opening, cloud: FakeAzure, kek: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.identity_environment("imds").items():
        monkeypatch.setenv(name, value)
    provider = opening(**hsm(cloud, client_id=MANAGED))
    if status is None:
        # The SDK's HTTP client itself asks once more where a connection was closed without an answer.
        cloud.identity_server.drop_next(2)
    else:
        cloud.identity_server.answer_next(1, Response(status, {"error": "busy"}))
    with pytest.raises(ProviderConnectionError) as caught:
        await works(provider, kek)
    assert caught.value.retryable
    assert await works(provider, kek)


async def test_a_token_that_a_vault_no_longer_takes_is_replaced_within_the_call(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening(**hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    sealed = await provider.encrypt(b"value", kek)
    cloud.expire_tokens()
    results = await asyncio.gather(*(provider.decrypt(sealed) for _ in range(20)))
    assert set(results) == {b"value"}


async def test_a_vault_that_asks_for_a_token_made_anew_gets_one(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(**hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    sealed = await provider.encrypt(b"value", kek)
    cloud.expire_tokens(wants_claims=True)
    assert await provider.decrypt(sealed) == b"value"


async def test_tokens_that_are_never_taken_are_not_got_for_ever(
    cloud: FakeAzure, opening: Opening, kek: str, clock: FakeClock
) -> None:
    provider = opening({"clock": clock}, **hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    sealed = await provider.encrypt(b"value", kek)
    cloud.login.lifetime_s, before = -1, len(cloud.login_server.requests)
    cloud.expire_tokens()
    try:
        for _ in range(10):
            with pytest.raises(ProviderAuthError, match="does not accept"):
                await provider.decrypt(sealed)
        assert len(cloud.login_server.requests) - before <= 30
    finally:
        cloud.login.lifetime_s = 3600
    clock.advance(60)
    assert await provider.decrypt(sealed) == b"value"


async def test_of_credentials_that_were_replaced_only_the_last_is_kept_open(
    cloud: FakeAzure, opening: Opening, kek: str, clock: FakeClock
) -> None:
    made: list[CachingCredential] = []

    def make() -> CachingCredential:
        made.append(CachingCredential(cloud))
        return made[-1]

    provider = opening({"clock": clock}, **hsm(cloud, credential=make))
    sealed = await provider.encrypt(b"value", kek)
    for _ in range(3):
        cloud.expire_tokens()
        clock.advance(60)
        await provider.decrypt(sealed)
    assert [each.is_closed for each in made] == [True, True, False, False]
    await provider.aclose()
    assert all(each.is_closed for each in made)


async def test_a_secret_that_was_replaced_is_taken_from_the_environment_at_the_next_sign_in(
    opening: Opening, cloud: FakeAzure, kek: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"AZURE_CLIENT_SECRET": SECRET}
    provider = opening({"environ": environ, "clock": clock}, **hsm(cloud, tenant_id=TENANT, client_id=CLIENT))
    sealed = await provider.encrypt(b"value", kek)
    monkeypatch.setitem(cloud.login.clients, CLIENT, "a newer secret")
    environ["AZURE_CLIENT_SECRET"] = "a newer secret"
    cloud.expire_tokens()
    assert await provider.decrypt(sealed) == b"value"


async def test_no_credential_is_looked_for_before_the_first_call(cloud: FakeAzure) -> None:
    class Unread(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            raise AssertionError(name)

    provider = AzureKMSProvider(config_for(cloud, **hsm(cloud, tenant_id=TENANT, client_id=CLIENT)), environ=Unread())
    await provider.aclose()


async def test_a_vault_of_another_tenant_says_so_without_a_token_being_sent(
    opening: Opening, cloud: FakeAzure, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = opening(**hsm(cloud, tenant_id=TENANT, client_id=CLIENT, client_secret=SECRET))
    before = clients(cloud)
    monkeypatch.setattr(cloud.login, "tenant", "22222222-2222-4333-8444-555555555555")
    with pytest.raises(ProviderAuthError):
        await works(provider, kek)
    assert not clients(cloud) - before
