"""Signed notes and their keys, against what others publish."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature, parse_signatures, verify_note
from tests.ledger.vectors import read

NOTES = read("c2sp/notes.json")
VKEYS = read("transparency-dev-formats/vkeys.json")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = NoteKey.of("log.example.org/one", NoteKeyType.ED25519, PRIVATE.public_key().public_bytes_raw())
TEXT = "first\n\nsecond\n"


def signed(text: str = TEXT, *extra: NoteSignature) -> Note:
    own = NoteSignature(KEY.name, KEY.key_id, PRIVATE.sign(text.encode()))
    return Note(text, (own, *extra))


def parses(case: dict[str, Any]) -> bool:
    try:
        if case["func"] == "TestCoSigV1NewVerifier":
            WitnessKey.parse(case["vkey"])
        else:
            NoteKey.parse(case["vkey"])
    except InvalidInputError:
        return False
    return True


REFUSED_HERE = {
    # The published hash of this key is not the one the specification gives it.
    "works: native algMLDSA44 verifier",
    # A key for plain signatures is not taken for a witness's: it would sign the same bytes as something else.
    "works: convert from algEd25519",
    # RFC 6962 tree heads are signatures of other bytes than a note's.
    "Static CT works",
}


@pytest.mark.parametrize("case", VKEYS, ids=lambda case: f"{case['func']}-{case['desc']}")
def test_verifier_keys_as_published(case: dict[str, Any]) -> None:
    assert parses(case) is (not case["wantErr"] and case["desc"] not in REFUSED_HERE)


def test_the_example_of_the_specification_verifies() -> None:
    example = NOTES["signedNote"]
    note = Note.parse(example["note"].encode())
    assert verify_note(note, [NoteKey.parse(example["verifierKey"])])
    assert note.render() == example["note"].encode()


def test_a_key_is_its_text_form() -> None:
    assert NoteKey.parse(KEY.vkey) == KEY


def test_a_note_is_its_bytes() -> None:
    note = signed()
    assert Note.parse(note.render()) == note


def test_a_note_signed_by_a_known_key_is_good() -> None:
    assert verify_note(signed(), [KEY]) == [KEY]


def test_signatures_of_others_are_ignored() -> None:
    stranger = NoteSignature("other.example.org", b"\x00\x01\x02\x03", b"anything")
    assert verify_note(signed(TEXT, stranger), [KEY]) == [KEY]


def test_a_note_without_a_trusted_signature_is_refused() -> None:
    other = NoteKey.of("log.example.org/two", NoteKeyType.ED25519, KEY.material)
    with pytest.raises(InvalidSignatureError):
        verify_note(signed(), [other])


def test_one_wrong_signature_of_a_known_key_condemns_the_note() -> None:
    wrong = NoteSignature(KEY.name, KEY.key_id, bytes(64))
    with pytest.raises(InvalidSignatureError):
        verify_note(signed(TEXT, wrong), [KEY])


def test_the_text_is_what_is_signed() -> None:
    note = signed()
    with pytest.raises(InvalidSignatureError):
        verify_note(Note(TEXT + "third\n", note.signatures), [KEY])


def test_ecdsa_keys_sign_notes() -> None:
    private_key = generate_private_key(SECP256R1())
    der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = NoteKey.of("log.example.org/ec", NoteKeyType.ECDSA, der)
    value = private_key.sign(TEXT.encode(), ECDSA(SHA256()))
    note = Note(TEXT, (NoteSignature(key.name, key.key_id, value),))
    assert verify_note(note, [NoteKey.parse(key.vkey)]) == [key]


def test_no_flipped_bit_makes_another_note() -> None:
    note = signed()
    content = note.render()
    for position in range(len(content)):
        for bit in range(8):
            altered = bytearray(content)
            altered[position] ^= 1 << bit
            try:
                found = Note.parse(bytes(altered))
                verify_note(found, [KEY])
            except InvalidSignatureError:
                continue
            assert found == note


def test_every_truncation_is_refused() -> None:
    content = signed().render()
    for length in range(len(content)):
        with pytest.raises(InvalidSignatureError):
            verify_note(Note.parse(content[:length]), [KEY])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno dash\n",
        "text\n\n\u2014 name\n".encode(),
        "text\n\n\u2014 name AAAA\n".encode(),
        "text\n\n\u2014 na+me AAAAAAAA\n".encode(),
        "text\n\n\u2014 name AAAAAAAA \n".encode(),
        "te\x01xt\n\n\u2014 name AAAAAAAA\n".encode(),
        "text\n\n\u2014 name AAAAAAAA".encode(),
        b"\xff\n\n\xe2\x80\x94 name AAAAAAAA\n",
        ("text\n\n" + "\u2014 name AAAAAAAA\n" * 65).encode(),
        b"x" * ((1 << 20) + 1),
    ],
    ids=range(13),
)
def test_malformed_notes_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        Note.parse(content)


@pytest.mark.parametrize("lines", ["", "\n", "\u2014 name AAAAAAAA", "name AAAAAAAA\n"])
def test_malformed_lines_of_a_witness_are_refused(lines: str) -> None:
    with pytest.raises(InvalidSignatureError):
        parse_signatures(lines)


@pytest.mark.parametrize("name", ["", "with space", "with+plus", "line\nend"])
def test_a_name_that_no_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        NoteKey.of(name, NoteKeyType.ED25519, KEY.material)


@pytest.mark.parametrize("kind", list(NoteKeyType))
def test_what_is_no_public_key_is_refused(kind: NoteKeyType) -> None:
    with pytest.raises(InvalidInputError):
        NoteKey.of("name", kind, b"short")
