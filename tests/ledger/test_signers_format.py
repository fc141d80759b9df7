"""What is signed, and the bytes that come of it, as the vectors have them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.crypto.merkle import root_of
from keystead.crypto.signatures import verify_signature
from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.ledger.signers.cache import HeldKey
from keystead.ledger.signers.format import (
    SessionSignature,
    TreeItem,
    derive_key,
    levels_of,
    parse_vault_text,
    session_head,
    statement,
    tree_statement,
    vault_text,
    wrapped_bytes,
)
from keystead.ledger.signers.material import MaterialKey
from keystead.ledger.signers.session import SessionKey
from keystead.model import EncryptedData, KeyReference, PublicKey, SignatureAlgorithm
from tests.crypto.vectors import cases, load

FILE = "signatures-v1.json"
RESERVED = b"keystead "


@pytest.mark.parametrize("case", cases(FILE, "statements"), ids=lambda case: case["comment"])
def test_a_vector_message_has_its_statement(case: dict[str, Any]) -> None:
    assert statement(bytes.fromhex(case["message"])).hex() == case["statement"]


@settings(deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=16).map(lambda tail: RESERVED + tail), st.binary(max_size=64))
def test_no_two_messages_have_one_statement(first: bytes, second: bytes) -> None:
    assert (statement(first) == statement(second)) is (first == second)


@settings(deadline=None)
@given(st.binary(max_size=5000))
def test_a_statement_is_as_long_as_every_kms_takes(message: bytes) -> None:
    assert 1 <= len(statement(message)) <= 4096


def test_what_was_signed_as_a_message_is_no_statement_of_another_message_or_a_tree() -> None:
    for message in (statement(bytes(5000)), tree_statement(2, bytes(32))):
        assert statement(message) not in (message, tree_statement(2, bytes(32)))


def test_text_is_not_signed() -> None:
    with pytest.raises(InvalidInputError, match="encode"):
        statement("text")  # type: ignore[arg-type]


@pytest.mark.parametrize("case", cases(FILE, "material"), ids=lambda case: case["comment"])
@pytest.mark.parametrize("algorithm", [SignatureAlgorithm.HMAC_SHA_256, SignatureAlgorithm.ED25519])
def test_a_vector_key_signs_as_it_should(case: dict[str, Any], algorithm: SignatureAlgorithm) -> None:
    key = MaterialKey(bytes.fromhex(case["key"]), "0" * 16, algorithm)
    message = bytes.fromhex(case["message"])
    expected = case["ed25519" if algorithm is SignatureAlgorithm.ED25519 else "hmac_sha256"]
    assert key.sign(message).hex() == expected
    assert key.has_signed(message, bytes.fromhex(expected))
    assert not key.has_signed(message + b"x", bytes.fromhex(expected))


@pytest.mark.parametrize("case", cases(FILE, "derived"), ids=lambda case: f"{case['purpose']} {case['epoch']}")
def test_a_vector_key_is_derived(case: dict[str, Any]) -> None:
    session_key, epoch = bytes.fromhex(case["session_key"]), int(case["epoch"])
    assert derive_key(session_key, case["purpose"], stream=case["stream"], epoch=epoch).hex() == case["key"]
    assert HeldKey(session_key).derive(case["purpose"], stream=case["stream"], epoch=epoch).copy().hex() == case["key"]


def test_f23_keys_of_two_purposes_streams_or_epochs_differ() -> None:
    key = os.urandom(32)
    derived = {
        derive_key(key, purpose, stream=stream, epoch=epoch)
        for purpose in ("record", "manifest", "sign")
        for stream in ("", "a", "b")
        for epoch in (0, 1)
    }
    assert len(derived) == 18
    assert key not in derived


@pytest.mark.parametrize(
    ("purpose", "options"),
    [("", {}), ("x", {"epoch": -1}), ("x", {"epoch": 2**64}), ("x" * 65536, {}), ("x", {"stream": "\ud800"})],
)
def test_a_key_that_cannot_be_derived_is_refused(purpose: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        derive_key(bytes(32), purpose, **options)


@pytest.mark.parametrize("case", cases(FILE, "sessions"), ids=lambda case: case["stream"])
def test_a_vector_session_signs_as_it_should(case: dict[str, Any]) -> None:
    encrypted = EncryptedData.from_bytes(bytes.fromhex(case["wrapped"]))
    session = SessionKey.of(encrypted, bytes.fromhex(case["session_key"]), case["stream"])
    assert session.sign(bytes.fromhex(case["message"])).hex() == case["signature"]


@pytest.mark.parametrize("case", cases(FILE, "sessions"), ids=lambda case: case["stream"])
def test_a_vector_session_signature_is_read(case: dict[str, Any]) -> None:
    parts = SessionSignature.parse(bytes.fromhex(case["signature"]))
    assert parts.wrapped.hex() == case["wrapped"]
    assert parts.head + parts.mac == bytes.fromhex(case["signature"])
    assert parts.encrypted().to_bytes().hex() == case["wrapped"]


def test_every_truncation_of_a_session_signature_is_invalid() -> None:
    signature = bytes.fromhex(cases(FILE, "sessions")[0]["signature"])
    for length in range(len(signature)):
        with pytest.raises(InvalidSignatureError):
            SessionSignature.parse(signature[:length])
    with pytest.raises(InvalidSignatureError):
        SessionSignature.parse(signature + b"\x00")


def encrypted_data(**changes: Any) -> EncryptedData:
    members: dict[str, Any] = {
        "ciphertext": b"wrapped",
        "key_reference": KeyReference("aws", "arn:aws:kms:eu-west-1:111122223333:key/0", key_version="2"),
        "algorithm": "SYMMETRIC_DEFAULT",
        "encrypted_at": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return EncryptedData(**(members | changes))


def test_alias_and_context_do_not_stand_in_a_signature() -> None:
    encrypted = encrypted_data(context={"tenant": "north"})
    assert b"north" not in wrapped_bytes(encrypted)
    assert EncryptedData.from_bytes(wrapped_bytes(encrypted)) == encrypted_data()


@pytest.mark.parametrize("wrapped", [b"", b"garbage", encrypted_data(context={"a": "b"}).to_bytes()])
def test_a_wrapped_key_that_no_writer_writes_is_invalid(wrapped: bytes) -> None:
    parts = SessionSignature.parse(session_head(wrapped) + bytes(32))
    with pytest.raises(InvalidSignatureError):
        parts.encrypted()


def test_a_wrapped_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        wrapped_bytes(encrypted_data(ciphertext=bytes(65_536)))


@pytest.mark.parametrize("case", cases(FILE, "trees"), ids=lambda case: str(len(case["messages"])))
def test_each_item_of_a_vector_tree_leads_to_the_signed_statement(case: dict[str, Any]) -> None:
    public_key = PublicKey(bytes.fromhex(case["public_key"]), KeyReference("x", "y"), (SignatureAlgorithm.ED25519,))
    for number, (message, text) in enumerate(zip(case["messages"], case["items"], strict=True)):
        item = TreeItem.find(bytes.fromhex(text))
        assert item is not None
        assert (item.index, item.to_bytes().hex()) == (number, text)
        signed = item.statement(bytes.fromhex(message))
        assert signed.hex() == case["statement"]
        verify_signature(public_key, signed, item.signature, algorithm=SignatureAlgorithm.ED25519)


def test_an_item_of_another_message_leads_to_another_statement() -> None:
    case = cases(FILE, "trees")[1]
    item = TreeItem.find(bytes.fromhex(case["items"][0]))
    assert item is not None
    assert item.statement(bytes.fromhex(case["messages"][1])).hex() != case["statement"]


def test_every_truncation_of_an_item_is_no_item() -> None:
    item = bytes.fromhex(cases(FILE, "trees")[1]["items"][0])
    assert [length for length in range(len(item)) if TreeItem.find(item[:length]) is not None] == []
    assert TreeItem.find(item + b"\x00") is None


@pytest.mark.parametrize(("index", "size", "height"), [(2, 2, 1), (0, 0, 0), (0, 2, 0), (0, 2, 2), (0, 1, 1)])
def test_a_proof_that_no_tree_has_is_invalid(index: int, size: int, height: int) -> None:
    with pytest.raises(InvalidSignatureError):
        TreeItem(index, size, (bytes(32),) * height, b"").statement(b"message")


def test_an_item_holds_no_longer_signature_than_it_can_tell() -> None:
    with pytest.raises(InvalidInputError):
        TreeItem(0, 1, (), bytes(65_536)).to_bytes()


@pytest.mark.parametrize("size", range(1, 20))
def test_the_levels_of_a_tree_are_the_roots_of_its_complete_subtrees(size: int) -> None:
    leaves = [os.urandom(32) for _ in range(size)]
    for level, roots in enumerate(levels_of(leaves)):
        assert roots == [root_of(leaves[at << level : (at + 1) << level]) for at in range(size >> level)]


def test_a_vault_text_is_written_and_read() -> None:
    case = load(FILE)["vault"]
    assert vault_text(bytes.fromhex(case["value"]), case["version"]).decode() == case["text"]
    assert parse_vault_text(case["text"].encode()) == (bytes.fromhex(case["value"]), case["version"])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"vault:v1:",
        b"vault:v0:AAAA",
        b"vault:v01:AAAA",
        b"vault:v1:AAA",
        b"vault:v1:AAB=",  # spare bits set
        b"vault:v1:AA\nAA",
        b"vault:v1:AAAA\n",
        b"vault:v1:____",
        b"vault:1:AAAA",
        b"Vault:v1:AAAA",
        b"\xff",
    ],
)
def test_a_vault_text_of_another_spelling_is_invalid(text: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        parse_vault_text(text)
