"""A token of the issuer shows who calls, by the claims that are set for that, within its times."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from keystead.access.callers import Caller, Scope
from keystead.access.issuer_keys import MAX_AGE_S
from keystead.access.issuers import Issuer
from keystead.errors import ForbiddenError
from keystead.model import Principal
from tests.access.issuers import KEYS, issuer_of, refused
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import AUDIENCE, FakeIssuer, SigningKey, ec_key, signed


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.algorithm)
async def test_a_token_shows_who_calls(issuer: Issuer, provider: FakeIssuer, key: SigningKey) -> None:
    text = provider.token(key, scope="openid devices:use act-as profile devices:everything")
    caller = await issuer.authenticate(text)
    assert caller == Caller(Principal("ada"), frozenset({Scope.DEVICES_USE, Scope.ACT_AS}), f"issuer {provider.url}")


async def test_a_back_end_acts_for_users_of_its_tenant_and_stays_named(provider: FakeIssuer, clock: FakeClock) -> None:
    issuer = issuer_of(provider, clock, tenant_claim="org")
    backend = await issuer.authenticate(provider.token(ec_key(), sub="backend", org="north", scope="act-as"))
    acting = backend.acting_as("ada")
    assert acting.principal == Principal("ada", "north")
    assert acting.principal.details() == {"user": "ada", "tenant": "north", "behind": "backend"}
    plain = await issuer.authenticate(provider.token(ec_key(), org="north"))
    with pytest.raises(ForbiddenError):
        plain.acting_as("bob")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_access_tokens_have_one_of_few_types(issuer: Issuer, provider: FakeIssuer, kind: str | None) -> None:
    assert (await issuer.authenticate(provider.token(ec_key(), {"typ": kind}))).principal.user == "ada"


async def test_a_token_that_names_no_key_is_good_where_one_key_fits(
    issuer: Issuer, provider: FakeIssuer, clock: FakeClock
) -> None:
    text = provider.token(ec_key(), {"kid": None})
    assert (await issuer.authenticate(text)).principal.user == "ada"
    provider.publish(ec_key(), ec_key("another"))
    clock.advance(MAX_AGE_S)
    await refused(issuer, provider.token(ec_key(), {"kid": None}))


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("devices:use  metrics:read ", {Scope.DEVICES_USE, Scope.METRICS_READ}),
        (["devices:use", "metrics:read", "email"], {Scope.DEVICES_USE, Scope.METRICS_READ}),
        (["devices:use metrics:read"], set()),
        ([], set()),
        (["kms-support"], {Scope.DEVICES_ADMIN, Scope.SECRETS_RESET}),
        ("kms-support devices:use", {Scope.DEVICES_ADMIN, Scope.SECRETS_RESET, Scope.DEVICES_USE}),
        ("DEVICES:USE DEVICES_USE devices:* *", set()),
    ],
)
async def test_scopes_are_those_that_are_ours_or_mapped_to_ours(
    provider: FakeIssuer, clock: FakeClock, given: Any, scopes: set[Scope]
) -> None:
    mapped = {"kms-support": frozenset({Scope.DEVICES_ADMIN, Scope.SECRETS_RESET})}
    issuer = issuer_of(provider, clock, scope_claim="roles", scopes=mapped)
    assert (await issuer.authenticate(provider.token(ec_key(), roles=given, scope="tokens:write"))).scopes == scopes


async def test_user_and_tenant_are_named_by_the_claims_that_are_set(provider: FakeIssuer, clock: FakeClock) -> None:
    issuer = issuer_of(provider, clock, subject_claim="email", tenant_claim="org")
    text = provider.token(ec_key(), email="ada@example.com", org="north")
    assert (await issuer.authenticate(text)).principal == Principal("ada@example.com", "north")
    await refused(issuer, provider.token(ec_key(), email="ada@example.com"))
    await refused(issuer, provider.token(ec_key(), org="north"))
    await refused(issuer, provider.token(ec_key(), email="ada@example.com", org=""))


async def test_a_token_for_several_is_for_this_service_too(issuer: Issuer, provider: FakeIssuer) -> None:
    assert await issuer.authenticate(provider.token(ec_key(), aud=["other", AUDIENCE]))


async def test_times_have_a_leeway_and_no_more(issuer: Issuer, provider: FakeIssuer, clock: FakeClock) -> None:
    now = int(clock.now().timestamp())
    good: list[dict[str, Any]] = [
        {"exp": now - 29},
        {"nbf": now + 30},
        {"iat": now + 30},
        {"exp": now + 86_430},
        {"iat": None},
    ]
    good += [{"exp": now + 0.5}, {"iat": now - 86_000, "exp": now + 400}]
    bad: list[dict[str, Any]] = [
        {"exp": now - 30},
        {"nbf": now + 31},
        {"iat": now + 31},
        {"exp": now + 86_431},
        {"exp": None},
    ]
    bad += [{"iat": None, "exp": now + 86_431}, {"iat": now - 86_000, "exp": now + 431}, {"exp": now + 10**9}]
    for claims in good:
        assert await issuer.authenticate(provider.token(ec_key(), **claims)), claims
    for claims in bad:
        await refused(issuer, provider.token(ec_key(), **claims))


async def test_a_token_ends_by_the_clock_that_was_given(issuer: Issuer, provider: FakeIssuer, clock: FakeClock) -> None:
    text = provider.token(ec_key())
    clock.advance(600 + 29)
    await issuer.authenticate(text)
    clock.advance(1)
    await refused(issuer, text)


WRONG: Final[dict[str, dict[str, Any]]] = {
    "another issuer": {"iss": "https://id.example.com"},
    "an issuer with a slash": {"iss": "{url}/"},
    "no issuer": {"iss": None},
    "a list of issuers": {"iss": ["{url}"]},
    "another audience": {"aud": "somebody else"},
    "other audiences": {"aud": ["somebody", "else"]},
    "a longer audience": {"aud": AUDIENCE + "-admin"},
    "no audience": {"aud": None},
    "an empty audience": {"aud": []},
    "an audience that is no text": {"aud": [AUDIENCE, 5]},
    "an object of audiences": {"aud": {AUDIENCE: True}},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject of spaces": {"sub": "  "},
    "a subject that is no text": {"sub": 5},
    "a subject with a line's end": {"sub": "ada\n"},
    "a subject with half a character": {"sub": "\ud800"},
    "a long subject": {"sub": "a" * 256},
    "an end that is text": {"exp": "1893457000"},
    "an end that is a question": {"exp": True},
    "an end without end": {"exp": float("inf")},
    "an end that is no number": {"exp": float("nan")},
    "an end beyond numbers": {"exp": 10**400},
    "an issue before time": {"iat": -(10**400)},
    "a beginning that is text": {"nbf": "now"},
    "a beginning that is a question": {"nbf": True},
    "scopes that are a number": {"scope": 5},
    "scopes that are an object": {"scope": {"devices:use": True}},
    "scopes that are no texts": {"scope": ["devices:use", 5]},
    "scopes that are nested": {"scope": [["devices:use"]]},
    "a proof of possession": {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
    "an id that is no text": {"jti": 5},
}


@pytest.mark.parametrize("name", WRONG)
async def test_claims_that_are_wrong_are_refused(issuer: Issuer, provider: FakeIssuer, name: str) -> None:
    changes = json.loads(json.dumps(WRONG[name]).replace("{url}", provider.url))
    text = signed(ec_key(), {"alg": "ES256", "kid": "ec"}, provider.claims(**changes))
    await refused(issuer, text)
