"""Who may sign and verify with which version, and what is refused before."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.crypto.keyring import Keyring
from keystead.crypto.private_keys import from_outside
from keystead.errors import InvalidInputError, KeyStateError, KMSError
from keystead.model import TransitType
from keystead.transit.opened import TooNewError
from keystead.transit.public_keys import public_text
from keystead.transit.signature_options import Options, options_of
from keystead.transit.signatures import sign, verify
from tests.transit.made import changed, drawn, key_of
from tests.transit.signing import FOX, JWS, KEYS, SIGNERS, raw_of, text_of, told_public


@pytest.mark.parametrize("scheme", ["x", "PSS", "pss2"])
def test_an_unknown_scheme_is_refused_where_it_is_used(scheme: str) -> None:
    key, options = KEYS[TransitType.RSA_2048], Options(scheme=scheme)
    made = sign(key, FOX)
    for call in (lambda: sign(key, FOX, options), lambda: verify(key, FOX, made.text, options)):
        with pytest.raises(InvalidInputError, match=f"^unsupported rsa signature algorithm {scheme}$"):
            call()
    assert verify(KEYS[TransitType.ECDSA_P256], FOX, sign(KEYS[TransitType.ECDSA_P256], FOX, options).text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"marshaling": "raw"}, 'invalid marshaling type "raw"'),
        ({"marshaling": ""}, 'invalid marshaling type ""'),
        ({"hash_algorithm": "md5"}, 'invalid hash algorithm "md5"'),
        ({"hash_algorithm": "SHA2-256"}, 'invalid hash algorithm "SHA2-256"'),
        ({"salt_length": "bar"}, "salt length neither 'auto', 'hash', nor an int: bar"),
        ({"salt_length": ""}, "salt length neither 'auto', 'hash', nor an int: "),
        ({"salt_length": " 20"}, "salt length neither 'auto', 'hash', nor an int:  20"),
        ({"salt_length": "1_0"}, "salt length neither 'auto', 'hash', nor an int: 1_0"),
        ({"salt_length": "-2"}, "salt length is invalid: -2"),
        (
            {"hash_algorithm": "none"},
            "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        options_of(TransitType.RSA_2048, **given)
    assert str(refused.value) == told


def test_a_derived_key_signs_for_each_context_and_tells_its_public_key() -> None:
    seed = os.urandom(32)
    key = key_of(TransitType.ED25519, seed, derived=True)
    one, other = (sign(key, FOX, context=context) for context in (b"one", b"other"))
    expected = ed25519.Ed25519PrivateKey.from_private_bytes(
        HKDF(SHA256(), 32, None, b"keystead transit" + b"one").derive(seed)
    )
    assert raw_of(one.text) == expected.sign(FOX)
    assert base64.b64decode(one.public_key) == expected.public_key().public_bytes_raw()
    assert public_text(key, key.versions[1], b"one") == one.public_key != other.public_key
    assert public_text(key, key.versions[1]) == ""
    assert verify(key, FOX, one.text, context=b"one")
    assert not verify(key, FOX, one.text, context=b"other")
    assert not verify(key_of(TransitType.ED25519, seed), FOX, one.text)


def test_a_derived_key_asks_for_a_context() -> None:
    key = key_of(TransitType.ED25519, derived=True)
    made = sign(key, FOX, context=b"one")
    for context in (None, b""):
        with pytest.raises(InvalidInputError, match=r"^error deriving key: missing 'context' for key derivation"):
            sign(key, FOX, context=context)
        with pytest.raises(InvalidInputError, match=r"^error deriving key: missing 'context' for key derivation"):
            verify(key, FOX, made.text, context=context)


def test_an_imported_key_derives_the_same_wherever_it_is_brought_in() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    materials = (
        from_outside(private, os.urandom(32)),
        from_outside(private, os.urandom(32)),
        private.private_bytes_raw(),
    )
    made = {sign(key_of(TransitType.ED25519, each, derived=True), FOX, context=b"one") for each in materials}
    assert len(made) == 1


@pytest.mark.parametrize("kind", SIGNERS)
def test_a_public_key_alone_verifies_and_does_not_sign(kind: TransitType) -> None:
    made = sign(KEYS[kind], FOX)
    alone = key_of(kind, from_outside(told_public(KEYS[kind]), os.urandom(32)))
    assert verify(alone, FOX, made.text)
    with pytest.raises(InvalidInputError, match=r"^requested version for signing does not contain a private part$"):
        sign(alone, FOX)


def test_a_public_key_alone_derives_nothing() -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    alone = key_of(TransitType.ED25519, from_outside(public, os.urandom(32)), derived=True)
    with pytest.raises(InvalidInputError, match="does not contain a private part"):
        sign(alone, FOX, context=b"one")
    with pytest.raises(InvalidInputError, match="does not contain a private part"):
        verify(alone, FOX, text_of(bytes(64)), context=b"one")


@pytest.mark.parametrize("kind", [TransitType.AES_256, TransitType.CHACHA20, TransitType.HMAC])
def test_other_types_neither_sign_nor_verify(kind: TransitType) -> None:
    with pytest.raises(InvalidInputError, match=f"^key type {kind} does not support signing$"):
        sign(key_of(kind), FOX)
    with pytest.raises(InvalidInputError, match=f"^key type {kind} does not support verification$"):
        verify(key_of(kind), FOX, "vault:v1:AAAA")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "invalid signature: no prefix"),
        ("vault:v1", "invalid signature: wrong number of fields"),
        ("vault:vx:AAAA", "invalid signature: version number could not be decoded"),
        ("vault:v1:!!", "invalid base64 signature value"),
        ("vault:v9:!!", "invalid signature: version is too new"),
        ("vault:v0:!!", "ciphertext or signature version is disallowed by policy (too old)"),
        ("vault:v-1:AAAA", "ciphertext or signature version is disallowed by policy (too old)"),
    ],
)
def test_what_is_no_signature_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        verify(KEYS[TransitType.ED25519], FOX, text)
    assert str(refused.value) == told


@pytest.mark.parametrize("text", ["AA==", "A", "+/+/", "AAA\n="])
def test_what_is_no_base64_of_urls_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^invalid base64 signature value$"):
        verify(KEYS[TransitType.ED25519], FOX, f"vault:v1:{text}", JWS)


def test_versions_sign_and_verify_as_the_key_allows() -> None:
    kind = TransitType.ED25519
    key = key_of(kind, *(drawn(kind) for _ in range(3)))
    old, newest = sign(key, FOX, version=1), sign(key, FOX)
    assert (old.version, newest.version) == (1, 3)
    assert verify(key, FOX, old.text)
    assert not verify(key, FOX, old.text.replace("v1", "v2"))
    limited = changed(key, min_decryption=2, min_encryption=3)
    with pytest.raises(InvalidInputError, match=r"disallowed by policy \(too old\)$"):
        verify(limited, FOX, old.text)
    with pytest.raises(InvalidInputError, match=r"^requested version for signing is less than the minimum encryption"):
        sign(limited, FOX, version=2)
    with pytest.raises(InvalidInputError, match=r"^no such key version$"):
        sign(changed(key, min_decryption=2), FOX, version=1)
    with pytest.raises(InvalidInputError, match=r"^requested version for signing is negative$"):
        sign(key, FOX, version=-1)


def test_a_version_that_another_process_may_have_made_is_told_apart() -> None:
    with pytest.raises(TooNewError, match=r"^requested version for signing is higher than the latest key version$"):
        sign(KEYS[TransitType.ED25519], FOX, version=2)
    with pytest.raises(TooNewError, match=r"^invalid signature: version is too new$"):
        verify(KEYS[TransitType.ED25519], FOX, "vault:v2:AAAA")


@pytest.mark.parametrize("kind", SIGNERS)
def test_a_soft_deleted_key_neither_signs_nor_verifies(kind: TransitType) -> None:
    made, deleted = sign(KEYS[kind], FOX), changed(KEYS[kind], soft_deleted=True)
    for call in (lambda: sign(deleted, FOX), lambda: verify(deleted, FOX, made.text)):
        with pytest.raises(InvalidInputError, match=r"^refusing to use soft-deleted key$"):
            call()


def test_the_keyring_is_asked_each_time() -> None:
    is_closed = False

    def gate(ring: Keyring, encrypting: bool) -> KMSError | None:
        return KeyStateError("closed") if is_closed else None

    key = key_of(TransitType.ED25519, gate=gate)
    made = sign(key, FOX)
    is_closed = True
    for call in (lambda: sign(key, FOX), lambda: verify(key, FOX, made.text)):
        with pytest.raises(KeyStateError):
            call()
