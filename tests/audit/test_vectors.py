"""The bytes of the trail, as the specification has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from keystead.crypto.envelope import from_text
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import DecryptionError
from keystead.ledger.audit.chain import TrailState
from keystead.ledger.audit.entries import (
    Entry,
    canonical,
    coder,
    has_code,
    id_bytes,
    id_text,
    rejected_payload,
    rejection_in,
    sealed_payload,
    split_payload,
)
from keystead.ledger.audit.key_rows import row_digest
from keystead.ledger.audit.keys import KeyringSigner, signing_seed
from keystead.ledger.audit.sessions import open_session, told_session, wrapped_by
from keystead.ledger.tlog.note import Note, NoteKey, verify_note
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose
from keystead.ports import AuditSessionRow
from tests.crypto.rings import ring
from tests.crypto.vectors import load

VECTORS = load("audit-v1.json")
[SESSION] = VECTORS["sessions"]
[SIGNER] = VECTORS["signers"]
STORE: str = SESSION["store"]
TIMES = ("created", "activated_at", "rotate_after", "expires_at", "destroy_after")

each_entry = pytest.mark.parametrize("case", VECTORS["entries"], ids=lambda case: case["comment"])
each_state = pytest.mark.parametrize("case", VECTORS["states"], ids=lambda case: case["comment"])


def session_row(**changed: Any) -> AuditSessionRow:
    wrapped = bytes.fromhex(SESSION["wrapped_key"])
    given = {"id": SESSION["session"], "node": SESSION["node"], "wrapped_key": wrapped, "begun_ms": SESSION["begun"]}
    return AuditSessionRow(**(given | changed))


def loaded(key: str, key_id: str) -> LoadedKey:
    return LoadedKey(int(key_id), 1, bytearray.fromhex(key))


def test_a_sessions_wrapped_key_opens_and_makes_its_codes() -> None:
    wrap_ring = ring(loaded(SESSION["wrap_key"], SESSION["wrap_key_id"]), name="keystead.wrap")
    assert wrapped_by(session_row()) == int(SESSION["wrap_key_id"])
    assert from_text(SESSION["text"]) == session_row().wrapped_key
    make = open_session(wrap_ring, STORE, session_row())
    for case in VECTORS["entries"]:
        assert has_code(make, bytes.fromhex(case["entry"]), bytes.fromhex(case["code"]))


@pytest.mark.parametrize("changed", [{"id": "0" * 32}, {"node": "node-2"}, {"begun_ms": 1}])
def test_a_wrapped_key_opens_for_its_own_session_only(changed: dict[str, Any]) -> None:
    wrap_ring = ring(loaded(SESSION["wrap_key"], SESSION["wrap_key_id"]), name="keystead.wrap")
    with pytest.raises(DecryptionError):
        open_session(wrap_ring, STORE, session_row(**changed))


def test_the_first_entry_tells_of_its_session() -> None:
    assert told_session(VECTORS["entries"][0]["members"]) == session_row()
    assert told_session(VECTORS["entries"][1]["members"]) is None


@each_entry
def test_an_entry_has_one_form(case: dict[str, Any]) -> None:
    assert canonical(case["members"]).encode() == bytes.fromhex(case["entry"])
    assert Entry.parse(bytes.fromhex(case["entry"])).members == case["members"]
    assert id_text(id_bytes(case["members"]["id"])) == case["members"]["id"]


@each_entry
def test_an_entry_and_its_code_make_the_records_payload(case: dict[str, Any]) -> None:
    entry, code = bytes.fromhex(case["entry"]), bytes.fromhex(case["code"])
    assert coder(bytes.fromhex(SESSION["key"]), STORE)(entry) == code
    assert sealed_payload(entry, code) == bytes.fromhex(case["payload"])
    assert split_payload(bytes.fromhex(case["payload"])) == (entry, code)


@pytest.mark.parametrize("case", VECTORS["rejections"], ids=lambda case: case["reason"])
def test_what_is_no_entry_is_told_by_its_digest(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    assert rejected_payload(case["reason"], bytes.fromhex(case["row"]), bytes.fromhex(case["entry"])) == payload
    assert (rejection_in(payload) or {})["reason"] == case["reason"]
    assert split_payload(payload) is None


@pytest.mark.parametrize("case", VECTORS["rows"], ids=lambda case: case["comment"])
def test_a_row_has_one_digest(case: dict[str, Any]) -> None:
    columns = dict(case["columns"])
    for name in ("id", "wrapped_by"):
        columns[name] = None if columns[name] is None else int(columns[name])
    columns |= {"purpose": KeyringPurpose(columns["purpose"]), "state": DataKeyState(columns["state"])}
    for name in TIMES[1:]:
        columns[name] = None if columns[name] is None else datetime.fromisoformat(columns[name])
    wrapped = case["wrapped_key"]
    record = KeyRecord(wrapped_key=None if wrapped is None else bytes.fromhex(wrapped), **columns)
    assert row_digest(record) == case["row"]


@each_state
def test_a_state_has_one_form_and_its_code(case: dict[str, Any]) -> None:
    content = bytes.fromhex(case["state"])
    state = TrailState.parse(content)
    assert (state.content(), state.size) == (content, case["size"])
    assert state.code(bytes.fromhex(SIGNER["data_key"]), STORE).hex() == case["code"]


def test_checkpoints_are_signed_by_a_key_that_follows_from_a_data_key() -> None:
    assert signing_seed(bytes.fromhex(SIGNER["data_key"]), SIGNER["stream"]).hex() == SIGNER["seed"]
    signer = KeyringSigner(ring(loaded(SIGNER["data_key"], SIGNER["data_key_id"]), suite=0), SIGNER["stream"])
    assert [key.vkey for key in signer.keys] == [SIGNER["vkey"]]
    assert Note(SIGNER["text"], (signer.sign(SIGNER["text"]),)).render().decode() == SIGNER["note"]
    assert verify_note(Note.parse(SIGNER["note"].encode()), [NoteKey.parse(SIGNER["vkey"])]) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"n":1}',
        b'{"a":1}\n',
        b'{"action":"a.b","id":"","n":-1,"node":"","ok":0,"session":"","time":""}',
        b'{"action":"a.b","id":"","n":true,"node":"","ok":0,"session":"","time":""}',
        b'{"action":"a.b","id":"","n":0,"node":"","ok":0,"session":"","time":"","undone":[[2,1]]}',
        b'{"action":"a.b","id":"","n":0,"node":"","ok":0,"session":"","time":"","undone":[1]}',
        b'{"action":"a.b","id":"","keyring":1,"n":0,"node":"","ok":0,"session":"","time":""}',
    ],
)
def test_other_bytes_are_no_entry(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Entry.parse(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"begun":0,"ends":null,"file":0,"first":0,"over":null,"roots":["AA=="],"since":0,"size":0,"stream":"s",'
        b'"tag":"","time":0}',
        bytes.fromhex(VECTORS["states"][1]["state"]).replace(b'"size":7', b'"size":8'),
        bytes.fromhex(VECTORS["states"][1]["state"]).replace(b'"size":7', b'"size":"7"'),
        bytes.fromhex(VECTORS["states"][1]["state"]).replace(b'"over":null', b'"over":-1'),
        bytes.fromhex(VECTORS["states"][1]["state"]).replace(b'"since":12', b'"since":true'),
        bytes.fromhex(VECTORS["states"][1]["state"]).replace(b',"since":12', b""),
    ],
)
def test_other_bytes_are_no_state(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        TrailState.parse(content)
