"""What a reader makes of checkpoints, the log's own and those that were kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.crypto.merkle import EMPTY_ROOT, Frontier
from keystead.errors import CouldNotVerifyError
from keystead.ledger.format.records import Kind, parse_line
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    chained,
    check,
    checkpointed,
    kinds,
    lines_of,
    payloads,
    roots_of,
    session,
    session_key,
    sign,
    small_log,
    two_files,
)
from tests.ledger.vectors import unbase64


def test_an_open_log_says_from_where_on_nothing_vouches(tmp_path: Path) -> None:
    report = check(tmp_path, small_log(closed=False))
    assert (report.valid, report.closed, report.vouched, report.size) == (True, False, 11, 22)
    assert "from record 11 on" in report.warnings[0]


@pytest.mark.parametrize("kept", range(1, 24))
def test_a_cut_is_found_where_a_checkpoint_or_the_end_is_known(tmp_path: Path, kept: int) -> None:
    lines = lines_of(small_log())
    cut = b"".join(lines[:kept])
    whole = check(tmp_path, small_log())
    assert whole.checkpoint is not None
    assert kinds(check(tmp_path, cut, since=whole.checkpoint)) == (["rolled_back"] if kept < whole.vouched else [])
    if kept < 23:
        assert "truncated" in kinds(check(tmp_path, cut, expect_closed=True))
    opened = check(tmp_path, cut)
    assert (opened.valid, opened.closed) == (True, False)


def test_a_log_that_was_rolled_back_is_found_by_who_kept_a_checkpoint(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    old = sealer.file(1, START) + sealer.seal(payloads(5), START) + checkpointed(sealer)
    new = old + sealer.seal(payloads(5, 5), START)
    kept = sealer.checkpoint()
    assert check(tmp_path, new + checkpointed(sealer), since=kept).valid
    assert kinds(check(tmp_path, old, since=kept)) == ["rolled_back"]


def test_every_log_goes_on_from_none(tmp_path: Path) -> None:
    nothing = Checkpoint(STREAM, 0, EMPTY_ROOT)
    report = check(tmp_path, small_log(), since=nothing)
    assert (report.errors, report.closed) == ([], True)
    assert check(tmp_path, two_files()[1], since=nothing).valid
    assert kinds(check(tmp_path, small_log(), since=Checkpoint(STREAM, 0, bytes(32)))) == ["rolled_back"]


def test_a_checkpoint_over_all_before_the_first_file_is_compared_with_its_beginning(tmp_path: Path) -> None:
    first, second, _ = two_files()
    kept = Checkpoint(STREAM, len(lines_of(first)), Frontier(len(lines_of(first)), roots_of(first)).root())
    report = check(tmp_path, second, since=kept)
    assert (report.errors, report.valid) == ([], True)
    assert kinds(check(tmp_path, second, since=replace(kept, root=bytes(32)))) == ["rolled_back"]


def test_another_history_of_the_same_length_is_found(tmp_path: Path) -> None:
    one, other = (Sealer(STREAM, session("one"), session_key("one")) for _ in range(2))
    one.file(1, START)
    one.seal(payloads(5), START)
    rewritten = other.file(1, START) + other.seal(payloads(5, 100), START)
    assert kinds(check(tmp_path, rewritten, since=one.checkpoint())) == ["rolled_back"]


@pytest.mark.parametrize("change", ["size", "root", "origin", "signature", "stripped", "garbage"])
def test_a_checkpoint_that_is_not_the_logs_is_found(tmp_path: Path, change: str) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    true = sealer.checkpoint()
    notes = {
        "size": sign(Checkpoint(STREAM, true.size - 1, true.root)),
        "root": sign(Checkpoint(STREAM, true.size, bytes(32))),
        "origin": sign(Checkpoint("example.org/other", true.size, true.root)),
        "signature": sign(true, Ed25519PrivateKey.generate()),
        "stripped": true.text(),
        "garbage": "garbage",
    }
    log += sealer.control(Kind.CHECKPOINT, {"note": notes[change]}, START)
    assert kinds(check(tmp_path, log)) == ["checkpoint"]


def test_a_checkpoint_may_follow_later_where_it_was_announced(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    first = sealer.checkpoint()
    log += sealer.control(Kind.CUT, {}, START) + sealer.seal(payloads(5), START)
    second = sealer.checkpoint()
    log += sealer.control(Kind.CUT, {}, START) + sealer.seal(payloads(5), START)
    announced = log
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(first)}, START)
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(second)}, START)
    report = check(tmp_path, log)
    assert (report.errors, report.vouched) == ([], 12)
    forged = Sealer(STREAM, session("one"), session_key("one"))
    forged.file(1, START)
    forged.seal(payloads(7), START)
    never = announced + _at(sealer, announced, Kind.CHECKPOINT, {"note": sign(Checkpoint(STREAM, 6, bytes(32)))})
    assert kinds(check(tmp_path, never)) == ["checkpoint"]
    other = announced + _at(sealer, announced, Kind.CHECKPOINT, {"note": sign(forged.checkpoint())})
    assert kinds(check(tmp_path, other)) == ["checkpoint"]


def test_a_checkpoint_that_took_its_time_vouches_for_no_less(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    slow = sealer.checkpoint()
    log += sealer.control(Kind.CUT, {}, START) + checkpointed(sealer)
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(slow)}, START)
    report = check(tmp_path, log)
    assert (report.errors, report.vouched) == ([], 5)


def _at(sealer: Sealer, log: bytes, kind: Kind, payload: dict[str, str]) -> bytes:
    """Return a record that follows the last one of a log which the sealer has written further."""
    last = parse_line(lines_of(log)[-1][:-1])
    sealer.number, sealer.tag = last.number + 1, unbase64(last.tag.decode() + "=")
    return sealer.control(kind, payload, START)


def test_a_checkpoint_of_files_that_are_not_given_cannot_be_compared(tmp_path: Path) -> None:
    _, second, third = two_files()
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    sealer.file(1, START)
    with pytest.raises(CouldNotVerifyError):
        check(tmp_path, second, third, since=sealer.checkpoint())


def test_what_the_tags_cannot_say_the_checkpoints_do_where_there_is_no_key(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, chained("one"), None)
    log = sealer.file(1, START) + sealer.seal(payloads(5), START) + checkpointed(sealer)
    assert check(tmp_path, log).errors == []
    assert not check(tmp_path, log.replace(b"some", b"more")).valid
    del sealer
    # Who rewrites the whole chain has no checkpoint over it.
    forged = Sealer(STREAM, chained("one"), None)
    rewritten = forged.file(1, START) + forged.seal(payloads(5, 5), START)
    rewritten += forged.control(Kind.CHECKPOINT, {"note": sign(Checkpoint(STREAM, 6, bytes(32)))}, START)
    assert kinds(check(tmp_path, rewritten)) == ["checkpoint"]


def test_a_log_cannot_be_passed_off_as_one_without_a_key_where_checkpoints_are_asked_for(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, chained("forged"), None)
    forger = Ed25519PrivateKey.generate()
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(sealer.checkpoint(), forger)}, START)
    assert kinds(check(tmp_path, log)) == ["checkpoint"]
