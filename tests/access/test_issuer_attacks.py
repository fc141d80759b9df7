"""What is forged, altered or misshapen shows nothing, and is answered like everything that shows nothing."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystead.access.callers import EVERY_SCOPE, Caller
from keystead.access.issuer_keys import PAUSE_S
from keystead.access.issuers import Issuer
from keystead.access.jwts import MAX_TOKEN
from keystead.errors import IssuerUnavailableError, UnauthenticatedError
from tests.access.issuers import refused
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import DISCOVERY, FakeIssuer, ec_key, ed_key, part, rsa_key, signed
from tests.fakes.issuer import KEYS as KEY_SET


def forged(provider: FakeIssuer) -> dict[str, str]:
    """Return what attackers send, by what is wrong with it."""
    rsa, ec, ed = rsa_key(), ec_key(), ed_key()
    stranger = rsa_key("stranger")
    claims = provider.claims(sub="mallory", scope=" ".join(EVERY_SCOPE))
    body = part(claims)
    good = provider.token(ec)
    head, middle, tail = good.split(".")
    public = rsa.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def unsigned(header: Any, signature: str = "") -> str:
        return f"{part(header)}.{body}.{signature}"

    def by_mac(algorithm: str, secret: bytes, kid: str = "rsa") -> str:
        signing_input = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': kid})}.{body}"
        return f"{signing_input}.{part(hmac.digest(secret, signing_input.encode(), 'sha256'))}"

    def by_stranger(**header: Any) -> str:
        return signed(stranger, {"alg": "RS256", "typ": "JWT", **header}, claims)

    return {
        "no algorithm": unsigned({"alg": "none", "kid": "rsa"}),
        "no algorithm, otherwise spelt": unsigned({"alg": "nOnE", "kid": "rsa"}, "AAAA"),
        "no algorithm named": unsigned({"kid": "rsa"}, "AAAA"),
        "no algorithm, and a signature": unsigned({"alg": "none", "kid": "ec"}, tail),
        "the public key as a secret": by_mac("HS256", pem),
        "the public key's bytes as a secret": by_mac("HS256", der),
        "the key set's text as a secret": by_mac("HS256", json.dumps(rsa.jwk).encode()),
        "an empty secret": by_mac("HS256", b""),
        "a symmetric key of the set": by_mac("HS256", b"secret", "symmetric"),
        "another algorithm of the same key": signed(rsa_key("rsa", "PS256"), {"alg": "PS256", "kid": "rsa"}, claims),
        "a hash that is not taken": signed(replace(rsa, algorithm="RS512"), {"alg": "RS512", "kid": "rsa"}, claims),
        "the algorithm of another key": signed(ec, {"alg": "RS256", "kid": "rsa"}, claims),
        "the key of another algorithm": signed(ec, {"alg": "ES256", "kid": "ed"}, claims),
        "an algorithm in a list": unsigned({"alg": ["ES256"], "kid": "ec"}, tail),
        "a stranger's key": by_stranger(),
        "a stranger's key by another's name": by_stranger(kid="rsa"),
        "a key in a path": by_stranger(kid="../../../../dev/null"),
        "a key in a statement": by_stranger(kid="' OR 1=1 --"),
        "a key at an address": by_stranger(kid=f"{provider.url}/stranger"),
        "a key of another kind of name": by_stranger(kid=["rsa"]),
        "a key by a long name": by_stranger(kid="k" * 257),
        "an embedded key": by_stranger(kid="rsa", jwk=stranger.jwk),
        "an embedded key alone": by_stranger(jwk=stranger.jwk),
        "a key set at an address": by_stranger(kid="stranger", jku=f"{provider.url}/stranger"),
        "a certificate at an address": by_stranger(kid="stranger", x5u=f"{provider.url}/stranger"),
        "an embedded certificate": by_stranger(kid="stranger", x5c=["MIIB"]),
        "a demand to be understood": signed(ec, {"alg": "ES256", "kid": "ec", "crit": ["exp"]}, claims),
        "a demand of nothing": signed(ec, {"alg": "ES256", "kid": "ec", "crit": []}, claims),
        "a demand that PyJWT understands": signed(
            ec, {"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": True}, claims
        ),
        "a payload that is not encoded": signed(
            ec, {"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": False}, claims
        ),
        "a payload that is not encoded, undeclared": signed(ec, {"alg": "ES256", "kid": "ec", "b64": False}, claims),
        "a token to log out by": signed(ec, {"alg": "ES256", "kid": "ec", "typ": "logout+jwt"}, claims),
        "a proof of possession": signed(ec, {"alg": "ES256", "kid": "ec", "typ": "dpop+jwt"}, claims),
        "a type that is no text": signed(ec, {"alg": "ES256", "kid": "ec", "typ": 5}, claims),
        "other claims under a signature": f"{head}.{body}.{tail}",
        "no signature": f"{head}.{middle}.",
        "no signature, nor its dot": f"{head}.{middle}",
        "two signatures": f"{head}.{middle}.{tail}.{tail}",
        "the JSON form": json.dumps({"payload": middle, "protected": head, "signature": tail}),
        "the general JSON form": json.dumps(
            {"payload": middle, "signatures": [{"protected": head, "signature": tail}]}
        ),
        "an encrypted token": f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.AAAA.AAAA.AAAA.AAAA",
        "padding": f"{head}.{middle}.{tail}==",
        "a signature of nothing": f"{head}.{middle}.{part(bytes(64))}",
        "a signature in another form": f"{head}.{middle}.{part(b'0' + bytes(70))}",
        "a token within a token": signed(ec, {"alg": "ES256", "kid": "ec", "cty": "JWT"}, good.encode()),
        "claims that are a list": signed(ec, {"alg": "ES256", "kid": "ec"}, [claims]),
        "claims that are none": signed(ec, {"alg": "ES256", "kid": "ec"}, b""),
        "claims without end": signed(ec, {"alg": "ES256", "kid": "ec"}, b"[" * 5000),
        "a header that is a list": f"{part([])}.{middle}.{tail}",
        "a header without end": f"{part(b'[' * 5000)}.{middle}.{tail}",
        "a header that is no text": f"{part(bytes(range(128, 160)))}.{middle}.{tail}",
        "too much of it": signed(ed, {"alg": "EdDSA", "kid": "ed"}, {**claims, "more": "x" * MAX_TOKEN}),
        "another's alphabet": good.replace("-", "+").replace("_", "/") + "+",
        "half a character": good + "\ud800",
        "nothing": "",
        "dots": "..",
    }


async def test_nothing_that_attackers_send_shows_who_calls(issuer: Issuer, provider: FakeIssuer) -> None:
    provider.published.append({"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": part(b"secret")})
    believed, told = [], set()
    for name, text in forged(provider).items():
        try:
            believed.append((name, await issuer.authenticate(text)))
        except UnauthenticatedError as exc:
            told.add(str(exc))
    assert believed == []
    assert told == {"no valid token was sent"}
    assert await issuer.authenticate(provider.token(ec_key()))
    # What a token says of where its key is was not looked at.
    assert provider.asked == [DISCOVERY, KEY_SET]


async def test_headers_that_say_where_a_key_is_do_no_harm_where_the_key_is_the_issuers(
    issuer: Issuer, provider: FakeIssuer
) -> None:
    given = {"jku": f"{provider.url}/stranger", "jwk": rsa_key("stranger").jwk, "x5t": "AAAA", "x5c": ["MIIB"]}
    assert (await issuer.authenticate(provider.token(ec_key(), given))).principal.user == "ada"
    assert provider.asked == [DISCOVERY, KEY_SET]


async def test_not_one_character_of_a_token_can_be_another(issuer: Issuer, provider: FakeIssuer) -> None:
    text = provider.token(ed_key())
    for at, sign in enumerate(text):
        await refused(issuer, text[:at] + ("A" if sign != "A" else "B") + text[at + 1 :])


async def test_a_token_is_refused_for_a_reason_that_the_log_alone_has(
    issuer: Issuer, provider: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "keystead.access")
    text = provider.token(ec_key(), aud="elsewhere", sub="somebody in particular")
    await refused(issuer, text)
    (record,) = caplog.records
    assert record.message == "a token of the issuer is refused: InvalidAudienceError"
    assert not any(piece in str(record.__dict__) for piece in ("elsewhere", "particular", text.split(".")[1]))


async def test_a_good_token_is_neither_taken_nor_refused_while_the_keys_cannot_be_had(
    issuer: Issuer, provider: FakeIssuer, clock: FakeClock
) -> None:
    provider.is_down = True
    with pytest.raises(IssuerUnavailableError):
        await issuer.authenticate(provider.token(ec_key()))
    # What could not be good by any key is refused all the same.
    for text in (
        "",
        "a.b.c",
        provider.token(ec_key(), {"typ": "logout+jwt"}),
        provider.token(ec_key(), {"alg": "none"}),
    ):
        await refused(issuer, text)
    provider.is_down = False
    clock.advance(PAUSE_S)
    assert await issuer.authenticate(provider.token(ec_key()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty"]), JSON, max_size=3)
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope", "cnf"]), JSON, max_size=3
)
EDITS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 8), st.text(max_size=4)), min_size=1, max_size=3)


@pytest.fixture
def read(issuer: Issuer, provider: FakeIssuer) -> Issuer:
    """The issuer, its keys read."""
    assert asyncio.run(issuer.authenticate(provider.token(ec_key())))
    return issuer


def shown(issuer: Issuer, text: str) -> Caller | None:
    """Return who shows a token; whatever it is, there is no other error."""
    try:
        return asyncio.run(issuer.authenticate(text))
    except UnauthenticatedError:
        return None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_a_token_that_was_edited_is_refused(
    read: Issuer, provider: FakeIssuer, edits: list[tuple[int, int, str]]
) -> None:
    text = good = provider.token(ed_key())
    for at, length, put in edits:
        text = text[:at] + put + text[at + length :]
    assert (shown(read, text) is not None) == (text == good)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADERS, claims=CLAIMS)
def test_whatever_the_issuer_signs_is_a_token_or_none(
    read: Issuer, provider: FakeIssuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    given_header = {"alg": "EdDSA", "kid": "ed", **header}
    caller = shown(read, signed(ed_key(), given_header, {**provider.claims(), **claims}))
    assert caller is None or caller.origin == f"issuer {provider.url}"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_.-]{0,60}", fullmatch=True))
def test_no_other_text_is_one(read: Issuer, text: str) -> None:
    assert shown(read, text) is None
