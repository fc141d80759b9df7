from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.devices.ciphertexts import decode_ciphertext
from keystead.errors import DecryptionError
from tests.crypto.vectors import load

TEXTS = load("client-keys-v1.json")["texts"]


@pytest.mark.parametrize("case", TEXTS["valid"], ids=lambda case: case["comment"])
def test_both_alphabets_padding_and_white_space_are_taken(case: dict[str, str]) -> None:
    assert decode_ciphertext(case["text"]).hex() == TEXTS["decoded"]


@pytest.mark.parametrize("case", TEXTS["invalid"], ids=lambda case: case["comment"])
def test_everything_else_fails_as_any_ciphertext_does(case: dict[str, str]) -> None:
    with pytest.raises(DecryptionError, match=r"^Failed to decrypt data$"):
        decode_ciphertext(case["text"])


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_whatever_a_client_encodes_is_what_was_meant(raw: bytes, is_url_safe: bool, is_padded: bool) -> None:
    text = (base64.urlsafe_b64encode if is_url_safe else base64.b64encode)(raw).decode()
    assert decode_ciphertext(text if is_padded else text.rstrip("=")) == raw


@given(st.text(alphabet="AZaz09+/-_= \n", max_size=12))
def test_no_two_texts_without_white_space_and_padding_are_one_ciphertext(text: str) -> None:
    try:
        raw = decode_ciphertext(text)
    except DecryptionError:
        return
    bare = text.replace(" ", "").replace("\n", "").rstrip("=")
    assert bare in {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}


@pytest.mark.parametrize("limit", [1, 256, 2048])
def test_the_limit_is_on_decoded_bytes(limit: int) -> None:
    most = base64.b64encode(bytes(limit)).decode()
    assert len(decode_ciphertext(most, limit)) == limit
    assert len(decode_ciphertext("\n".join(most), limit)) == limit
    for text in (base64.b64encode(bytes(limit + 1)).decode(), most + "A" * 4, most + " " * 3 * len(most), "A" * 10**6):
        with pytest.raises(DecryptionError, match=r"^Encrypted data size exceeds limit$"):
            decode_ciphertext(text, limit)
