"""Roles that JWTs show: whose JWTs are taken, and which of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.access.issuer_keys import MAX_AGE_S, PAUSE_S, REFRESH_S
from keystead.errors import InvalidInputError, IssuerUnavailableError, UnauthenticatedError
from keystead.manager.access import Access, access
from keystead.model import Principal
from keystead.ports import RoleKind
from tests.access.roles import SCOPES, jwt_role
from tests.audit.worlds import actions
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer, SigningKey, ec_key, ed_key, rsa_key
from tests.fakes.world import World

SIGNATURE: Final = "no known key successfully validated the token signature"


def pem(key: SigningKey) -> str:
    """Return the public half of a key as a role has it."""
    text: bytes = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


@pytest.fixture
async def room(clock: FakeClock) -> AsyncIterator[Access]:
    """Who may call a store."""
    async with World(clock).open() as km:
        yield await access(km)


async def made(room: Access, name: str = "ci", *, tenant: str = "", **rules: Any) -> None:
    await room.roles.create(name, SCOPES, jwt_role(**rules), tenant=tenant)


async def refused(room: Access, text: str, told: str, name: str = "ci", *, tenant: str = "") -> None:
    with pytest.raises(InvalidInputError, match=told):
        await room.logins.jwt(name, text, tenant=tenant)


async def test_a_jwt_of_the_issuer_gives_a_token_of_the_role(room: Access, provider: FakeIssuer) -> None:
    await made(room, tenant="north", issuer=provider.url, token_uses=2)
    for key in (rsa_key(), ec_key(), ed_key()):
        login = await room.logins.jwt("ci", provider.token(key, sub="svc-a"), tenant="north")
        text = "".join(login.token.text)
        for _ in range(2):
            caller = await room.tokens.authenticate(text)
            assert caller.principal == Principal("svc-a", "north")
            assert caller.may_transit("encrypt", "orders-eu")
        with pytest.raises(UnauthenticatedError):
            await room.tokens.authenticate(text)
    assert provider.asked.count("/keys") == 1


async def test_a_role_of_another_tenant_is_not_there(room: Access, provider: FakeIssuer) -> None:
    await made(room, tenant="north", issuer=provider.url)
    for tenant in ("", "south"):
        await refused(room, provider.token(rsa_key()), 'role "ci" could not be found', tenant=tenant)


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"aud": "other"}, "invalid audience"),
        ({"aud": None}, "invalid audience"),
        ({"aud": ["other", "another"]}, "invalid audience"),
        ({"iss": "https://else.example"}, "invalid issuer"),
        ({"iss": None}, "invalid issuer"),
        ({"exp": 1_577_836_810}, "token is expired"),
        ({"exp": None}, "token is expired"),
        ({"exp": None, "iat": None, "nbf": None}, "no issued at"),
        ({"nbf": 4_102_444_799}, "not yet valid"),
        ({"iat": 4_102_444_799}, "issued in the future"),
        ({"sub": None}, 'claim "sub" not found'),
        ({"sub": 17}, "invalid subject"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
    ],
    ids=str,
)
async def test_a_jwt_that_does_not_hold_is_refused_and_why_is_told(
    room: Access, provider: FakeIssuer, claims: dict[str, Any], told: str
) -> None:
    await made(room, issuer=provider.url)
    await refused(room, provider.token(rsa_key(), **claims), told)
    assert await room.tokens.all() == []


async def test_a_jwt_that_names_one_of_the_audiences_is_taken(room: Access, provider: FakeIssuer) -> None:
    await made(room, issuer=provider.url, audiences=("elsewhere", "here"))
    await room.logins.jwt("ci", provider.token(rsa_key(), aud=["here", "other"]))
    await refused(room, provider.token(rsa_key(), aud="keystead"), "invalid audience")


@pytest.mark.parametrize("text", ["", "junk", "a.b.c", "a" * 20_000])
async def test_what_is_no_jwt_is_refused(room: Access, provider: FakeIssuer, text: str) -> None:
    await made(room, issuer=provider.url)
    await refused(room, text, "error verifying token signature")


async def test_a_subject_and_claims_may_be_bound(room: Access, provider: FakeIssuer) -> None:
    bound = {"env": ("prod", "stage"), "/kubernetes.io/namespace": ("billing",), "level": (2,), "is_ci": (True,)}
    await made(room, issuer=provider.url, bound_subject="svc-a", bound_claims=bound)
    good: dict[str, Any] = {
        "sub": "svc-a",
        "env": ["dev", "stage"],
        "kubernetes.io": {"namespace": "billing"},
        "level": 2,
        "is_ci": True,
    }
    await room.logins.jwt("ci", provider.token(rsa_key(), **good))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"sub": "svc-b"}, r"invalid subject \(sub\)"),
        ({"env": None}, 'claim "env" is missing'),
        ({"env": "dev"}, 'claim "env" does not match'),
        ({"env": []}, 'claim "env" does not match'),
        ({"env": "PROD"}, 'claim "env" does not match'),
        ({"kubernetes.io": {}}, "is missing"),
        ({"kubernetes.io": "billing"}, "is missing"),
        ({"kubernetes.io": {"namespace": "other"}}, "does not match"),
        ({"level": "2"}, "does not match"),
        ({"level": True}, "does not match"),
        ({"is_ci": 1}, "does not match"),
    ]
    for change, told in changes:
        await refused(room, provider.token(rsa_key(), **{**good, **change}), told)


async def test_keys_may_be_given_instead_of_an_issuer_and_whatever_ids_the_jwts_name(
    room: Access, provider: FakeIssuer
) -> None:
    old, new = rsa_key("old"), rsa_key("new")
    await made(room, public_keys=(pem(old), pem(new), pem(ec_key()), pem(ed_key())), issuer="a cluster")
    for key in (old, new, ec_key(), ed_key()):
        await room.logins.jwt("ci", provider.token(key, iss="a cluster"))
    await refused(room, provider.token(rsa_key("other"), iss="a cluster"), SIGNATURE)
    await refused(room, provider.token(old, iss="another"), "invalid issuer")
    assert provider.asked == []
    await made(room, "any", public_keys=(pem(old),))
    await room.logins.jwt("any", provider.token(old, iss=None))


async def test_a_key_that_the_issuer_takes_into_use_is_followed_and_one_withdrawn_is_refused_soon(
    room: Access, provider: FakeIssuer, clock: FakeClock
) -> None:
    await made(room, issuer=provider.url)
    await room.logins.jwt("ci", provider.token(rsa_key()))
    provider.publish(ec_key("new"))
    clock.advance(PAUSE_S)
    await room.logins.jwt("ci", provider.token(ec_key("new")))
    await refused(room, provider.token(rsa_key()), SIGNATURE)
    provider.publish(ec_key("newer"))
    await room.logins.jwt("ci", provider.token(ec_key("new")))
    clock.advance(REFRESH_S)
    await refused(room, provider.token(ec_key("new")), SIGNATURE)


async def test_while_the_issuer_is_away_known_keys_are_used_for_a_time_and_then_nothing_is(
    room: Access, provider: FakeIssuer, clock: FakeClock
) -> None:
    await made(room, issuer=provider.url)
    await room.logins.jwt("ci", provider.token(rsa_key()))
    provider.is_down = True
    clock.advance(REFRESH_S)
    await room.logins.jwt("ci", provider.token(rsa_key()))
    clock.advance(MAX_AGE_S - REFRESH_S)
    with pytest.raises(IssuerUnavailableError):
        await room.logins.jwt("ci", provider.token(rsa_key()))
    provider.is_down = False
    clock.advance(PAUSE_S)
    await room.logins.jwt("ci", provider.token(rsa_key()))


async def test_a_role_made_anew_under_its_name_has_its_own_keys(room: Access, provider: FakeIssuer) -> None:
    await made(room, public_keys=(pem(rsa_key()),))
    text = provider.token(rsa_key(), iss=None)
    await room.logins.jwt("ci", text)
    await room.roles.delete(RoleKind.JWT, "ci")
    await refused(room, text, "could not be found")
    await made(room, public_keys=(pem(ec_key()),))
    await refused(room, text, SIGNATURE)


async def test_each_login_is_in_the_trail_with_who_it_was(clock: FakeClock, provider: FakeIssuer) -> None:
    world = World(clock)
    async with world.open(audit=True) as km:
        room = await access(km)
        await made(room, issuer=provider.url)
        await room.logins.jwt("ci", provider.token(rsa_key(), sub="svc-a"))
        await refused(room, provider.token(rsa_key(), aud="other"), "audience")
        assert (await actions(world)).count("role.login") == 1


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "needs an issuer, or public keys"),
    ({"issuer": "https://a.example", "audiences": ()}, "audiences: 1 to"),
    ({"issuer": "https://a.example", "audiences": ("",)}, "audiences are texts"),
    ({"issuer": "http://a.example"}, "begins with https://"),
    ({"issuer": "ftp://a.example"}, "cannot be read from there"),
    ({"issuer": "a", "jwks_uri": "http://169.254.169.254/keys"}, "begins with https://"),
    ({"jwks_uri": "https://a.example/keys"}, "needs an issuer"),
    ({"public_keys": ("junk",)}, "-----BEGIN PUBLIC KEY-----"),
    ({"public_keys": (pem(rsa_key("short", bits=1024)),)}, "2048 to 8192"),
    ({"public_keys": (pem(rsa_key()),), "jwks_uri": "https://a.example/keys"}, "not both"),
    ({"issuer": "https://a.example", "bound_claims": {"env": ()}}, "'env' is bound to 1 to"),
    ({"issuer": "https://a.example", "bound_claims": {"": ("a",)}}, "claims are texts"),
    ({"issuer": "https://a.example", "user_claim": ""}, "names of a claim"),
    ({"issuer": "https://a.example", "leeway_s": 301}, "0 to 300"),
    ({"issuer": "https://a.example", "token_ttl_s": 0}, "a token's TTL"),
]


@pytest.mark.parametrize(("rules", "told"), BAD, ids=[told for _, told in BAD])
async def test_what_cannot_be_a_role_is_refused(room: Access, rules: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        await made(room, **rules)
    assert await room.roles.all() == []


async def test_a_curve_that_no_jwt_is_signed_by_is_refused(room: Access) -> None:
    other = SigningKey("k1", "ES256K", generate_private_key(SECP256K1()))
    with pytest.raises(InvalidInputError, match="P-256"):
        await made(room, public_keys=(pem(other),))
