"""Tokens of an identity provider are taken beside our own, for what their scopes allow."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from keystead.access.callers import Scope
from keystead.access.issuer_keys import PAUSE_S
from keystead.config.service import load_service
from keystead.errors import ConfigurationError, MissingDependencyError
from keystead.manager.access import issuer
from keystead.server.causes import may_pass
from keystead.server.errors import RETRY_S
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import AUDIENCE, FakeIssuer, ec_key, rsa_key
from tests.server.clients import GENERATE, Client, Installation, Node
from tests.server.test_access import OPERATIONS, code_of

DEVICE = {"input": {"deviceId": "device-123"}}


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FakeIssuer]:
    """An identity provider."""
    with FakeIssuer(clock) as started:
        started.publish(ec_key(), rsa_key())
        yield started


def settings(provider: FakeIssuer) -> dict[str, str]:
    return {
        "KEYSTEAD_OIDC_ISSUER": provider.url,
        "KEYSTEAD_OIDC_AUDIENCE": AUDIENCE,
        "KEYSTEAD_OIDC_TENANT_CLAIM": "org",
        "KEYSTEAD_OIDC_SCOPES": "kms-support=devices:admin secrets:reset,kms-app=devices:use",
    }


@pytest.fixture
async def node(installation: Installation, provider: FakeIssuer) -> AsyncIterator[Node]:
    """One node of a service that takes its tokens."""
    async with installation.node(environ=settings(provider)) as started:
        yield started


def client(node: Node, provider: FakeIssuer, **claims: Any) -> Client:
    return Client(node.app, provider.token(ec_key(), **{"org": "north", **claims}))


@pytest.mark.parametrize("name", ["generateClientEncryptionKey", "revokeDevice", "decryptData"])
async def test_an_operation_takes_one_of_its_scopes_and_no_other(node: Node, provider: FakeIssuer, name: str) -> None:
    query, variables, allowed = OPERATIONS[name]
    for scope in sorted(Scope):
        asking = client(node, provider, scope=f"openid {scope}")
        assert (code_of(await asking.ask(query, variables)) == "FORBIDDEN") == (scope not in allowed), scope
    for value, scopes in {
        "kms-support": {Scope.DEVICES_ADMIN, Scope.SECRETS_RESET},
        "kms-app": {Scope.DEVICES_USE},
    }.items():
        answer = await client(node, provider, scope=value).ask(query, variables)
        assert (code_of(answer) == "FORBIDDEN") == (not scopes & allowed), value


async def test_a_user_is_the_same_by_either_kind_of_token(node: Node, provider: FakeIssuer) -> None:
    key = await client(node, provider, scope="devices:use").key()
    assert await (await node.client("ada", tenant="north")).key() == key
    assert await (await node.client("ada", tenant="south")).key() != key


async def test_a_token_that_is_not_good_is_answered_like_every_other(node: Node, provider: FakeIssuer) -> None:
    for claims in ({"aud": "somebody else"}, {"org": None}, {"iss": "https://id.example.com"}, {"exp": 1}):
        response = await client(node, provider, scope="devices:use", **claims).post({"query": GENERATE, **DEVICE})
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json() == {
            "data": None,
            "errors": [{"message": "no valid token was sent", "extensions": {"code": "UNAUTHENTICATED"}}],
        }


async def test_a_back_end_acts_for_its_users_and_the_trail_names_both(
    installation: Installation, provider: FakeIssuer
) -> None:
    acting = {"X-Keystead-User": "ada"}
    environ = {**settings(provider), "KEYSTEAD_AUDIT_ENABLED": "true"}
    async with installation.node(environ=environ) as node:
        backend = client(node, provider, sub="backend", scope="devices:use act-as")
        assert code_of(await backend.ask(GENERATE, {"input": {"deviceId": "first"}}, **acting)) is None
        plain = client(node, provider, sub="bob", scope="devices:use")
        assert code_of(await plain.ask(GENERATE, {"input": {"deviceId": "first"}}, **acting)) == "FORBIDDEN"
        made = await node.service.tokens.create("backend", [Scope.DEVICES_USE, Scope.ACT_AS], tenant="north")
        ours = Client(node.app, "".join(made.text))
        assert code_of(await ours.ask(GENERATE, {"input": {"deviceId": "second"}}, **acting)) is None
        await node.service.manager.audit.sequenced()
        told = await node.service.manager.audit.entries(action="client_key.create")
    assert [record.actor for record in told] == [f"issuer {provider.url}", f"token {made.row.id}"]
    for record in told:
        named = {name: record.details[name] for name in ("user", "tenant", "behind")}
        assert named == {"user": "ada", "tenant": "north", "behind": "backend"}


async def test_while_the_issuer_is_away_its_tokens_wait_and_ours_do_not(
    installation: Installation, provider: FakeIssuer, clock: FakeClock
) -> None:
    provider.is_down = True
    async with installation.node(environ=settings(provider)) as node:
        theirs, ours = client(node, provider, scope="devices:use"), await node.client("ada", tenant="north")
        response = await theirs.post({"query": GENERATE, "variables": DEVICE})
        assert response.json() == {
            "data": None,
            "errors": [
                {
                    "message": "the service cannot reach the issuer of this token; try again",
                    "extensions": {"code": "UNAVAILABLE", "retryAfter": RETRY_S},
                }
            ],
        }
        key = await ours.key()
        assert (await ours.get("/readyz")).status_code == 200
        provider.is_down = False
        clock.advance(PAUSE_S)
        assert await theirs.key() == key


async def test_without_an_issuer_nobody_is_asked(installation: Installation, provider: FakeIssuer) -> None:
    async with installation.node() as node:
        assert node.service.issuer is None
        assert code_of(await client(node, provider, scope="devices:use").ask(GENERATE, DEVICE)) == "UNAUTHENTICATED"
    assert provider.asked == []


async def test_a_scope_that_is_none_stops_the_start(installation: Installation, provider: FakeIssuer) -> None:
    environ = {**settings(provider), "KEYSTEAD_OIDC_SCOPES": "kms-app=devices:all"}
    async with installation.node() as node:
        with pytest.raises(ConfigurationError, match=r"oidc\.scopes cannot be used: no scope 'devices:all'") as caught:
            await issuer(node.service.manager, load_service(environ=environ).settings)
    assert not may_pass(caught.value)


async def test_what_is_not_installed_is_named(
    installation: Installation, provider: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("issuers", "issuer_keys", "jwks"):
        monkeypatch.delitem(sys.modules, f"keystead.access.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)
    async with installation.node() as node:
        assert node.service.issuer is None
        with pytest.raises(MissingDependencyError, match=r"PyJWT: pip install 'keystead\[server\]'") as caught:
            await issuer(node.service.manager, load_service(environ=settings(provider)).settings)
    assert not may_pass(caught.value)
