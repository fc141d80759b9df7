"""Random edits of sealed logs: of bytes, lines, fields and files. None goes unseen, and none is more than a finding."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import IO, Final

from keystead.ledger.format.records import Kind
from keystead.ledger.reading.checking import StreamChecker, Trust
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.tlog.checkpoint import SignedCheckpoint
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    TestTrust,
    checkpointed,
    payloads,
    session,
    session_key,
    small_log,
    two_files,
)

WORDS: Final = (b'"epoch"', b'"close"', b'"session"', b'"t":', b'"k":', b"keystead", b"}", b'"m":"', b"\\n", b"=", b"A")
NUMBERS: Final = (0, 1, 3, 10**9, 10**18, 2**63, 10**19 - 1, 10**19, 10**4000)
Edit = Callable[[bytes, random.Random], bytes]


class Held(LogFile):
    """A file in memory: a disk would take most of the time."""

    def __init__(self, number: int, content: bytes) -> None:
        super().__init__(f"log.{number}")
        self._content = content

    def _open(self) -> IO[bytes]:
        return BytesIO(self._content)


class Remembering(TestTrust):
    """Verifies a signed note once: most edits leave those of the sample as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._verified = lru_cache(10_000)(super().checkpoint)

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint:
        """As the trust that it is one of."""
        return self._verified(note, time_ms)


def fuzz(seed: int, edits: int) -> tuple[int, Counter[str], list[str], list[str]]:
    """Edit logs so many times; return that number, what was done, what was accepted, and what raised."""
    dice = random.Random(seed)
    samples = [small_log(records=3)], [_every_kind()], two_files(records=2)
    trust = Remembering()
    done: Counter[str] = Counter()
    accepted: list[str] = []
    raised: list[str] = []
    number = 0
    while number < edits:
        sample = dice.choice(samples)
        files, names = _edited(sample, dice)
        if files == sample:
            continue
        number += 1
        done.update(names)
        try:
            if is_valid(files, trust):
                accepted.append(f"seed {seed}, edit {number}: {names}")
        except Exception as exc:
            raised.append(f"seed {seed}, edit {number}: {names}: {exc!r}")
    return number, done, accepted, raised


def is_valid(contents: list[bytes], trust: Trust) -> bool:
    """Whether the files are a whole, closed stream, as the reader of the samples takes them."""
    files = [Held(number, content) for number, content in enumerate(contents)]
    return StreamChecker(trust).check(files, is_whole=True, expect_closed=True).valid


def _edited(sample: list[bytes], dice: random.Random) -> tuple[list[bytes], list[str]]:
    """Return the files after one to three edits, and what these were."""
    files, names = list(sample), []
    for _ in range(dice.randint(1, 3)):
        if len(files) > 1 and dice.random() < 0.1:
            at, to = dice.randrange(len(files)), dice.randrange(len(files))
            if dice.random() < 0.5:
                del files[at]
            else:
                files[at], files[to] = files[to], files[at]
            names.append("files")
            continue
        at = dice.randrange(len(files))
        name = dice.choice(list(EDITS))
        files[at] = EDITS[name](files[at], dice) if files[at] else b"\n"
        names.append(name)
    return files, names


def _bit(log: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(log))
    return log[:at] + bytes((log[at] ^ 1 << dice.randrange(8),)) + log[at + 1 :]


def _delete(log: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(log))
    return log[:at] + log[at + dice.randint(1, 200) :]


def _insert(log: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(log))
    return log[:at] + dice.randbytes(dice.randint(1, 50)) + log[at:]


def _drop_line(log: bytes, dice: random.Random) -> bytes:
    lines = log.splitlines(keepends=True)
    del lines[dice.randrange(len(lines))]
    return b"".join(lines)


def _repeat_line(log: bytes, dice: random.Random) -> bytes:
    lines = log.splitlines(keepends=True)
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    return b"".join(lines)


def _swap_lines(log: bytes, dice: random.Random) -> bytes:
    lines = log.splitlines(keepends=True)
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _cut(log: bytes, dice: random.Random) -> bytes:
    lines = log.splitlines(keepends=True)
    return b"".join(lines[: dice.randrange(len(lines))])


