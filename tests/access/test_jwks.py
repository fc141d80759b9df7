"""Of an issuer's key set, what cannot verify, or must not, is passed by."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from keystead.access.jwks import MAX_KEYS, IssuerKeys, NoKeySetError, read_key_set
from keystead.model.jws import JWS_ALGORITHMS
from tests.fakes.issuer import ec_key, ed_key, rsa_key

ALL = tuple(JWS_ALGORITHMS)


def read(*keys: Any, algorithms: tuple[str, ...] = ALL) -> IssuerKeys:
    return read_key_set(json.dumps({"keys": keys}).encode(), algorithms)


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def test_a_key_verifies_by_the_algorithm_that_it_is_for() -> None:
    found = read(rsa_key().jwk, ec_key().jwk, ed_key().jwk)
    assert found.passed_by == 0
    for kid, algorithm in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")):
        fitting = [name for name in ALL if found.find(kid, name) is not None]
        assert fitting == [algorithm]


def test_a_key_that_names_no_algorithm_verifies_by_those_of_its_kind() -> None:
    found = read(*(without(key.jwk, "alg", "use") for key in (rsa_key(), ec_key(), ed_key())))
    assert [name for name in ALL if found.find("rsa", name)] == ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    assert [name for name in ALL if found.find("ec", name)] == ["ES256"]
    assert [name for name in ALL if found.find("ed", name)] == ["EdDSA"]


def test_an_algorithm_that_is_not_taken_makes_no_key() -> None:
    assert read(rsa_key().jwk, algorithms=("ES256",)) == IssuerKeys(passed_by=1)
    assert read(without(rsa_key().jwk, "alg"), algorithms=("PS256",)).find("rsa", "RS256") is None


JWK = rsa_key().jwk
OTHER_CURVE = {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True), "kid": "rsa"}
ED448 = {**OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True), "kid": "rsa"}


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "kid": "rsa", "alg": "HS256", "k": "c2VjcmV0"},
        {**JWK, "k": "c2VjcmV0"},
        rsa_key().private_jwk,
        ec_key().private_jwk,
        ed_key().private_jwk,
        {**JWK, "use": "enc"},
        {**JWK, "use": ["sig"]},
        {**JWK, "key_ops": ["encrypt"]},
        {**JWK, "key_ops": "verify"},
        {**JWK, "alg": "RSA-OAEP"},
        {**JWK, "alg": "ES256"},
        {**JWK, "alg": "HS256"},
        {**JWK, "alg": "none"},
        {**JWK, "alg": []},
        {**JWK, "kty": "EC"},
        {**JWK, "kty": ["RSA"]},
        {**JWK, "crv": "P-256"},
        {**JWK, "kid": 5},
        {**JWK, "kid": "k" * 257},
        {**JWK, "n": 5},
        {**JWK, "n": "!"},
        {**JWK, "e": "AA"},
        without(JWK, "n"),
        rsa_key("small", bits=1024).jwk,
        {**ec_key().jwk, "x": ec_key().jwk["y"]},
        {**ec_key().jwk, "crv": "P-384"},
        OTHER_CURVE,
        ED448,
        {**ed_key().jwk, "crv": "X25519"},
        {**ed_key().jwk, "x": "AAAA"},
        {},
        "key",
        None,
        [],
    ],
    # Keys are drawn anew in each process, and tests are named alike in all.
    ids=count(),
)
def test_what_must_not_verify_is_passed_by_and_the_others_are_not(jwk: Any) -> None:
    found = read(jwk, ed_key("good").jwk)
    assert list(found.by_kid) == ["good"]
    assert found.nameless == ()
    assert found.passed_by == 1


def test_a_key_that_is_too_large_to_verify_with_is_passed_by() -> None:
    modulus = rsa_key().private.public_key().public_numbers().n
    from tests.fakes.issuer import part

    large = part(((modulus << 6200) | 1).to_bytes(1031, "big"))
    assert read({**JWK, "n": large}).passed_by == 1


def test_keys_that_share_an_id_are_used_by_nobody() -> None:
    found = read(rsa_key().jwk, {**ec_key().jwk, "kid": "rsa"}, ed_key().jwk)
    assert list(found.by_kid) == ["ed"]
    assert found.passed_by == 2
    # One for encryption beside it is none of them.
    assert list(read(rsa_key().jwk, {**rsa_key("b").jwk, "kid": "rsa", "use": "enc"}).by_kid) == ["rsa"]


def test_a_token_that_names_no_key_has_the_only_one_that_fits() -> None:
    nameless = without(rsa_key().jwk, "kid")
    assert read(nameless, ec_key().jwk).find(None, "RS256") is not None
    assert read(rsa_key().jwk, ec_key().jwk).find(None, "RS256") is not None
    assert read(nameless, rsa_key("b").jwk).find(None, "RS256") is None
    assert read(nameless, ec_key().jwk).find(None, "EdDSA") is None
    assert read(nameless).find("rsa", "RS256") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": null}', b"[" * 100_000],
    ids=lambda content: str(content[:20]),
)
def test_what_is_no_key_set_is_none(content: bytes) -> None:
    with pytest.raises(NoKeySetError):
        read_key_set(content, ALL)


def test_a_key_set_has_an_end_and_may_be_empty() -> None:
    assert read() == IssuerKeys()
    assert read(*[{}] * MAX_KEYS).passed_by == MAX_KEYS
    with pytest.raises(NoKeySetError):
        read(*[{}] * (MAX_KEYS + 1))


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([rsa_key().jwk, ec_key().jwk, ed_key().jwk]), st.data())
def test_no_key_set_makes_anything_but_keys(jwk: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*jwk, "key_ops", "d"]))
    found = read({**jwk, name: data.draw(VALUES)})
    assert len(found.by_kid) + len(found.nameless) + found.passed_by == 1
