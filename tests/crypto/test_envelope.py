from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.context import encode_context
from keystead.crypto.envelope import (
    HEADER_SIZE,
    MAGIC,
    OVERHEAD,
    SUITE_AES_256_GCM,
    SUITE_CHACHA20_POLY1305,
    SUITE_STREAM,
    Header,
    derive_key,
    from_text,
    inspect,
    is_envelope,
    new_key_id,
    parse_header,
    to_text,
)
from keystead.errors import InvalidCiphertextError, InvalidInputError
from tests.crypto.vectors import cases, context_of

VALID = cases("envelope-v1.json")
BLOB = bytes.fromhex(VALID[2]["envelope"])
by_comment = pytest.mark.parametrize("case", VALID, ids=lambda case: case["comment"])


@by_comment
def test_the_header_is_the_vector_files(case: dict[str, Any]) -> None:
    blob = bytes.fromhex(case["envelope"])
    header = Header(case["suite"], int(case["data_key_id"]), bytes.fromhex(case["salt"]))

    assert is_envelope(blob)
    assert parse_header(blob) == header
    assert header.to_bytes() == blob[:HEADER_SIZE]


@by_comment
def test_the_cipher_key_is_the_vector_files(case: dict[str, Any]) -> None:
    header = bytes.fromhex(case["envelope"])[:HEADER_SIZE]

    assert derive_key(bytes.fromhex(case["data_key"]), header).hex() == case["cipher_key"]


@by_comment
def test_the_vector_opens_under_derived_key_and_context(case: dict[str, Any]) -> None:
    blob = bytes.fromhex(case["envelope"])
    header, nonce, sealed = blob[:26], blob[26:38], blob[38:]
    kind = ChaCha20Poly1305 if case["suite"] == SUITE_CHACHA20_POLY1305 else AESGCM
    cipher = kind(derive_key(bytes.fromhex(case["data_key"]), header))

    plaintext = cipher.decrypt(nonce, sealed, header + encode_context(context_of(case)))

    assert plaintext.hex() == case["plaintext"]


@by_comment
def test_the_text_form_is_the_vector_files(case: dict[str, Any]) -> None:
    blob = bytes.fromhex(case["envelope"])

    assert to_text(blob) == case["text"]
    assert from_text(case["text"]) == blob


@pytest.mark.parametrize("case", cases("envelope-v1.json", "invalid_headers"), ids=lambda case: case["comment"])
def test_a_malformed_header_is_refused(case: dict[str, Any]) -> None:
    blob = bytes.fromhex(case["envelope"])

    with pytest.raises(InvalidCiphertextError):
        parse_header(blob)
    assert not is_envelope(blob)


@pytest.mark.parametrize("case", cases("envelope-v1.json", "invalid_texts"), ids=lambda case: case["comment"])
def test_another_spelling_of_a_text_form_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidCiphertextError):
        from_text(case["text"])


def test_an_envelope_truncated_below_its_overhead_is_refused_at_every_length() -> None:
    for length in range(OVERHEAD):
        with pytest.raises(InvalidCiphertextError):
            parse_header(BLOB[:length])


def test_a_stream_is_told_by_its_header_alone() -> None:
    header = Header(SUITE_STREAM, 5, bytes(16)).to_bytes()

    assert parse_header(header).key_id == 5
    for length in range(HEADER_SIZE):
        with pytest.raises(InvalidCiphertextError):
            parse_header(header[:length])


def test_every_flipped_bit_of_a_header_is_refused_or_names_another_header() -> None:
    original = parse_header(BLOB)
    for bit in range(HEADER_SIZE * 8):
        altered = bytearray(BLOB)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        try:
            parsed = parse_header(bytes(altered))
        except InvalidCiphertextError:
            assert not is_envelope(bytes(altered))
        else:
            assert parsed != original
            assert parsed.to_bytes() == bytes(altered[:HEADER_SIZE])


def test_an_envelope_cannot_be_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        bytes((MAGIC,)).decode()