def _renumber(log: bytes, dice: random.Random) -> bytes:
    """Close up behind a line that is taken out, as far as anybody can who has no key."""
    lines = log.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    gone = lines.pop(at)
    numbered = re.match(rb'\{"n":([0-9]{1,18}),', gone)
    first = int(numbered[1]) if numbered else at
    return b"".join(
        line.replace(b'{"n":%d,' % (first + number + 1), b'{"n":%d,' % (first + number), 1) if number >= 0 else line
        for number, line in enumerate(lines, -at)
    )


def _number(log: bytes, dice: random.Random) -> bytes:
    lines = log.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    number = dice.choice(NUMBERS + tuple(range(len(lines))))
    lines[at] = b'{"n":%b,' % _digits(number) + lines[at].partition(b",")[2]
    return b"".join(lines)


def _integer(log: bytes, dice: random.Random) -> bytes:
    """Put another number in the place of one that the log says of itself."""
    places = list(re.finditer(rb'(?<=":)-?[0-9]+', log))
    if not places:
        return log
    at = dice.choice(places).span()
    return log[: at[0]] + _digits(dice.choice(NUMBERS)) + log[at[1] :]


def _word(log: bytes, dice: random.Random) -> bytes:
    word = dice.choice(WORDS)
    parts = log.split(word)
    if len(parts) < 2:
        return log
    at = dice.randrange(1, len(parts))
    other = dice.choice((b"", b"x", word + word, b'"epoch"', b"{}", dice.choice(WORDS)))
    return word.join(parts[:at]) + other + word.join(parts[at:])


def _twice(log: bytes, dice: random.Random) -> bytes:
    """Give a payload a member twice: a parser sees one of the two."""
    lines = log.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    lines[at] = lines[at].replace(b'"d":{', b'"d":{"event":99,', 1)
    return b"".join(lines)


def _tag(log: bytes, dice: random.Random) -> bytes:
    """Give a record the tag of another."""
    lines = log.splitlines(keepends=True)
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one] = lines[one][:-46] + lines[other][-46:]
    return b"".join(lines)


def _graft(log: bytes, dice: random.Random) -> bytes:
    """Put in a line of another history of the same stream, which the same keys have sealed."""
    lines = log.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    lines[at : at + dice.randint(0, 1)] = [dice.choice(_OTHER)]
    return b"".join(lines)


EDITS: Final[dict[str, Edit]] = {
    "a bit": _bit,
    "bytes deleted": _delete,
    "bytes inserted": _insert,
    "a record deleted": _drop_line,
    "a record repeated": _repeat_line,
    "records exchanged": _swap_lines,
    "cut at a line": _cut,
    "deleted, and the others renumbered": _renumber,
    "a record's number": _number,
    "a number within a record": _integer,
    "a word": _word,
    "a member twice": _twice,
    "another record's tag": _tag,
    "a record of another history": _graft,
}


def _digits(number: int) -> bytes:
    """Return a number's digits; of the largest as many as a parser still takes."""
    return b"9" * 4000 if number > 10**20 else b"%d" % number


def _every_kind() -> bytes:
    """Return a closed file with records of every kind."""
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(4), START + 1) + sealer.clock_step(5000, START + 5001)
    sealer.end_epochs(2)
    log += sealer.epoch(START + 1_805_000) + sealer.seal(payloads(2), START + 1_805_001)
    log += sealer.control(Kind.CUT, {}, START + 1_805_001) + checkpointed(sealer, START + 1_805_002)
    log += sealer.rekey(session("two", START + 1_805_002), session_key("two"), START + 1_805_002)
    gone = {"files": [{"file": 7, "first": 1, "last": 2}], "reason": "kept for a year"}
    log += sealer.seal(payloads(2), START + 1_805_003) + sealer.control(Kind.RETENTION, gone, START + 1_805_003)
    log += sealer.resume(session("three", START + 1_805_004), session_key("three"), START + 1_805_004)
    log += sealer.control(Kind.RECOVERY, {"bytes": 0, "sha256": "e3b0c442" + "0" * 56}, START + 1_805_004)
    log += sealer.seal(payloads(2), START + 1_805_005)
    return log + sealer.control(Kind.CLOSE, {}, START + 1_805_006) + checkpointed(sealer, START + 1_805_006)


def _another_history() -> list[bytes]:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(20, 100), START + 1) + checkpointed(sealer)
    log += sealer.control(Kind.CLOSE, {}, START + 3) + checkpointed(sealer)
    return log.splitlines(keepends=True)


_OTHER: Final = _another_history()
