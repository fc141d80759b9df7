"""HMACs are those of RFC 2104 under a key of the version's own, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.keyring import Keyring
from keystead.crypto.private_keys import read_pair
from keystead.errors import InvalidInputError, KeyStateError, KMSError
from keystead.model import TransitType
from keystead.transit import base64_text
from keystead.transit.digests import Hash
from keystead.transit.macs import Checker, maker
from keystead.transit.opened import TooNewError
from tests.transit.made import changed, drawn, key_of
from tests.transit.replay.recordings import Exchange, scenario

KNOWN = b"01234567890123456789012345678901"
TYPES = [kind for kind in TransitType if kind not in (TransitType.RSA_3072, TransitType.RSA_4096)]
OF_HASHLIB = {
    "sha1": hashlib.sha1,
    "sha2-224": hashlib.sha224,
    "sha2-256": hashlib.sha256,
    "sha2-384": hashlib.sha384,
    "sha2-512": hashlib.sha512,
    "sha3-224": hashlib.sha3_224,
    "sha3-256": hashlib.sha3_256,
    "sha3-384": hashlib.sha3_384,
    "sha3-512": hashlib.sha3_512,
}


def known_answers() -> list[Exchange]:
    """Return the recorded requests for an HMAC of the known key's first version that were answered."""
    return [
        each
        for each in scenario("hmac").exchanges
        if each.path.startswith("/v1/transit/hmac/known")
        and each.recorded.status == 200
        and each.recorded.body["data"]["hmac"].startswith("vault:v1:")
    ]


def body_of(exchange: Exchange) -> dict[str, Any]:
    assert isinstance(exchange.body, dict)
    return exchange.body


@pytest.mark.parametrize("exchange", known_answers(), ids=lambda each: str(each.index))
def test_known_answers_of_an_imported_key(exchange: Exchange) -> None:
    given = body_of(exchange)
    algorithm = exchange.path.removeprefix("/v1/transit/hmac/known").strip("/") or given.get("algorithm", "sha2-256")
    made = maker(key_of(TransitType.HMAC, KNOWN), algorithm).make(base64_text.decode(given["input"] or ""))
    assert made == exchange.recorded.body["data"]["hmac"]


def test_there_are_known_answers_for_every_algorithm() -> None:
    assert len(known_answers()) >= len(Hash)


@pytest.mark.parametrize("algorithm", OF_HASHLIB)
@given(key=st.binary(min_size=32, max_size=512), message=st.binary(max_size=300))
def test_an_hmac_is_that_of_the_key_itself(algorithm: str, key: bytes, message: bytes) -> None:
    expected = hmac.new(key, message, OF_HASHLIB[algorithm]).digest()
    assert maker(key_of(TransitType.HMAC, key), algorithm).make(message) == f"vault:v1:{base64_text.encode(expected)}"


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind is not TransitType.HMAC])
def test_every_other_type_derives_its_hmac_key(kind: TransitType) -> None:
    material = drawn(kind)
    secret = read_pair(material).secret if kind.is_pair else material
    hmac_key = HKDF(SHA256(), 32, None, b"hmac").derive(secret)
    made = maker(key_of(kind, material)).make(b"message")
    assert made == f"vault:v1:{base64_text.encode(hmac.digest(hmac_key, b'message', 'sha256'))}"


def test_a_key_that_derives_has_one_hmac_key() -> None:
    material = os.urandom(32)
    whole, deriving = (key_of(TransitType.AES_256, material, derived=derived) for derived in (False, True))
    assert maker(whole).make(b"x") == maker(deriving).make(b"x")


@pytest.mark.parametrize("kind", TYPES)
def test_what_was_made_verifies_under_its_version_and_algorithm_alone(kind: TransitType) -> None:
    key = key_of(kind, *(drawn(kind) if not kind.is_rsa else _other_rsa(number) for number in range(2)))
    first, second = maker(key, "sha3-256", version=1).make(b"m"), maker(key, "sha3-256").make(b"m")
    assert (first[:9], second[:9]) == ("vault:v1:", "vault:v2:")
    checker = Checker(key, Hash.SHA3_256)
    assert checker.is_valid(b"m", first)
    assert checker.is_valid(b"m", second)
    assert not checker.is_valid(b"m", first.replace("v1", "v2"))
    assert not checker.is_valid(b"n", first)
    assert not Checker(key).is_valid(b"m", first)


def _other_rsa(number: int) -> bytes:
    """Return the same RSA key with another secret of its own."""
    return drawn(TransitType.RSA_2048)[:1] + bytes([number]) * 32 + drawn(TransitType.RSA_2048)[33:]


