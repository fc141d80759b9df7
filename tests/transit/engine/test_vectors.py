"""What the engine writes and reads is as its page and its vectors have it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import DecryptionError
from keystead.transit import base64_text
from keystead.transit.ciphers import DERIVED_INFO, HMAC_INFO, hkdf, open_sealed, seal_convergent
from keystead.transit.texts import parted, sealed_bytes
from tests.crypto.vectors import cases

NAME = "transit-v1.json"


def _held(case: dict[str, Any], outside: bytes = b"") -> tuple[Keyring, LoadedKey]:
    key_id = int(case.get("data_key_id", 7))
    data_key = bytes.fromhex(case["data_key"]) if "data_key" in case else bytes(32)
    key = LoadedKey(key_id, 1, bytearray(data_key), bytearray(outside))
    ring = Keyring("keystead.transit/k", suite=case["suite"])
    ring.load(KeyringSnapshot({key_id: key}, active=key_id))
    return ring, key


@pytest.mark.parametrize("case", cases(NAME), ids=lambda case: case["comment"])
def test_a_vector_opens_and_a_convergent_one_is_written_again(case: dict[str, Any]) -> None:
    ring, key = _held(case)
    version, rest = parted(case["text"], "ciphertext")
    blob = sealed_bytes(rest)
    assert version == 1
    aad, context = bytes.fromhex(case["associated_data"]), bytes.fromhex(case["context"]) or None
    plaintext = bytes.fromhex(case["plaintext"])
    assert open_sealed(ring, key, blob, aad=aad, context=context) == plaintext
    if case["convergent"]:
        assert seal_convergent(ring, key, plaintext, aad=aad, context=context) == blob
    for other_aad, other_context in ((aad + b"x", context), (aad, (context or b"") + b"x")):
        with pytest.raises(DecryptionError):
            open_sealed(ring, key, blob, aad=other_aad, context=other_context)


@pytest.mark.parametrize("case", cases(NAME, "foreign"), ids=lambda case: case["comment"])
def test_what_another_engine_wrote_opens_under_a_key_from_outside(case: dict[str, Any]) -> None:
    ring, key = _held(case, bytes.fromhex(case["outside"]))
    blob = sealed_bytes(parted(case["text"], "ciphertext")[1])
    aad, context = bytes.fromhex(case["associated_data"]), bytes.fromhex(case["context"]) or None
    assert open_sealed(ring, key, blob, aad=aad, context=context) == bytes.fromhex(case["plaintext"])
    for at in range(len(blob)):
        for bit in range(8):
            altered = blob[:at] + bytes([blob[at] ^ 1 << bit]) + blob[at + 1 :]
            with pytest.raises(DecryptionError):
                open_sealed(ring, key, altered, aad=aad, context=context)
        with pytest.raises(DecryptionError):
            open_sealed(ring, key, blob[:at], aad=aad, context=context)
    drawn_here = LoadedKey(key.id, 1, bytearray(32))
    ring.load(KeyringSnapshot({key.id: drawn_here}, active=key.id))
    with pytest.raises(DecryptionError):
        open_sealed(ring, drawn_here, blob, aad=aad, context=context)


@pytest.mark.parametrize("case", cases(NAME)[:3] + cases(NAME)[-2:], ids=lambda case: case["comment"])
def test_an_envelope_that_is_cut_or_altered_anywhere_does_not_open(case: dict[str, Any]) -> None:
    ring, key = _held(case)
    blob = sealed_bytes(parted(case["text"], "ciphertext")[1])
    aad, context = bytes.fromhex(case["associated_data"]), bytes.fromhex(case["context"]) or None
    for at in range(len(blob)):
        with pytest.raises(DecryptionError):
            open_sealed(ring, key, blob[:at], aad=aad, context=context)
        for bit in range(8):
            altered = blob[:at] + bytes([blob[at] ^ 1 << bit]) + blob[at + 1 :]
            with pytest.raises(DecryptionError):
                open_sealed(ring, key, altered, aad=aad, context=context)


@pytest.mark.parametrize("case", cases(NAME, "macs"), ids=lambda case: case["key"][:8])
def test_an_hmac_key_is_derived_as_written(case: dict[str, Any]) -> None:
    assert hkdf(bytes.fromhex(case["secret"]), HMAC_INFO).hex() == case["key"]


@pytest.mark.parametrize("case", cases(NAME, "derived_signers"), ids=lambda case: case["context"])
def test_a_derived_signer_is_as_written(case: dict[str, Any]) -> None:
    secret, context = bytes.fromhex(case["secret"]), bytes.fromhex(case["context"])
    signer = Ed25519PrivateKey.from_private_bytes(hkdf(secret, DERIVED_INFO + context))
    assert signer.public_key().public_bytes_raw().hex() == case["public_key"]
    assert signer.sign(bytes.fromhex(case["input"])).hex() == case["signature"]
    assert base64_text.decode(base64_text.encode(secret)) == secret