@pytest.mark.parametrize(
    ("suite", "key_id", "salt"),
    [(0x02, 1, bytes(16)), (0x01, 0, bytes(16)), (0x01, 2**63, bytes(16)), (0x01, -1, bytes(16)), (0x01, 1, bytes(15))],
)
def test_a_header_that_could_not_be_read_cannot_be_made(suite: int, key_id: int, salt: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Header(suite, key_id, salt)


@given(st.integers(1, 2**63 - 1), st.binary(min_size=16, max_size=16), st.sampled_from([0x01, 0x04, 0x05, 0x10]))
def test_a_header_comes_back_from_its_bytes(key_id: int, salt: bytes, suite: int) -> None:
    header = Header(suite, key_id, salt)

    assert parse_header(header.to_bytes() + bytes(28)) == header


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_read_or_refused(blob: bytes) -> None:
    assert is_envelope(blob) == (len(blob) >= HEADER_SIZE and _parses(blob))


def _parses(blob: bytes) -> bool:
    try:
        parse_header(blob)
    except InvalidCiphertextError:
        return False
    return True


@given(st.binary(max_size=100))
def test_the_text_form_comes_back(blob: bytes) -> None:
    text = to_text(blob)

    assert re.fullmatch(r"ks1\.[A-Za-z0-9_-]*", text)
    assert from_text(text) == blob


@given(st.text(max_size=20))
def test_only_the_one_text_form_of_some_bytes_is_read(body: str) -> None:
    text = "ks1." + body
    try:
        blob = from_text(text)
    except InvalidCiphertextError:
        return
    assert to_text(blob) == text


def test_a_text_form_that_is_bytes_is_refused() -> None:
    text: Any = b"ks1.AA"

    with pytest.raises(InvalidInputError, match="is str, not bytes"):
        from_text(text)


def test_another_salt_gives_another_key() -> None:
    key, id_bytes = os.urandom(32), 5

    first = derive_key(key, Header(SUITE_AES_256_GCM, id_bytes, bytes(16)).to_bytes())
    second = derive_key(key, Header(SUITE_AES_256_GCM, id_bytes, bytes(15) + b"\x01").to_bytes())

    assert first != second


def test_another_suite_gives_another_key() -> None:
    key = os.urandom(32)

    first = derive_key(key, Header(SUITE_AES_256_GCM, 5, bytes(16)).to_bytes())
    second = derive_key(key, Header(SUITE_STREAM, 5, bytes(16)).to_bytes())

    assert first != second


def test_a_data_key_in_a_wipeable_buffer_derives_the_same_key() -> None:
    key = os.urandom(32)

    assert derive_key(bytearray(key), BLOB[:26]) == derive_key(key, BLOB[:26])


@pytest.mark.parametrize(("key_size", "header_size"), [(31, 26), (0, 26), (32, 25), (32, 27)])
def test_deriving_from_sizes_of_another_format_is_refused(key_size: int, header_size: int) -> None:
    with pytest.raises(InvalidInputError):
        derive_key(bytes(key_size), (BLOB + bytes(9))[:header_size])


def test_a_reserved_suite_derives_no_key() -> None:
    with pytest.raises(InvalidCiphertextError):
        derive_key(bytes(32), b"\xae\x02" + BLOB[2:26])


@pytest.mark.parametrize("form", [BLOB, to_text(BLOB)])
def test_an_envelope_is_inspected_without_a_key(form: bytes | str) -> None:
    seen = inspect(form)

    assert (seen.suite, seen.suite_name) == (SUITE_AES_256_GCM, "AES-256-GCM")
    assert seen.data_key_id == int(VALID[2]["data_key_id"])
    assert seen.salt.hex() == VALID[2]["salt"]
    assert (seen.size, seen.plaintext_size) == (len(BLOB), len("sensitive data"))


def test_the_size_of_a_streams_plaintext_is_not_guessed() -> None:
    seen = inspect(Header(SUITE_STREAM, 5, bytes(16)).to_bytes() + bytes(100))

    assert (seen.suite_name, seen.size, seen.plaintext_size) == ("AES-256-GCM stream", 126, None)


def test_what_is_no_envelope_cannot_be_inspected() -> None:
    with pytest.raises(InvalidCiphertextError):
        inspect(b"{}")


def _sequence(*parts: bytes) -> Iterator[bytes]:
    yield from parts


def test_a_new_key_id_has_63_bits_and_is_never_zero() -> None:
    drawn = _sequence(bytes(8), b"\x00" * 7 + b"\x01", b"\xff" * 8)

    assert new_key_id(lambda size: next(drawn)) == 2**63 - 1


def test_new_key_ids_differ() -> None:
    assert len({new_key_id(os.urandom) for _ in range(100)}) == 100
