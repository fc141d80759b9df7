"""Values that were altered, cut, or never were any: nothing but an error of ours, and where a MAC is, nothing else."""

from __future__ import annotations

import base64
import contextlib
import tracemalloc
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from aws_encryption_sdk import EncryptionSDKClient
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesEngine, AesGcmEngine, FernetEngine

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.fields import Importer, importer
from keystead.fields.importing.reading import MOST_BYTES
from tests.crypto.vectors import load
from tests.fields.importing.test_aws_encryption_sdk import RAW, raw_key

UNTIL = date(2099, 12, 31)
TEXT = "a value of more than one block, née Byron ✓"
FERNET_KEY = base64.urlsafe_b64encode(bytes(range(32)))
LEGACY = load("legacy.json")["fraiseql"]


def of_column(engine: Any, name: str, padding: str | None = None) -> tuple[Importer, bytes]:
    """Return an importer of a column of sqlalchemy-utils, and a value of it."""
    stored = StringEncryptedType(sa.Unicode, "key", engine, padding).process_bind_param(TEXT, dialect())
    more: dict[str, Any] = {"padding": padding} if padding else {}
    return importer("sqlalchemy-utils", keys="key", engine=name, until=UNTIL, **more), stored.encode()


AUTHENTICATED: dict[str, tuple[Importer, bytes]] = {
    "fernet": (importer("fernet", keys=FERNET_KEY, until=UNTIL), Fernet(FERNET_KEY).encrypt(TEXT.encode())),
    "sqlalchemy-utils aes-gcm": of_column(AesGcmEngine, "aes-gcm"),
    "sqlalchemy-utils fernet": of_column(FernetEngine, "fernet"),
    "django-cryptography": (
        importer("django-cryptography", keys="secret", until=UNTIL),
        next(
            bytes.fromhex(case["stored_hex"]) for case in load("imported-forms.json")["tests"] if "stored_hex" in case
        ),
    ),
    "aws-encryption-sdk": (
        importer("aws-encryption-sdk", **RAW),
        EncryptionSDKClient().encrypt(source=TEXT.encode(), key_provider=raw_key())[0],
    ),
}
BARE = {f"aes {name}": of_column(AesEngine, "aes", name) for name in ("naive", "pkcs5", "oneandzeroes", "zeroes")}


def altered(value: bytes, at: int, bit: int) -> bytes:
    """Return a value with one bit flipped."""
    place = at % len(value)
    return value[:place] + bytes([value[place] ^ (1 << bit)]) + value[place + 1 :]


@pytest.mark.parametrize("name", AUTHENTICATED)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_one_flipped_bit_is_refused_where_there_is_a_mac(name: str, at: int, bit: int) -> None:
    reading, value = AUTHENTICATED[name]
    with pytest.raises(DecryptionError):
        reading.read(altered(value, at, bit))


@pytest.mark.parametrize("name", AUTHENTICATED)
@given(cut=st.integers(0, 10_000), more=st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_value_that_was_cut_or_made_longer_is_refused_where_there_is_a_mac(name: str, cut: int, more: bytes) -> None:
    reading, value = AUTHENTICATED[name]
    other = value[: cut % len(value)] + more
    if other != value:
        with pytest.raises(DecryptionError):
            reading.read(other)


@pytest.mark.parametrize("name", BARE)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_without_a_mac_a_flipped_bit_gives_an_error_of_ours_or_another_text(name: str, at: int, bit: int) -> None:
    reading, value = BARE[name]
    with contextlib.suppress(DecryptionError):
        assert reading.read(altered(value, at, bit)) != TEXT


@pytest.mark.parametrize("name", [*AUTHENTICATED, *BARE])
@given(value=st.binary(max_size=300) | st.text(max_size=200) | st.binary(max_size=120).map(base64.b64encode))
@settings(max_examples=150, deadline=None)
def test_whatever_stands_there_is_a_text_or_an_error_of_ours(name: str, value: Any) -> None:
    reading, _ = (AUTHENTICATED | BARE)[name]
    with contextlib.suppress(DecryptionError, InvalidInputError):
        assert isinstance(reading.read(value), str)
        assert name in BARE


@given(
    record=st.dictionaries(
        st.sampled_from(["ciphertext", "key_id", "algorithm", "context", "encrypted_at", "key_reference", "version"]),
        st.none() | st.text(max_size=60) | st.integers() | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_record_of_fraiseql_is_an_error_of_ours(record: dict[str, Any]) -> None:
    reading = importer("fraiseql", keys=bytes.fromhex(LEGACY["local"]["key"]), until=UNTIL)
    base = {**LEGACY["records"][1]["dict"], **record}
    with contextlib.suppress(DecryptionError, InvalidInputError):
        reading.read(base)


@pytest.mark.parametrize("name", [*AUTHENTICATED, *BARE])
def test_a_value_of_absurd_size_allocates_nothing(name: str) -> None:
    reading, _ = (AUTHENTICATED | BARE)[name]
    for value in (b"A" * (MOST_BYTES + 1), "A" * (MOST_BYTES + 1), memoryview(bytes(MOST_BYTES + 4)).cast("I")):
        tracemalloc.start()
        with pytest.raises(InvalidCiphertextError, match="at most"):
            reading.read(value)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1 << 16
