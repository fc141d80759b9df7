"""The tree over a log that lies in a table: what proofs of its growth are made from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from typing import Any, Final

from keystead.crypto.merkle import complete_subtrees, consistency_proof, leaf_hash, node_hash, root_of
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import FileHeader, Kind, MalformedRecordError
from keystead.ports import KeyStore

_LEVEL: Final = 12
"""Subtrees of so many levels are read at once, and remembered; higher ones are made from them."""
_MOST_KEPT: Final = 10_000


class TableTree:
    """The tree over a log in a table. Nothing of it is believed: who asked for a proof checks it.

    Args:
        wait: runs what reads the store, and waits for it.
        before: proofs are about records below this number; None for all.
        kept: roots of subtrees that were made from lines, which whoever keeps them gives to the next tree.
    """

    def __init__(
        self,
        store: KeyStore,
        wait: Callable[[Coroutine[Any, Any, Any]], Any],
        *,
        before: int | None = None,
        kept: MutableMapping[int, bytes] | None = None,
    ) -> None:
        self._store = store
        self._wait = wait
        self._before = before
        self._first: int | None = None
        self._known: dict[tuple[int, int], bytes] = {}
        self._kept = {} if kept is None else kept

    def proof(self, old: int, new: int) -> Sequence[bytes]:
        """Return the proof that the log of ``new`` records begins with its first ``old``; errors as ``subtree``."""
        return consistency_proof(old, new, self.subtree)

    def subtree(self, level: int, number: int) -> bytes:
        """Return the root of a complete subtree.

        Raises:
            InvalidInputError: records are missing for it.
        """
        if self._first is None:
            self._first = self._wait(self._begin())
        known = self._known.get((level, number))
        if known is not None:
            return known
        start, end = number << level, (number + 1) << level
        if level == _LEVEL and (kept := self._kept.get(number)) is not None:
            root = kept
        elif start >= self._first and level <= _LEVEL:
            root = self._of_lines(start, end)
            if level == _LEVEL and len(self._kept) < _MOST_KEPT:
                self._kept[number] = root
        elif level == 0:
            raise InvalidInputError("records that were moved away are needed for this proof")
        else:
            root = node_hash(self.subtree(level - 1, 2 * number), self.subtree(level - 1, 2 * number + 1))
        if level >= _LEVEL:
            self._known[level, number] = root
        return root

    def _of_lines(self, start: int, end: int) -> bytes:
        leaves: list[bytes] = []
        while start + len(leaves) < end:
            page = self._wait(self._page(start + len(leaves), end))
            if not page:
                raise InvalidInputError(f"the audit trail has no record {start + len(leaves)}")
            leaves += [leaf_hash(line) for line in page]
        return root_of(leaves)

    async def _page(self, start: int, end: int) -> list[bytes]:
        async with self._store.reading() as work:
            return await work.audit_lines(after=start - 1, before=end, limit=1 << _LEVEL)

    async def _begin(self) -> int:
        """Take what the files say of the records before them, and return the number of the first one."""
        async with self._store.reading() as work:
            first = await work.audit_records(limit=1)
            headers = await work.audit_controls(Kind.FILE.value, before=self._before, newest_first=True)
        for row in headers:
            try:
                _, header = FileHeader.of_line(row.line)
            except MalformedRecordError:
                continue
            self._known |= complete_subtrees(row.seq, header.roots)
        return first[0].seq if first else 0