@given(message=st.binary(max_size=64), at=st.integers(0, 31), change=st.integers(1, 255))
def test_a_changed_byte_never_verifies(message: bytes, at: int, change: int) -> None:
    key = key_of(TransitType.HMAC, KNOWN)
    raw = bytearray(base64_text.decode(maker(key).make(message)[9:]))
    raw[at] ^= change
    assert not Checker(key).is_valid(message, f"vault:v1:{base64_text.encode(bytes(raw))}")


@pytest.mark.parametrize("kept", range(32))
def test_a_truncated_hmac_never_verifies(kept: int) -> None:
    key = key_of(TransitType.HMAC, KNOWN)
    raw = base64_text.decode(maker(key).make(b"m")[9:])
    assert not Checker(key).is_valid(b"m", f"vault:v1:{base64_text.encode(raw[:kept])}")
    assert not Checker(key).is_valid(b"m", f"vault:v1:{base64_text.encode(raw + bytes(kept + 1))}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "invalid HMAC to verify: no prefix"),
        ("UcBv", "invalid HMAC to verify: no prefix"),
        ("vault:v1", "invalid HMAC: wrong number of fields"),
        ("vault:vx:UcBv", "invalid HMAC: version number could not be decoded"),
        ("vault:v1:!!", "unable to decode verification HMAC as base64: illegal base64 data at input byte 0"),
        ("vault:v0:UcBv", "cannot verify HMAC: version is too old (disallowed by policy)"),
        ("vault:v-1:UcBv", "cannot verify HMAC: version is too old (disallowed by policy)"),
        ("vault:v9:UcBv", "invalid HMAC: version is too new"),
    ],
)
def test_what_is_no_hmac_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Checker(key_of(TransitType.HMAC, KNOWN)).is_valid(b"m", text)
    assert str(refused.value) == told


@pytest.mark.parametrize("algorithm", ["md5", "SHA2-256", "sha2-999", ""])
def test_an_unknown_algorithm_is_refused(algorithm: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^unsupported algorithm '\\x00'$"):
        maker(key_of(TransitType.HMAC, KNOWN), algorithm)


def test_no_algorithm_is_refused() -> None:
    key = key_of(TransitType.HMAC, KNOWN)
    with pytest.raises(InvalidInputError, match=r"^algorithm cannot be none$"):
        maker(key, "none")
    with pytest.raises(InvalidInputError, match=r"^algorithm cannot be none$"):
        Checker(key, None)


def test_versions_below_the_limits_neither_make_nor_verify() -> None:
    key = key_of(TransitType.HMAC, *(drawn(TransitType.HMAC) for _ in range(3)))
    made = maker(key, version=1).make(b"m")
    limited = changed(key, min_decryption=2)
    with pytest.raises(InvalidInputError, match=r"^no such key version$"):
        maker(limited, version=1)
    with pytest.raises(InvalidInputError, match=r"^cannot verify HMAC: version is too old"):
        Checker(limited).is_valid(b"m", made)
    with pytest.raises(InvalidInputError, match=r"^cannot generate HMAC: version is too old"):
        maker(changed(key, min_decryption=2, min_encryption=3), version=2)
    with pytest.raises(InvalidInputError, match=r"^key version does not exist \(cannot be negative\)$"):
        maker(key, version=-1)


def test_a_version_that_another_process_may_have_made_is_told_apart() -> None:
    key = key_of(TransitType.HMAC, KNOWN)
    with pytest.raises(TooNewError, match=r"^key version does not exist; latest key version is 1$"):
        maker(key, version=2)
    with pytest.raises(TooNewError):
        Checker(key).is_valid(b"m", "vault:v2:UcBv")


def test_a_soft_deleted_key_neither_makes_nor_verifies() -> None:
    key = key_of(TransitType.HMAC, KNOWN)
    made, deleted = maker(key).make(b"m"), changed(key, soft_deleted=True)
    with pytest.raises(InvalidInputError, match=r"^refusing to use soft-deleted key$"):
        maker(deleted)
    with pytest.raises(InvalidInputError, match=r"^refusing to use soft-deleted key$"):
        Checker(deleted).is_valid(b"m", made)


@pytest.mark.parametrize("kind", [TransitType.HMAC, TransitType.AES_256, TransitType.ECDSA_P256])
def test_the_keyring_is_asked_each_time(kind: TransitType) -> None:
    is_closed = False

    def gate(ring: Keyring, encrypting: bool) -> KMSError | None:
        return KeyStateError("closed") if is_closed else None

    key = key_of(kind, gate=gate)
    made = maker(key).make(b"m")
    is_closed = True
    with pytest.raises(KeyStateError):
        maker(key)
    with pytest.raises(KeyStateError):
        Checker(key).is_valid(b"m", made)


def test_the_key_is_in_no_representation() -> None:
    assert KNOWN.decode() not in repr(maker(key_of(TransitType.HMAC, KNOWN)))
