"""Whatever is done to an envelope, the answer is one error."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from keystead.crypto.envelope import from_text, to_text
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, DecryptionError, InvalidCiphertextError, KMSError
from tests.crypto.rings import loaded, ring

ALLOWED = (DecryptionError, InvalidCiphertextError, DataKeyNotLoadedError)


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    """A keyring of three versions."""
    return ring(*(loaded(version, random.getrandbits(62) + 1) for version in (1, 2, 3)))


@pytest.fixture(scope="module")
def envelopes(keyring: Keyring) -> list[bytes]:
    """64 envelopes of all short lengths, half of them under a salt of another process."""
    other = Keyring("default")
    other.load(keyring.snapshot)
    return [(keyring if size % 2 else other).local_encrypt(bytes([size]) * size) for size in range(64)]


def flips(blob: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(blob)):
        altered = bytearray(blob)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        yield bytes(altered)


def refusal(keyring: Keyring, blob: bytes | str) -> type[KMSError]:
    with pytest.raises(DecryptionError) as refused:
        keyring.local_decrypt(blob)
    assert refused.type in ALLOWED
    return refused.type


def test_every_flipped_bit_is_refused(keyring: Keyring, envelopes: list[bytes]) -> None:
    for blob in envelopes:
        for bit, altered in enumerate(flips(blob)):
            expected = DataKeyNotLoadedError if 17 <= bit < 80 else (DecryptionError, InvalidCiphertextError)
            assert issubclass(refusal(keyring, altered), expected), bit


def test_every_truncation_is_refused(keyring: Keyring, envelopes: list[bytes]) -> None:
    for blob in envelopes:
        for length in range(len(blob)):
            refusal(keyring, blob[:length])


def test_every_addition_is_refused(keyring: Keyring, envelopes: list[bytes]) -> None:
    for blob in envelopes:
        refusal(keyring, blob + b"\0")
        refusal(keyring, b"\0" + blob)


def test_every_character_of_the_text_form_counts(keyring: Keyring, envelopes: list[bytes]) -> None:
    draw = random.Random(7)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for blob in envelopes:
        text = to_text(blob)
        assert keyring.local_decrypt(text) == keyring.local_decrypt(blob)
        for at in range(len(text)):
            other = draw.choice(alphabet.replace(text[at], ""))
            refusal(keyring, text[:at] + other + text[at + 1 :])
            refusal(keyring, text[:at])
        for odd in (text + "=", text + " ", " " + text, text + "A", text.replace("ks1.", "ks2."), text + "\n"):
            refusal(keyring, odd)
        assert from_text(text) == blob


def test_parts_of_two_envelopes_do_not_fit_together(keyring: Keyring, envelopes: list[bytes]) -> None:
    one, two = envelopes[20], envelopes[21]
    for at in (11, 26, 30, 38, 50):
        refusal(keyring, one[:at] + two[at:])
