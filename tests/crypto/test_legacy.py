from __future__ import annotations

import json
from typing import Any

import pytest

from keystead.crypto import legacy
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KeyDecryptionFailError
from keystead.model import SecretBytes
from tests.crypto.vectors import load

VECTORS = load("legacy.json")
KEY = bytes.fromhex(VECTORS["data_key"])
PLAINTEXT = bytes.fromhex(VECTORS["plaintext"])
FIELD = VECTORS["field"]
VALUE = bytes.fromhex(FIELD["value"])
OLD_TEXT: str = VECTORS["old_text"]
WRAPPED = bytes.fromhex(VECTORS["wrapped_key"]["wrapped"])
ROOT = bytes.fromhex(VECTORS["wrapped_key"]["root_key"])


def test_the_vectors_are_the_ones_the_reference_gives() -> None:
    assert FIELD["value"] == ("000102030405060708090a0b3467b868ac91ab6de861f3eac5881c7138d8bc74a18d52e7412c2d525798")
    assert json.loads(FIELD["json"])["value"] == "AAECAwQFBgcICQoLNGe4aKyRq23oYfPqxYgccTjYvHShjVLnQSwtUleY"
    assert VECTORS["wrapped_key"]["wrapped"] == (
        "000102030405060708090a0b8aa1e46d120aeee33b32641e03da1063944260585dc0c1f32c5e215d"
        "bfbe22a9674e10bcab77e0e29149c1259a54babc"
    )


def test_a_text_field_is_read() -> None:
    field = legacy.parse_text(FIELD["text"])

    assert field == legacy.LegacyField(FIELD["version"], "AES-256-GCM", VALUE)
    assert legacy.decrypt_field(KEY, field) == PLAINTEXT


def test_a_text_field_of_the_other_table_layout_is_read() -> None:
    field = legacy.parse_text(FIELD["text_other_layout"])

    assert field.version == "7"
    assert legacy.decrypt_field(KEY, field) == PLAINTEXT


def test_a_json_field_is_read_as_text_or_parsed() -> None:
    field = legacy.parse_field(FIELD["json"])

    assert field == legacy.parse_text(FIELD["text"])
    assert legacy.parse_field(json.loads(FIELD["json"])) == field


def test_the_label_of_another_algorithm_is_ignored_as_the_reference_did() -> None:
    field = legacy.parse_text(FIELD["text"].replace("AES-256-GCM", "SM4-GCM"))

    assert field.algorithm == "SM4-GCM"
    assert legacy.decrypt_field(KEY, field) == PLAINTEXT


@pytest.mark.parametrize("version", ["v0", "v1700000000000000000", "v" + "9" * 19, "1", "42", "9" * 19])
def test_a_version_is_v_and_digits_or_an_integer(version: str) -> None:
    assert legacy.is_version(version)


@pytest.mark.parametrize("version", ["", "v", "V1", "v" + "9" * 20, "0", "01", "-1", "v1 ", "v1\n", "v\u0661", "1.0"])
def test_anything_else_is_no_version(version: str) -> None:
    assert not legacy.is_version(version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        FIELD["value"],
        f"v1:{FIELD['value']}",
        f"{FIELD['text']}:",
        f"x1:AES-256-GCM:{FIELD['value']}",
        f"v1::{FIELD['value']}",
        f"v1:AES 256:{FIELD['value']}",
        f"v1:{'A' * 51}:{FIELD['value']}",
        f"v1:AES-256-GCM:{FIELD['value'].upper()}",
        f"v1:AES-256-GCM:{FIELD['value'][:-1]}",
        f"v1:AES-256-GCM:{FIELD['value']}\n",
        "v1:AES-256-GCM:",
        f"v1:AES-256-GCM:{'00' * 27}",
    ],
)
def test_a_malformed_text_field_is_refused(text: str) -> None:
    with pytest.raises(InvalidCiphertextError):
        legacy.parse_text(text)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "[]",
        "5",
        "null",
        "{}",
        '{"value":"AAAA","version":"v1"}',
        {"value": 5, "version": "v1", "algorithm": "AES-256-GCM"},
        {"value": "AAAA", "version": 1, "algorithm": "AES-256-GCM"},
        {"value": "AAAA", "version": "v1", "algorithm": None},
        {"value": "AAAA", "version": "v1", "algorithm": "AES-256-GCM"},
        {"value": "not base64!", "version": "v1", "algorithm": "AES-256-GCM"},
        "[" * 200_000,
    ],
)
def test_a_malformed_json_field_is_refused(source: Any) -> None:
    with pytest.raises(InvalidCiphertextError):
        legacy.parse_field(source)


