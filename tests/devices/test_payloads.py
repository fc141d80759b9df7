from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.devices.payloads import Operation, read_bound_secret, read_secret
from keystead.errors import DecryptionError
from tests.crypto.vectors import load

FILE = load("client-keys-v1.json")["payloads"]
NOW = datetime.fromtimestamp(FILE["now_ms"] / 1000, UTC)


def read(payload: str) -> str:
    return read_bound_secret(
        payload.encode("utf-8", "surrogatepass"), Operation(FILE["operation"]), FILE["key_id"], NOW
    )


@pytest.mark.parametrize("case", FILE["valid"], ids=lambda case: case["comment"])
def test_a_payload_gives_its_secret(case: dict[str, str]) -> None:
    assert read(case["payload"]) == FILE["secret"]


@pytest.mark.parametrize("case", FILE["invalid"], ids=lambda case: case["comment"])
def test_one_for_something_else_is_as_good_as_none(case: dict[str, str]) -> None:
    with pytest.raises(DecryptionError, match=r"^Failed to decrypt data$"):
        read(case["payload"])


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"\xff", b"\xef\xbb\xbf{}", b'{"v":' + b"9" * 5000 + b"}"])
def test_what_a_parser_fails_at_is_no_payload(payload: bytes) -> None:
    with pytest.raises(DecryptionError):
        read_bound_secret(payload, Operation.SET_PIN, "key_1", NOW)


@given(st.binary(max_size=80))
def test_no_bytes_are_more_than_a_failure(payload: bytes) -> None:
    with pytest.raises(DecryptionError):
        read_bound_secret(payload, Operation.SET_PIN, "key_1", NOW)


def test_a_payload_of_version_1_is_the_secret() -> None:
    assert read_secret(b"123456") == "123456"
    assert read_secret("cafe\u0301 \U0001f511".encode()) == "caf\u00e9 \U0001f511"
    assert read_secret(b'{"v":2}') == '{"v":2}'
    for payload in (b"\xff", b"\xed\xa0\x80"):
        with pytest.raises(DecryptionError):
            read_secret(payload)
