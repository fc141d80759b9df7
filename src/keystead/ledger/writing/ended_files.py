"""The files of a log that have ended: compressed, and removed when they are retired."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keystead.errors import InvalidInputError
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.tlog.note import NoteKey
from keystead.ledger.writing.resuming import span_of
from keystead.ledger.writing.retaining import merged, removals_in
from keystead.ledger.writing.sealer import require_control


class EndedFiles:
    """Compresses and removes files. Thread-safe.

    Args:
        compresses: whether they are compressed, those of an earlier process as well, which had no time for it.
    """

    def __init__(self, files: LogFiles, stream: str, *, compresses: bool) -> None:
        self._files = files
        self._stream = stream
        self._compresses = compresses
        self._turn = threading.Lock()
        self._plain = [each for each in files.ended().values() if each.suffix != ".gz"] if compresses else []

    @property
    def has_work(self) -> bool:
        """Whether there are files to compress."""
        return bool(self._plain)

    def add(self, path: Path) -> None:
        """Take a file that has just ended."""
        if self._compresses:
            self._plain.append(path)

    def compress(self) -> None:
        """Compress what there is to compress.

        Raises:
            StorageOperationError: there is no room for it; the file stays as it was.
        """
        while self._plain:
            with self._turn:
                path = self._plain.pop()
                # Unless it was retired meanwhile.
                if path.exists():
                    self._files.compress(path)

    def removals(self, numbers: Sequence[int], reason: str, keys: Sequence[NoteKey]) -> list[dict[str, Any]]:
        """Return what the log has to say before files are removed.

        Raises:
            InvalidInputError: a file that is not there, or has not ended; no reason, or one that is too long; or one
                says which files were removed before it, and no checkpoint by one of ``keys`` vouches for that.
        """
        with self._turn:
            ended = self._files.ended()
            if not numbers or not reason or any(number not in ended for number in numbers):
                raise InvalidInputError(f"a removal names files that have ended ({list(ended)}), and its reason")
            going = [ended[number] for number in numbers]
            removals = removals_in(going, self._stream, keys)
            spans = [span_of(file, self._stream) for file in going]
        told = [{"file": number, **span} for number, span in zip(numbers, spans, strict=True)]
        removals.setdefault(reason, []).extend(told)
        payloads = merged(removals)
        for payload in payloads:
            require_control(payload)
        return payloads

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove files, once that is written and signed.

        Raises:
            StorageOperationError: one cannot be removed.
        """
        with self._turn, self._files.failing("be removed"):
            for number in numbers:
                self._files.remove(number)
            self._files.sync_folder()