def test_a_value_truncated_at_any_length_is_refused() -> None:
    for length in range(len(VALUE)):
        with pytest.raises(DecryptionError):
            legacy.decrypt_value(KEY, VALUE[:length])


def test_every_flipped_bit_of_a_value_is_refused() -> None:
    for bit in range(len(VALUE) * 8):
        altered = bytearray(VALUE)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        with pytest.raises(DecryptionError):
            legacy.decrypt_value(KEY, bytes(altered))


@pytest.mark.parametrize("key", [bytes(32), b"", bytes(31)])
def test_another_key_is_refused(key: bytes) -> None:
    with pytest.raises(DecryptionError, match="wrong key or altered bytes"):
        legacy.decrypt_value(key, VALUE)


def test_an_old_text_is_read() -> None:
    assert legacy.decrypt_old_text(KEY, OLD_TEXT) == PLAINTEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01",
        "01.AAAA",
        OLD_TEXT + ".",
        "03" + OLD_TEXT[2:],
        OLD_TEXT.replace("01.A", "01.AAAA"),
        OLD_TEXT + "=",
        OLD_TEXT + "\u00e9",
        OLD_TEXT[:-1],
        "01.AAECAwQFBgcICQoL.AAAA",
        "01.AAAA." + OLD_TEXT.split(".")[2],
    ],
)
def test_a_malformed_old_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCiphertextError):
        legacy.decrypt_old_text(KEY, text)


def test_base64_with_spare_bits_set_is_refused() -> None:
    with pytest.raises(InvalidCiphertextError, match="base64"):
        legacy.decrypt_old_text(KEY, "01.AAECAwQFBgcICQoLDB==.AAAA")


def test_an_old_hash_is_told_from_a_ciphertext() -> None:
    with pytest.raises(InvalidCiphertextError, match="SM3 hash"):
        legacy.decrypt_old_text(KEY, "02.AAAA.AAAA")


def test_a_wrapped_key_is_unwrapped() -> None:
    key = legacy.unwrap_key(ROOT, WRAPPED)

    assert key == KEY
    assert isinstance(key, SecretBytes)


@pytest.mark.parametrize(
    ("root", "wrapped"), [(bytes(32), WRAPPED), (ROOT, WRAPPED[:-1] + b"\x00"), (ROOT, WRAPPED[:-1]), (ROOT, b"")]
)
def test_a_wrapped_key_that_does_not_open_is_told(root: bytes, wrapped: bytes) -> None:
    with pytest.raises(KeyDecryptionFailError):
        legacy.unwrap_key(root, wrapped)


@pytest.mark.parametrize("case", VECTORS["hashes"])
def test_the_unkeyed_hash_is_the_references(case: dict[str, str]) -> None:
    assert legacy.hash_field(bytes.fromhex(case["value"])) == case["hash"]


@pytest.mark.parametrize("kind", ["vault", "gcp", "local"])
def test_the_context_bytes_are_the_ones_fraiseql_sent(kind: str) -> None:
    fraiseql = VECTORS["fraiseql"]

    assert legacy.fraiseql_aad(kind, fraiseql["context"]).hex() == fraiseql["aad"][kind]


@pytest.mark.parametrize("kind", ["vault", "gcp", "local"])
def test_fraiseql_sent_nothing_for_an_empty_context(kind: str) -> None:
    assert legacy.fraiseql_aad(kind, {}) == b""


def test_the_local_form_depends_on_the_order_of_the_context() -> None:
    context = VECTORS["fraiseql"]["context"]

    assert legacy.fraiseql_aad("local", dict(reversed(context.items()))) != legacy.fraiseql_aad("local", context)


@pytest.mark.parametrize("kind", ["aws", "azure", ""])
def test_a_provider_without_context_bytes_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInputError, match="aws took the context as a map"):
        legacy.fraiseql_aad(kind, {"a": "b"})
