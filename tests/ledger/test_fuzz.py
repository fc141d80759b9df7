"""Random edits of a log: none goes unseen, and none is more than a finding."""

from __future__ import annotations

import os
import random
from pathlib import Path

from keystead.ledger.checking import StreamChecker
from keystead.ledger.reading import LogFile
from tests.ledger.logs import TestTrust, small_log

EDITS = 10_000_000 if os.environ.get("KEYSTEAD_SOAK") else 10_000


def edit(log: bytes, dice: random.Random) -> bytes:
    """Return the log after one to three edits, of bytes or of lines."""
    for _ in range(dice.randint(1, 3)):
        lines = log.splitlines(keepends=True)
        if not lines:
            return b"\n"
        at, to = dice.randrange(len(lines)), dice.randrange(len(lines))
        kind = dice.randrange(9)
        if kind == 0:
            position = dice.randrange(len(log))
            log = log[:position] + bytes((log[position] ^ 1 << dice.randrange(8),)) + log[position + 1 :]
        elif kind == 1:
            start = dice.randrange(len(log))
            log = log[:start] + log[start + dice.randint(1, 200) :]
        elif kind == 2:
            position = dice.randrange(len(log))
            log = log[:position] + dice.randbytes(dice.randint(1, 50)) + log[position:]
        elif kind == 3:
            log = b"".join(lines[:at] + lines[at + 1 :])
        elif kind == 4:
            log = b"".join([*lines[:to], lines[at], *lines[to:]])
        elif kind == 5:
            lines[at], lines[to] = lines[to], lines[at]
            log = b"".join(lines)
        elif kind == 6:
            log = b"".join(lines[: dice.randrange(len(lines))])
        elif kind == 7:
            number = str(dice.choice([0, 1, at, to, 10**9, 2**63, 10**18])).encode()
            log = log.replace(b'"n":%d,' % at, b'"n":%b,' % number, 1)
        else:
            part = dice.choice([b'"epoch"', b'"close"', b'"session"', b'"t":', b'"k":', b"keystead", b"}", b'"m":"'])
            log = log.replace(part, dice.choice([b"", b"x", part + part, b'"epoch"', b"{}"]), 1)
    return log


def test_no_edit_goes_unseen_and_none_is_an_exception(tmp_path: Path) -> None:
    dice, log, path = random.Random(20301), small_log(), tmp_path / "log"
    for number in range(EDITS):
        edited = edit(log, dice)
        if edited == log:
            continue
        path.write_bytes(edited)
        report = StreamChecker(TestTrust()).check([LogFile(path)], is_whole=True, expect_closed=True)
        assert not report.valid, f"edit {number} went unseen"
