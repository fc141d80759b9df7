"""The records of the application that follow one another: checked in a loop that does nothing else."""

from __future__ import annotations

from binascii import b2a_base64
from typing import Final

from keystead.crypto.merkle import BATCH, Frontier, new_leaf
from keystead.ledger.format.records import TAIL_BYTES
from keystead.ledger.format.tags import Tagger
from keystead.ledger.reading.sessions import OpenSession

_BEGIN: Final = b'{"n":%%d,"t":%d,"d":'
_LONGEST_TIME: Final = 16
_ZERO: Final = 0x30


class Run:
    """Where a stream has come to: the next record's number, the last one's tag and time, and the tree over all."""

    __slots__ = ("leaves", "number", "tag", "time_ms", "tree")

    def __init__(self, number: int, tag: bytes, time_ms: int, tree: Frontier, leaves: list[bytes]) -> None:
        self.number = number
        self.tag = tag
        self.time_ms = time_ms
        self.tree = tree
        self.leaves = leaves

    def take(self, lines: list[bytes], session: OpenSession, tagger: Tagger) -> int:
        """Take lines for as long as nothing is unusual in them; return how many."""
        taken = 0
        while taken < len(lines):
            before = self.number
            self._take_some(lines[taken : taken + BATCH - len(self.leaves)], session, tagger)
            taken += self.number - before
            if len(self.leaves) < BATCH:
                break
            self.tree.extend(self.leaves)
            self.leaves.clear()
        return taken

    def _take_some(self, lines: list[bytes], session: OpenSession, tagger: Tagger) -> None:
        inner, outer = tagger.inner, tagger.outer
        number, tag, last, leaves = self.number, self.tag, self.time_ms, self.leaves
        begin, time_ms = _BEGIN % last, last
        for line in lines:
            if not line.startswith(begin % number):
                found_ms = _time_of(line, number)
                if found_ms is None or not (last < found_ms and session.low_ms <= found_ms <= session.high_ms):
                    break
                begin, time_ms = _BEGIN % found_ms, found_ms
            within = inner()
            within.update(tag + line[:-TAIL_BYTES])
            found = within.digest()
            if outer is not None:
                around = outer()
                around.update(found)
                found = around.digest()
            if not line.endswith(b',"m":"%.43b"}' % b2a_base64(found)):
                break
            tag, last = found, time_ms
            leaf = new_leaf()
            leaf.update(line)
            leaves.append(leaf.digest())
            number += 1
        self.number, self.tag, self.time_ms = number, tag, last


def _time_of(line: bytes, number: int) -> int | None:
    """Return the time of a record of the application, None where the line is none of this number."""
    begin = b'{"n":%d,"t":' % number
    size = len(begin)
    until = line.find(b',"d":', size, size + _LONGEST_TIME + 5)
    digits = line[size:until]
    is_time = until >= 0 and digits.isdigit() and digits[0] != _ZERO  # no leading zero
    return int(digits) if is_time and line.startswith(begin) else None
