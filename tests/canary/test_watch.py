"""The watch finds what it is there to find: a canary that cannot sing proves nothing."""

from __future__ import annotations

import base64
import logging
import os

import pytest

from keystead.crypto.snapshot import LoadedKey
from keystead.model import SecretBytes
from tests.canary.watch import SecretWatch, learning, listening

KEY = os.urandom(32)


@pytest.fixture
def watch() -> SecretWatch:
    """A watch that knows one key."""
    made = SecretWatch()
    made.learn(KEY)
    return made


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        f"key={KEY.hex().upper()}, and more",
        base64.b64encode(KEY).decode(),
        base64.urlsafe_b64encode(KEY).decode().rstrip("="),
        f"<Key {KEY!r}>",
        f"{bytearray(b'before' + KEY)!r}",
    ],
    ids=["hex", "capitals", "base64", "base64url", "repr", "bytearray"],
)
def test_a_key_is_found_in_every_form(watch: SecretWatch, text: str) -> None:
    assert watch.find(text)


def test_a_key_is_found_in_a_file(watch: SecretWatch) -> None:
    assert watch.find_in_bytes(b"header" + KEY + b"trailer") == ["raw"]


def test_another_key_is_not_found(watch: SecretWatch) -> None:
    other = os.urandom(32)
    assert watch.find(f"{other.hex()} {other!r} {base64.b64encode(other).decode()}") == []
    assert watch.find_in_bytes(other * 8) == []


def test_what_a_log_record_says_is_searched_with_its_fields_and_its_traceback(watch: SecretWatch) -> None:
    log = logging.getLogger("canary.of.the.tests")
    with listening(watch, (log.name, logging.DEBUG)):
        log.debug("a key: %s", KEY.hex())
        log.debug("a field", extra={"key": KEY})
        try:
            raise ValueError(base64.b64encode(KEY).decode())
        except ValueError:
            log.debug("a traceback", exc_info=True)
    assert len(watch.hits()) == 3


def test_keys_are_learned_where_they_are_made() -> None:
    watch = SecretWatch()
    first, second = os.urandom(32), os.urandom(32)
    with learning(watch):
        SecretBytes(first)
        LoadedKey(1, 1, bytearray(second))
    assert watch.find(first.hex()) == ["hex"]
    assert watch.find(second.hex()) == ["hex"]
    assert SecretBytes(b"after").hex() == b"after".hex()
