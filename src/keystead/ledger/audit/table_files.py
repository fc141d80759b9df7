"""The log in a table, read as the files that it consists of; and files that were moved away, with their entries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from keystead.ledger.audit.inspecting import TABLE, Inspector
from keystead.ledger.reading.lines import Batch, LogFile
from keystead.ports import AuditLogRow

Pages = Callable[[int], list[AuditLogRow]]
"""Returns the records that follow a number, as many as are read at once; none at the end."""

_FILE: Final = re.compile(rb'\{"n":[0-9]+,"t":[0-9]+,"k":"file",')
_LINES: Final = 1000


class TableFile(LogFile):
    """One file of the log in a table. It can be read once, after the one before it."""

    def __init__(self, rows: _Rows, number: int) -> None:
        super().__init__(Path(f"{TABLE}/{number}"))
        self._rows = rows

    def batches(self) -> Iterator[Batch]:
        """Yield the lines of the file."""
        line, offset = 1, 0
        while lines := self._rows.lines(is_first=line == 1):
            yield Batch(line, offset, lines)
            line += len(lines)
            offset += sum(map(len, lines)) + len(lines)

    @property
    def is_compressed(self) -> bool:
        """Return False."""
        return False

    def digest(self, start: int, end: int) -> str:
        """Return nothing that anything could be compared with: a table holds no halves of records."""
        return ""


class InspectedFile(LogFile):
    """A file that was moved away; its entries are looked at as well."""

    def __init__(self, path: Path, inspector: Inspector, progress: Callable[[int], object] | None = None) -> None:
        super().__init__(path, progress)
        self._inspector = inspector
        self._is_read = False

    def batches(self) -> Iterator[Batch]:
        """Yield the lines of the file."""
        is_first, self._is_read = not self._is_read, True
        for batch in super().batches():
            for line in batch.lines if is_first else ():
                self._inspector.take_line(line)
            yield batch


class _Rows:
    """Records one after the other, cut where files begin."""

    def __init__(self, pages: Pages, inspector: Inspector, after: int) -> None:
        self._pages = pages
        self._inspector = inspector
        self._after = after
        self._page: list[AuditLogRow] = []
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        if self._at == len(self._page):
            self._page, self._at = self._pages(self._after), 0
            if self._page:
                self._after = self._page[-1].seq
        return not self._page

    def lines(self, *, is_first: bool) -> list[bytes]:
        """Return the lines that follow in the file at hand; none at its end."""
        if self.is_empty:
            return []
        begin = self._at
        end = min(begin + _LINES, len(self._page))
        lines: list[bytes] = []
        for row in self._page[begin:end]:
            if _FILE.match(row.line) and not (is_first and not lines):
                break
            self._inspector.take_row(row)
            lines.append(row.line)
        self._at += len(lines)
        return lines


def table_files(pages: Pages, inspector: Inspector, *, after: int = -1) -> Iterator[TableFile]:
    """Yield the files in a table, from the record after a number on; each has to be read before the next."""
    rows = _Rows(pages, inspector, after)
    number = 0
    while not rows.is_empty:
        number += 1
        yield TableFile(rows, number)
        # Of a file that does not begin as one does the reader looks at nothing more.
        while rows.lines(is_first=False):
            pass
