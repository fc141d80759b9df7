"""Encrypting under a version by its id."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from keystead.crypto.chosen_version import seal_under
from keystead.crypto.context import encode_context
from keystead.crypto.envelope import SUITE_STREAM, parse_header
from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot
from keystead.errors import DataKeyNotLoadedError, InvalidInputError, KeyExpiredError, KeyStateError, NoActiveKeyError
from keystead.model import DataKeyState
from tests.crypto.rings import loaded, ring

CONTEXT = encode_context({"tenant": "north"})


def two_versions(**options: Any) -> Keyring:
    made = ring(loaded(1, 1), loaded(2, 2), **options)
    made.load(replace(made.snapshot, withheld={3: DataKeyState.DISABLED}))
    return made


@pytest.mark.parametrize("key_id", [1, 2])
def test_a_message_is_an_envelope_under_the_version_that_was_named(key_id: int) -> None:
    keyring = two_versions()
    blobs = [seal_under(keyring, key_id, b"card", CONTEXT, random=os.urandom) for _ in range(2)]
    assert {parse_header(blob).key_id for blob in blobs} == {key_id}
    assert len({parse_header(blob).salt for blob in blobs}) == 2
    assert [keyring.local_decrypt(blob, context={"tenant": "north"}) for blob in blobs] == [b"card"] * 2
    assert {used: messages for used, (messages, _) in keyring.take_uses().items() if messages} == {key_id: 2}


def test_a_version_that_is_withheld_or_unknown_encrypts_nothing() -> None:
    with pytest.raises(KeyStateError, match="disabled"):
        seal_under(two_versions(), 3, b"card", CONTEXT, random=os.urandom)
    with pytest.raises(DataKeyNotLoadedError):
        seal_under(two_versions(), 4, b"card", CONTEXT, random=os.urandom)


def test_where_nothing_may_be_encrypted_no_version_does() -> None:
    closed = two_versions(gate=lambda ring, encrypting: KeyExpiredError("expired") if encrypting else None)
    with pytest.raises(KeyExpiredError):
        seal_under(closed, 1, b"card", CONTEXT, random=os.urandom)
    keyring = two_versions()
    keyring.load(KeyringSnapshot(keyring.snapshot.keys))
    with pytest.raises(NoActiveKeyError):
        seal_under(keyring, 1, b"card", CONTEXT, random=os.urandom)


def test_a_keyring_for_something_else_encrypts_no_messages() -> None:
    with pytest.raises(InvalidInputError, match="does not encrypt single messages"):
        seal_under(two_versions(suite=SUITE_STREAM), 1, b"card", CONTEXT, random=os.urandom)
