"""Keys that sign checkpoints, as the specification has them."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from keystead.errors import CouldNotVerifyError, InvalidSignatureError
from keystead.ledger.signers.format import statement
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.checkpoint_signers import name_for
from keystead.ledger.tlog.note import Note, NoteKey, verify_note
from keystead.ledger.tlog.note_kms import KmsNoteKey, MacNoteVerifier
from keystead.model import Signature
from tests.crypto.vectors import load

VECTORS = load("log-v1.json")
KEYS = VECTORS["note_keys"]

each_key = pytest.mark.parametrize("case", KEYS, ids=lambda case: case["comment"])


class MacOnly:
    """A KMS that checks MACs by a key that the vector tells."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        if not hmac.compare_digest(hmac.digest(self._key, message, "sha256"), mac.value):
            raise InvalidSignatureError("another MAC")


def verifier(case: dict[str, Any]) -> Any:
    key = NoteKey.parse(case["vkey"])
    if "mac_key" not in case:
        return key
    assert key.kms_key is not None
    return MacNoteVerifier(key.name, key.key_id, key.kms_key, MacOnly(bytes.fromhex(case["mac_key"])))  # type: ignore[arg-type]  # all that is asked of it


@each_key
def test_a_note_of_every_type_of_key_verifies(case: dict[str, Any]) -> None:
    note = Note.parse(case["note"].encode())
    assert note.text == case["text"]
    assert Checkpoint.parse(note.text).size == 3
    assert len(verify_note(note, [verifier(case)])) == 1


@each_key
def test_no_note_of_another_text_verifies(case: dict[str, Any]) -> None:
    note = Note.parse(case["note"].encode())
    other = Note(note.text.replace("\n3\n", "\n4\n"), note.signatures)
    with pytest.raises(InvalidSignatureError):
        verify_note(other, [verifier(case)])


@each_key
def test_a_key_is_rendered_as_it_was_read(case: dict[str, Any]) -> None:
    key = NoteKey.parse(case["vkey"])
    assert key.vkey == case["vkey"]
    if key.kms_key is not None:
        assert KmsNoteKey.parse(key.kms_key.render()) == key.kms_key


def test_a_mac_is_of_its_keys_version() -> None:
    case = KEYS[-2]
    key = NoteKey.parse(case["vkey"])
    assert key.kms_key is not None
    assert key.kms_key.reference is not None
    assert (key.kms_key.reference.qualified_id, key.kms_key.reference.key_version) == ("cloud:audit-mac", "2")
    with pytest.raises(CouldNotVerifyError):
        verify_note(Note.parse(case["note"].encode()), [key])


def test_the_vectors_hold_each_type() -> None:
    kinds = [NoteKey.parse(case["vkey"]).kind for case in KEYS]
    assert [int(kind) for kind in kinds] == [0x01, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
    assert statement(KEYS[4]["text"].encode()) != KEYS[4]["text"].encode()


@pytest.mark.parametrize("case", VECTORS["names"], ids=lambda case: case["stream"])
def test_a_streams_signing_key_is_called_after_it(case: dict[str, str]) -> None:
    assert name_for(case["stream"]) == case["name"]
