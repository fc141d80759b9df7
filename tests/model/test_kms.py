from __future__ import annotations

import json
import pickle
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.model import DataKeyPair, EncryptedData, KeyPurpose, KeyReference, SecretBytes, Signature
from keystead.model.algorithms import SignatureAlgorithm
from keystead.model.kms import KeyDescription, under
from keystead.model.signing import PublicKey

NOW = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
DATA = EncryptedData(
    b"\x00\x01sealed",
    KeyReference("cloud", "arn:aws:kms:eu:1:key/2", "alias/billing", created_at=NOW, key_version="3"),
    "SYMMETRIC_DEFAULT",
    NOW,
    {"b": "2", "a": "1", "é": "ö"},
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(minutes=90))]))
REFERENCES = st.builds(
    KeyReference,
    provider=TEXT,
    key_id=TEXT,
    key_alias=st.none() | TEXT.filter(bool),
    purpose=st.sampled_from(KeyPurpose),
    created_at=st.none() | TIMES,
    key_version=st.none() | TEXT.filter(bool),
)


@given(st.binary(max_size=60), REFERENCES, TEXT, TIMES, st.dictionaries(TEXT, TEXT, max_size=4))
def test_every_value_is_read_back_from_each_form(
    ciphertext: bytes, reference: KeyReference, algorithm: str, at: datetime, context: dict[str, str]
) -> None:
    data = EncryptedData(ciphertext, reference, algorithm, at, context)
    assert EncryptedData.parse(data.to_bytes()) == data
    assert EncryptedData.parse(str(data)) == data
    assert EncryptedData.parse(json.loads(json.dumps(data.to_dict()))) == data
    assert pickle.loads(pickle.dumps(data)) == data
    assert hash(EncryptedData.parse(str(data))) == hash(data)


def fields_of(blob: bytes) -> list[bytes]:
    fields, at = [], 2
    while at < len(blob):
        (length,) = struct.unpack_from(">I", blob, at)
        fields.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def spelled(fields: list[bytes]) -> bytes:
    return b"\xaf\x01" + b"".join(struct.pack(">I", len(one)) + one for one in fields)


def with_field(number: int, value: bytes) -> bytes:
    fields = fields_of(DATA.to_bytes())
    fields[number] = value
    return spelled(fields)


PLAIN = fields_of(DATA.to_bytes())
OTHER_SPELLINGS = {
    "pairs out of order": spelled(PLAIN[:9] + PLAIN[11:13] + PLAIN[9:11] + PLAIN[13:]),
    "a pair twice": spelled(PLAIN[:11] + PLAIN[9:]),
    "a time without offset": with_field(8, b"2030-01-02T03:04:05.000678"),
    "a time with Z": with_field(8, b"2030-01-02T03:04:05.000678Z"),
    "a time without separators": with_field(8, b"20300102T030405.000678+00:00"),
    "another time without offset": with_field(6, b"2030-01-02T03:04:05"),
    "no time": with_field(8, b""),
    "an unknown purpose": with_field(3, b"sing"),
    "bytes that are no text": with_field(2, b"\xff"),
    "a surrogate": with_field(2, b"\xed\xa0\x80"),
}


@pytest.mark.parametrize("blob", OTHER_SPELLINGS.values(), ids=OTHER_SPELLINGS)
def test_nothing_has_two_spellings(blob: bytes) -> None:
    with pytest.raises(InvalidCiphertextError):
        EncryptedData.from_bytes(blob)


def test_whatever_bytes_are_read_are_the_ones_that_would_be_written() -> None:
    blob = DATA.to_bytes()
    for bit in range(8 * len(blob)):
        altered = bytearray(blob)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        try:
            parsed = EncryptedData.from_bytes(bytes(altered))
        except InvalidCiphertextError:
            continue
        assert parsed.to_bytes() == altered


@pytest.mark.parametrize(
    "cut", [b"", b"\xaf", b"\xaf\x02", b"\xaf\x01\0\0\0", b"\xaf\x01\0\0\0\x09x", spelled(PLAIN[:8])]
)
def test_what_is_cut_short_is_refused(cut: bytes) -> None:
    with pytest.raises(InvalidCiphertextError):
        EncryptedData.from_bytes(cut)


