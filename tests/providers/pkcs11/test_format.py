"""Ciphertexts as bytes, and the same vectors on a token."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from keystead.errors import DecryptionError
from keystead.model import EncryptedData, KeyReference
from keystead.providers.pkcs11.format import (
    WrapHeader,
    WrapMechanism,
    gcm_aad,
    id_order,
    next_key_id,
    open_payload,
    parse_ciphertext,
    wrap_payload,
)
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.crypto.vectors import cases, context_of, load
from tests.services.softhsm import SoftHsm

VECTORS = cases("pkcs11-wrap-v1.json")
HEADER = WrapHeader(WrapMechanism.AES_KEY_WRAP, b"\x01")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def raw(case: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(case[name])


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_a_vector_is_parsed_into_its_parts(case: dict[str, Any]) -> None:
    header, body = parse_ciphertext(raw(case, "ciphertext"))
    assert (header.mechanism.algorithm, header.key_id.hex()) == (case["algorithm"], case["cka_id"])
    assert bytes(header) + body == raw(case, "ciphertext")


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_a_vector_is_made_of_its_parts(case: dict[str, Any]) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, _ = parse_ciphertext(raw(case, "ciphertext"))
    plaintext, random = raw(case, "plaintext"), raw(case, "random")
    if header.mechanism is WrapMechanism.AES_GCM:
        aad = gcm_aad(header, context_of(case))
        body = random + AESGCM(raw(case, "key")).encrypt(random, plaintext, aad)
    else:
        payload = wrap_payload(header, context_of(case), plaintext, random)
        assert open_payload(header, context_of(case), payload) == plaintext
        body = aes_key_wrap(raw(case, "key"), payload)
    assert bytes(header) + body == raw(case, "ciphertext")


@pytest.fixture
def label(softhsm: SoftHsm, request: pytest.FixtureRequest) -> Iterator[str]:
    case = request.node.callspec.params["case"]
    name = f"vector {case['comment']}"
    softhsm.import_aes(name, case["cka_id"], raw(case, "key"), "ENCRYPT DECRYPT WRAP UNWRAP")
    yield name
    softhsm.destroy(name)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
async def test_a_vector_is_decrypted_by_a_token(case: dict[str, Any], label: str, provider: Pkcs11KMSProvider) -> None:
    reference = KeyReference("pkcs11", label, key_version=case["cka_id"])
    sealed = EncryptedData(raw(case, "ciphertext"), reference, case["algorithm"], NOW, context_of(case))
    assert await provider.decrypt(sealed) == raw(case, "plaintext")


@pytest.mark.parametrize("case", VECTORS[:4:3], ids=lambda case: case["comment"])
async def test_a_token_encrypts_to_the_bytes_of_a_vector(case: dict[str, Any], label: str, softhsm: SoftHsm) -> None:
    if case["algorithm"] == "CKM_AES_KEY_WRAP":
        softhsm.set_attributes(label, ENCRYPT=False, DECRYPT=False)
    random = raw(case, "random")
    provider = Pkcs11KMSProvider(softhsm.config(), random=lambda size: random[:size])
    sealed = await provider.encrypt(raw(case, "plaintext"), label, context=context_of(case))
    await provider.aclose()
    assert sealed.ciphertext == raw(case, "ciphertext")
    assert sealed.algorithm == case["algorithm"]


@pytest.mark.parametrize("case", cases("pkcs11-wrap-v1.json", "next_ids"), ids=lambda case: case["newest"])
def test_the_next_id_is_the_vectors(case: dict[str, Any]) -> None:
    assert next_key_id(raw(case, "newest"), raw(case, "random")).hex() == case["next"]
    assert id_order(raw(case, "next")) > id_order(raw(case, "newest"))


def test_ids_are_ordered_by_their_number_and_then_by_their_length() -> None:
    ids = [bytes.fromhex(each) for each in load("pkcs11-wrap-v1.json")["newest_last"]]
    assert all(id_order(one) < id_order(another) for one, another in pairwise(ids))


@pytest.mark.parametrize(
    "ciphertext",
    [
        "",
        "aa",
        "aa0101",
        "aa010101",
        "aa01010001" + "00" * 28,  # an id of no bytes
        "aa01030101" + "00" * 28,  # a mechanism that is reserved
        "aa02010101" + "00" * 28,
        "ab01010101" + "00" * 28,
        "aa01010101" + "00" * 27,
        "aa01020101" + "00" * 56,
        "aa01020101" + "00" * 63,
        "aa01020101" + "00" * 65,
    ],
)
def test_what_is_no_ciphertext_is_refused_without_a_token(ciphertext: str) -> None:
    with pytest.raises(DecryptionError):
        parse_ciphertext(bytes.fromhex(ciphertext))


def test_a_payload_is_a_multiple_of_eight_bytes_whatever_its_plaintext() -> None:
    for size in range(20):
        payload = wrap_payload(HEADER, {}, bytes(size), bytes(16))
        assert len(payload) % 8 == 0
        assert open_payload(HEADER, {}, payload) == bytes(size)


def test_a_payload_with_another_padding_is_refused() -> None:
    payload = wrap_payload(HEADER, {}, b"12345", bytes(16))
    for altered in (payload[:-1] + b"\x01", payload + bytes(8), payload[:-1], payload[:-8], payload[:40], b""):
        with pytest.raises(DecryptionError):
            open_payload(HEADER, {}, altered)


def test_a_payload_belongs_to_its_header_and_context() -> None:
    payload = wrap_payload(HEADER, {"a": "b"}, b"value", bytes(16))
    for header, context in (
        (HEADER, {"a": "c"}),
        (HEADER, None),
        (WrapHeader(WrapMechanism.AES_KEY_WRAP, b"\x02"), {"a": "b"}),
    ):
        with pytest.raises(DecryptionError):
            open_payload(header, context, payload)
