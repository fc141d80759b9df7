"""Records of the log itself, sealed by the right key, that say or stand where none may: a key makes no writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keystead.ledger.format.records import Kind, line_of
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    check,
    checkpointed,
    kinds,
    lines_of,
    payloads,
    session,
    session_key,
    small_log,
    two_files,
)

Write = Callable[[Sealer], bytes]


def begun() -> tuple[Sealer, bytes]:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    return sealer, sealer.file(1, START) + sealer.seal(payloads(2), START)


def of_kind(kind: str, payload: Any) -> Write:
    return lambda sealer: sealer.control(SimpleNamespace(value=kind), payload, START)  # type: ignore[arg-type]


def escaped(kind: str, name: str) -> Write:
    """Return what writes half a character, which JSON can escape."""

    def write(sealer: Sealer) -> bytes:
        head = b'{"n":%d,"t":%d,"k":"%b","d":{"%b":"\\ud800"}' % (sealer.number, START, kind.encode(), name.encode())
        return line_of(head, sealer._tagger(sealer.tag + head)) + b"\n"

    return write


def hands_over_to_nobody(sealer: Sealer) -> bytes:
    return sealer.control(Kind.REKEY, {"session": session("two").id}, START) + sealer.seal(payloads(1), START)


def hands_over_to_another(sealer: Sealer) -> bytes:
    told = sealer.control(Kind.REKEY, {"session": session("three").id}, START)
    return told + sealer.resume(session("two"), session_key("two"), START) + sealer.seal(payloads(1), START)


def goes_on_behind_its_end(sealer: Sealer) -> bytes:
    return sealer.control(Kind.CLOSE, {}, START) + checkpointed(sealer) + sealer.seal(payloads(1), START)


def session_without_a_word(sealer: Sealer) -> bytes:
    return sealer.resume(session("two"), session_key("two"), START) + sealer.seal(payloads(1), START)


def session_in_a_later_epoch(sealer: Sealer) -> bytes:
    return sealer.resume(replace(session("two"), epoch=1), session_key("two"), START)


def session_with_steps(sealer: Sealer) -> bytes:
    return sealer.resume(replace(session("two"), steps=5), session_key("two"), START)


def epoch_that_goes_back(sealer: Sealer) -> bytes:
    sealer.end_epochs(3)
    told = sealer.epoch(START + 2_700_000)
    return told + sealer.control(Kind.EPOCH, {"epoch": 2}, START + 2_700_000)


def file_in_a_file(sealer: Sealer) -> bytes:
    return sealer.file(2, START)


WRONG: dict[str, tuple[str, Write]] = {
    "a session hands over to nobody": ("malformed", hands_over_to_nobody),
    "a session hands over to another one": ("malformed", hands_over_to_another),
    "a file goes on behind its end": ("malformed", goes_on_behind_its_end),
    "a session begins without a word of the last one": ("malformed", session_without_a_word),
    "a session begins in a later epoch": ("modified", session_in_a_later_epoch),
    "a session begins with steps": ("malformed", session_with_steps),
    "an epoch goes back": ("modified", epoch_that_goes_back),
    "a file begins within one": ("malformed", file_in_a_file),
    "a crash that never was": ("malformed", of_kind("recovery", {"bytes": 0, "sha256": "0" * 64})),
    "a kind that there is not": ("malformed", of_kind("other", {})),
    "a cut that says something": ("malformed", of_kind("cut", {"note": "x"})),
    "a clock without a step": ("malformed", of_kind("clock", {})),
    "a clock that is no number": ("malformed", of_kind("clock", {"step": True})),
    "a checkpoint that is no text": ("checkpoint", of_kind("checkpoint", {"note": 5})),
    "a checkpoint that is no note": ("checkpoint", of_kind("checkpoint", {"note": "x"})),
    "a checkpoint that is no Unicode": ("checkpoint", escaped("checkpoint", "note")),
    "a session to hand over to that is no Unicode": ("malformed", escaped("rekey", "session")),
    "a removal without a reason": ("malformed", of_kind("retention", {"files": []})),
    "a removal of what is no file": ("malformed", of_kind("retention", {"files": [1], "reason": "x"})),
    "an end that goes on nowhere": ("malformed", of_kind("close", {"next": "2"})),
}


def test_a_session_that_only_begins_at_the_end_of_a_file_that_another_follows_is_found(tmp_path: Path) -> None:
    sealer, first = begun()
    first += sealer.resume(session("two"), session_key("two"), START)
    assert kinds(check(tmp_path, first, sealer.file(2, START))) == ["malformed"]


@pytest.mark.parametrize("name", list(WRONG))
def test_what_a_log_may_not_say_of_itself_is_found(tmp_path: Path, name: str) -> None:
    sealer, log = begun()
    finding, write = WRONG[name]
    assert kinds(check(tmp_path, log + write(sealer)))[0] == finding


def test_a_session_that_is_not_trusted_is_found_in_the_middle_of_a_file(tmp_path: Path) -> None:
    sealer, log = begun()
    log += sealer.rekey(session("stranger"), session_key("stranger"), START) + sealer.seal(payloads(1), START)
    assert "untrusted" in kinds(check(tmp_path, log))


def test_a_file_that_begins_in_an_earlier_epoch_than_the_last_one_ended_in_is_found(tmp_path: Path) -> None:
    sealer, first = begun()
    sealer.end_epochs(2)
    first += sealer.epoch(START + 1_800_000) + sealer.control(Kind.CLOSE, {"next": 2}, START + 1_800_000)
    again = Sealer(
        STREAM, session("one"), session_key("one"), tree=sealer._tree.copy(), tag=sealer.tag, time_ms=sealer.time_ms
    )
    assert "replaced" in kinds(check(tmp_path, first, again.file(2, START + 1_800_000)))


@pytest.mark.parametrize("number", [10**15, 2**63 - 1, 2**63, 10**19, 10**4000])
def test_numbers_that_anybody_writes_into_a_file_cost_no_time(tmp_path: Path, number: int) -> None:
    files = two_files()
    digits = b"9" * 4000 if number > 10**20 else b"%d" % number
    for name in (b'"file":', b'"epoch":', b'"epoch_s":', b'"start":', b'"steps":'):
        second = files[1].replace(name + files[1].partition(name)[2].partition(b",")[0].rstrip(b"}"), name + digits, 1)
        assert second != files[1]
        assert not check(tmp_path, files[0], second, files[2], is_whole=True).valid
        assert not check(tmp_path, second, is_whole=True).valid


def test_a_record_of_the_largest_number_is_no_exception(tmp_path: Path) -> None:
    lines = lines_of(small_log())
    for at in range(1, len(lines)):
        largest = [*lines]
        largest[at] = b'{"n":9999999999999999999,' + lines[at].partition(b",")[2]
        assert not check(tmp_path, b"".join(largest)).valid