def test_a_time_without_a_zone_is_refused_where_it_would_be_written() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(InvalidInputError, match="encrypted_at"):
        replace(DATA, encrypted_at=naive)
    with pytest.raises(InvalidInputError, match="created_at"):
        KeyReference("cloud", "key", created_at=naive)


def test_a_dict_without_an_offset_is_read_as_utc() -> None:
    plain = DATA.to_dict() | {"encrypted_at": "2030-01-02T03:04:05.000678"}
    assert EncryptedData.from_dict(plain) == DATA


@pytest.mark.parametrize(
    "odd",
    [
        replace(DATA, algorithm="\ud800"),
        replace(DATA, key_reference=KeyReference("\ud800", "key")),
        replace(DATA, context={"\ud800": "x"}),
        replace(DATA, context={"x": "\ud800"}),
    ],
)
def test_a_lone_surrogate_cannot_be_written(odd: EncryptedData) -> None:
    for write in (odd.to_bytes, lambda: str(odd)):
        with pytest.raises(InvalidInputError, match="surrogate"):
            write()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"ciphertext": "zz"},
        {"ciphertext": b"x"},
        {"algorithm": None},
        {"encrypted_at": 7},
        {"encrypted_at": "yesterday"},
        {"context": {"a": 1}},
        {"context": ["a"]},
        {"key_reference": {"provider": "cloud"}},
        {"key_reference": {"provider": "cloud", "key_id": "k", "key_version": 3}},
        {"key_reference": {"provider": "cloud", "key_id": "k", "key_alias": 3}},
        {"key_reference": None},
    ],
)
def test_a_malformed_dict_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidCiphertextError):
        EncryptedData.from_dict(DATA.to_dict() | changes)


def test_the_flat_form_is_split_at_its_first_colon_only() -> None:
    flat = DATA.to_dict() | {"key_id": DATA.key_reference.qualified_id}
    del flat["key_reference"]
    assert EncryptedData.from_dict(flat).key_reference.key_id == DATA.key_reference.key_id
    with pytest.raises(InvalidCiphertextError, match="provider:key_id"):
        EncryptedData.from_dict(flat | {"key_id": "billing"})


@pytest.mark.parametrize("text", ["ks2.", "ks2.rw", "ks2.r*==", str(DATA) + "=", str(DATA)[:-1] + "\n"])
def test_a_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCiphertextError):
        EncryptedData.parse(text)


@pytest.mark.parametrize("value", [None, 7, "ks1.AAAA", "plain"])
def test_what_is_none_of_the_forms_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        EncryptedData.parse(value)


def test_a_text_with_spare_bits_is_refused() -> None:
    text = str(replace(DATA, ciphertext=b"\x00\x01sealed1"))
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if last != text[-1] and len(text) % 4:
            with pytest.raises(InvalidCiphertextError):
                EncryptedData.parse(text[:-1] + last)


def test_its_context_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DATA.context["a"] = "2"  # type: ignore[index]
    assert EncryptedData.parse(DATA) is DATA


def test_a_data_key_pair_opens_what_it_sealed_and_nothing_else() -> None:
    pair = DataKeyPair(SecretBytes(bytes(range(32))), DATA, DATA.key_reference)
    sealed = pair.encrypt(b"pluto")
    assert (pair.decrypt(sealed), len(sealed)) == (b"pluto", 12 + 5 + 16)
    for odd in (sealed[:-1], b"", sealed[:12], bytes(40)):
        with pytest.raises(DecryptionError):
            pair.decrypt(odd)
    with pytest.raises(InvalidInputError):
        pair.encrypt("text")  # type: ignore[arg-type]
    assert "\\x01" not in repr(pair).replace(repr(DATA.ciphertext), "")


@pytest.mark.parametrize(
    "answer",
    [
        DATA,
        Signature(b"value", DATA.key_reference, SignatureAlgorithm.ED25519),
        PublicKey(b"der", DATA.key_reference, (SignatureAlgorithm.ED25519,)),
        KeyDescription(DATA.key_reference, created_at=NOW, current_version="3"),
        DataKeyPair(SecretBytes(bytes(32)), DATA, DATA.key_reference),
    ],
)
def test_an_answer_under_another_name_differs_in_nothing_else(answer: EncryptedData) -> None:
    before = replace(answer)
    assert under(answer, "other") == replace(answer, key_reference=replace(answer.key_reference, provider="other"))
    assert answer == before
