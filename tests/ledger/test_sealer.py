"""Sealing, byte for byte as the specification's vectors have it, and keys that only go forward."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.crypto.merkle import leaf_hash
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import Kind, Session, head_of, line_of, parse_line
from keystead.ledger.format.tags import NO_TAG, SessionKey, keyed_tagger, unkeyed_tagger
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES, Sealer, require_payload
from scripts.gen_vectors_kms import known_bytes
from tests.crypto.vectors import load
from tests.ledger.vectors import unbase64

VECTORS = load("log-v1.json")["tests"]
START = 1_900_000_000_000


def files_of(case: dict[str, Any]) -> list[bytes]:
    return [unbase64(file) for file in case["files"]]


def session_of(case: dict[str, Any], number: int, start: int) -> tuple[Session, bytes | None]:
    told = case["sessions"][number]
    if told["key"] is None:
        return Session(told["id"], "SHA-256", None, 0, 0, start), None
    return Session(told["id"], "HMAC-SHA256", told["wrapped"], 0, 900, start), bytes.fromhex(told["key"])


def note_of(checkpoint: Checkpoint) -> dict[str, str]:
    private_key = Ed25519PrivateKey.from_private_bytes(known_bytes(f"log signer {checkpoint.origin}"))
    key = NoteKey.of(checkpoint.origin, NoteKeyType.ED25519, private_key.public_key().public_bytes_raw())
    text = checkpoint.text()
    signature = NoteSignature(key.name, key.key_id, private_key.sign(text.encode()))
    return {"note": Note(text, (signature,)).render().decode()}


def test_a_stream_with_every_kind_of_record_is_written_as_specified() -> None:
    case = VECTORS[0]
    first, second = files_of(case)
    sealer = Sealer(case["stream"], *session_of(case, 0, START))
    written = sealer.file(1, START)
    payloads = [b'{"event":"start"}', '{"name":"Grüße","list":[1,2.50,1e3],"a":1,"a":2}'.encode()]
    written += sealer.seal(payloads, START + 5)
    written += sealer.control(Kind.CHECKPOINT, note_of(sealer.checkpoint()), START + 10)
    cut = sealer.checkpoint()
    written += sealer.control(Kind.CUT, {}, START + 11)
    sealer.end_epochs(1)
    written += sealer.epoch(START + 900_500)
    written += sealer.control(Kind.CHECKPOINT, note_of(cut), START + 900_500)
    written += sealer.seal([b'"a text, \\"quoted\\", and \\u2028"'], START + 900_500)
    sealer.end_epochs(4)
    written += sealer.epoch(START + 3_600_000)
    written += sealer.seal([b"null"], START + 3_600_001)
    written += sealer.clock_step(-7_200_000, START - 3_599_999)
    written += sealer.seal([b'{"after":"the clock was set back"}'], START - 3_599_998)
    written += sealer.rekey(*session_of(case, 1, START + 3_600_001), START + 3_600_001)
    written += sealer.seal([b'{"under":"another key"}'], START + 3_600_002)
    torn = b'{"n":15,"t":19000036000'
    written += torn + b"\n"
    written += sealer.resume(*session_of(case, 2, START + 4_000_000), START + 4_000_000)
    recovery = {"bytes": len(torn), "sha256": sha256(torn).hexdigest()}
    written += sealer.control(Kind.RECOVERY, recovery, START + 4_000_000)
    written += sealer.control(Kind.CLOSE, {"next": 2}, START + 4_000_100)
    written += sealer.control(Kind.CHECKPOINT, note_of(sealer.checkpoint()), START + 4_000_100)
    assert written == first
    written = sealer.file(2, START + 4_000_200)
    removed = {"files": [{"file": 7, "first": 0, "last": 9}], "reason": "kept for a year"}
    written += sealer.control(Kind.RETENTION, removed, START + 4_000_200)
    written += sealer.seal([b"[]"], START + 4_000_201)
    written += sealer.control(Kind.CLOSE, {}, START + 4_000_300)
    written += sealer.control(Kind.CHECKPOINT, note_of(sealer.checkpoint()), START + 4_000_300)
    assert written == second
    assert sealer.checkpoint().root.hex() == case["root"]


def test_a_stream_without_a_key_is_written_as_specified() -> None:
    case = VECTORS[1]
    sealer = Sealer(case["stream"], *session_of(case, 0, START))
    written = sealer.file(1, START) + sealer.seal([b'{"event":"start"}'], START + 1)
    written += sealer.control(Kind.CHECKPOINT, note_of(sealer.checkpoint()), START + 2)
    assert [written] == files_of(case)
    assert sealer.checkpoint().root.hex() == case["root"]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_the_vectors_name_each_records_tag_and_leaf(case: dict[str, Any]) -> None:
    lines = [line for file in files_of(case) for line in file.splitlines() if b'"m":' in line]
    for line, told in zip(lines, case["records"], strict=True):
        record = parse_line(line)
        assert record.number == told["number"]
        assert unbase64(record.tag.decode() + "=").hex() == told["tag"]
        assert leaf_hash(line).hex() == told["leaf"]


def test_lines_are_json() -> None:
    for file in files_of(VECTORS[0]):
        for line in file.splitlines():
            if b'"m":' in line:
                assert json.loads(line)["n"] >= 0


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.binary(max_size=2000))
def test_a_tag_is_hmac(key: bytes, prefix: bytes, message: bytes) -> None:
    assert keyed_tagger(key, prefix)(message) == hmac.digest(key, prefix + message, "sha256")


def test_a_tagger_seals_any_number_of_records() -> None:
    tag = keyed_tagger(bytes(32), b"prefix")
    assert tag(b"one") == tag(b"one") != tag(b"two")


def test_a_batch_is_the_same_as_one_by_one() -> None:
    payloads = [str(number).encode() for number in range(1500)]
    at_once, one_by_one = (Sealer("s", *session_of(VECTORS[0], 0, START)) for _ in range(2))
    together = at_once.seal(payloads, START)
    assert together == b"".join(one_by_one.seal([payload], START) for payload in payloads)
    assert at_once.checkpoint() == one_by_one.checkpoint()


def test_time_never_goes_back() -> None:
    sealer = Sealer("s", *session_of(VECTORS[0], 0, START))
    lines = sealer.seal([b"1"], START + 10) + sealer.seal([b"2"], START + 5) + sealer.seal([b"3"], START + 11)
    assert [parse_line(line).time_ms for line in lines.splitlines()] == [START + 10, START + 10, START + 11]


def test_stream_epoch_and_place_are_in_every_tag() -> None:
    message = NO_TAG + b"head"
    tags = {SessionKey(bytes(32), stream, epoch=epoch).tagger()(message) for stream in ("a", "b") for epoch in range(3)}
    assert len(tags) == 6
    assert unkeyed_tagger("a")(message) != unkeyed_tagger("b")(message)


def test_a_key_that_went_forward_does_not_seal_the_past() -> None:
    key = SessionKey(bytes(range(32)), "s")
    past = key.tagger()(NO_TAG)
    key.end_epoch(1, NO_TAG)
    assert key.epoch == 1
    assert key.tagger()(NO_TAG) != past
    assert bytes(range(32)) not in vars(key)["_key"]


def test_a_key_opened_at_an_epoch_is_the_one_that_came_there() -> None:
    walked = SessionKey(bytes(32), "s")
    for _ in range(5):
        walked.end_epoch(0, NO_TAG)
    assert walked.tagger()(b"x") == SessionKey(bytes(32), "s", epoch=5).tagger()(b"x")


def test_an_epoch_without_records_leaves_its_mark() -> None:
    one, two = (Sealer("s", *session_of(VECTORS[0], 0, START)) for _ in range(2))
    one.end_epochs(2)
    two.end_epochs(1)
    assert one.tag != two.tag
    two.end_epochs(2)
    assert one.tag == two.tag


def test_a_new_epoch_is_written_of_once() -> None:
    sealer = Sealer("s", *session_of(VECTORS[0], 0, START))
    assert not sealer.is_in_new_epoch
    sealer.end_epochs(3)
    assert sealer.is_in_new_epoch
    sealer.epoch(START)
    assert not sealer.is_in_new_epoch


def test_a_file_that_begins_in_a_new_epoch_says_so_itself() -> None:
    sealer = Sealer("s", *session_of(VECTORS[0], 0, START))
    sealer.end_epochs(3)
    line = sealer.file(2, START)
    assert json.loads(parse_line(line[:-1]).payload)["session"]["epoch"] == 3
    assert not sealer.is_in_new_epoch


def test_a_session_without_a_key_has_no_epochs() -> None:
    sealer = Sealer("s", *session_of(VECTORS[1], 0, START))
    sealer.end_epochs(5)
    assert not sealer.is_in_new_epoch


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"plain text",
        b'{"a":\n1}',
        b'"\x00"',
        b" 1",
        b"x" * 10,
        b"[" + b" " * MAX_PAYLOAD_BYTES,
        "text",
        None,
        bytearray(b"1"),
    ],
    ids=range(10),
)
def test_what_cannot_be_a_record_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidInputError):
        require_payload(payload)


@pytest.mark.parametrize("payload", [b"{}", b"[]", b'"x"', b"-1", b"0", b"true", b"false", b"null"])
def test_every_kind_of_json_value_is_a_record(payload: bytes) -> None:
    require_payload(payload)


def test_keys_do_not_show() -> None:
    sealer = Sealer("s", *session_of(VECTORS[0], 0, START))
    assert "hidden" in repr(sealer)
    assert "hidden" in repr(SessionKey(bytes(32), "s"))


@pytest.mark.parametrize(("key", "epoch"), [(b"short", 0), (bytes(32), -1)])
def test_a_key_that_cannot_be_is_refused(key: bytes, epoch: int) -> None:
    with pytest.raises(InvalidInputError):
        SessionKey(key, "s", epoch=epoch)


def test_a_record_takes_less_than_150_bytes_more_than_what_is_in_it() -> None:
    head = head_of(10**19 - 1, 10**16 - 1, b"{}")
    assert len(line_of(head, bytes(32)) + b"\n") - len(b"{}") < 150
