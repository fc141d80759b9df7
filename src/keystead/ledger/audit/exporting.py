"""Checkpoints that leave the database: into a file, and to witnesses. Only those make a lost end of the log seen."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from keystead.crypto.merkle import consistency_proof, leaf_hash, node_hash, root_of
from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidSignatureError,
    KMSError,
    StorageOperationError,
)
from keystead.ledger.format.records import FileHeader, Kind, MalformedRecordError, parse_line, parse_payload
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import MAX_NOTE_BYTES, Note
from keystead.ledger.witness.client import cosigned, with_cosignatures
from keystead.ports import KeyStore

log = logging.getLogger("keystead.audit")

_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness that is asked to cosign checkpoints: where it is, and the key that it signs with."""

    url: str
    key: WitnessKey

    @classmethod
    def parse(cls, url: str, vkey: str) -> Self:
        """Return the witness at a URL; ``InvalidInputError`` for what is no verifier key."""
        return cls(url, WitnessKey.parse(vkey))


class Exporter:
    """Takes each checkpoint that was committed out of the database, the latest one if they come faster than it can.

    Args:
        file: where the last checkpoint is kept; a newer one of the same log is never written over.
    """

    def __init__(self, store: KeyStore, *, file: Path | None = None, witnesses: Sequence[Witness] = ()) -> None:
        self._store = store
        self._file = file
        self._witnesses = tuple(witnesses)
        self._latest: bytes | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[str, int] = {}

    def __call__(self, note: bytes) -> None:
        """Export a checkpoint, beside everything else."""
        if self._file is None and not self._witnesses:
            return
        self._latest = note
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="keystead-audit-export")

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is under way, and give it up after ``timeout_s``."""
        task, self._task = self._task, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    def forget(self) -> None:
        """Forget what is under way, in a child of a fork."""
        self._task = self._latest = None

    async def _work(self) -> None:
        while self._latest is not None:
            note, self._latest = self._latest, None
            try:
                await self._export(note)
            except (KMSError, OSError) as exc:
                log.warning("a checkpoint of the audit trail was not exported: %s", getattr(exc, "code", "file"))
            except Exception:
                log.exception("a checkpoint of the audit trail was not exported")

    async def _export(self, note: bytes) -> None:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        is_seen, loop = False, asyncio.get_running_loop()
        for witness in self._witnesses:
            try:
                signatures = await asyncio.to_thread(self._cosigned, note, checkpoint, witness, loop)
            except KMSError as exc:
                # A witness that refuses has seen another log: louder than one that is away.
                level = logging.WARNING if exc.retryable else logging.ERROR
                log.log(level, "a witness did not cosign the audit trail: %s", exc.code)
                continue
            note, is_seen = with_cosignatures(note, signatures), True
            self._seen[witness.url] = checkpoint.size
        if self._file is not None:
            await asyncio.to_thread(keep_checkpoint, self._file, note)
            is_seen = True
        if is_seen:
            async with self._store.transaction() as work:
                await work.note_audit_export(checkpoint.size)

    def _cosigned(
        self, note: bytes, checkpoint: Checkpoint, witness: Witness, loop: asyncio.AbstractEventLoop
    ) -> Sequence[Any]:
        def proof(old: int) -> Sequence[bytes]:
            tree = TableTree(self._store, lambda read: asyncio.run_coroutine_threadsafe(read, loop).result())
            return consistency_proof(old, checkpoint.size, tree.subtree)

        return cosigned(note, witness.url, [witness.key], proof, old=self._seen.get(witness.url, 0))


class TableTree:
    """The tree over a log in a table. Nothing of it is believed: who asked for a proof checks it.

    Args:
        wait: runs what reads the store, and waits for it.
    """

    def __init__(self, store: KeyStore, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._store = store
        self._wait = wait
        self._first: int | None = None
        self._known: dict[tuple[int, int], bytes] = {}

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
        if start >= self._first:
            return self._of_lines(start, end)
        if level == 0:
            raise InvalidInputError("records that were moved away are needed for this proof")
        return node_hash(self.subtree(level - 1, 2 * number), self.subtree(level - 1, 2 * number + 1))

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
            rows = await work.audit_records(after=start - 1, before=end, limit=_PAGE)
        return [row.line for row in rows]

    async def _begin(self) -> int:
        """Take what the files say of the records before them, and return the number of the first one."""
        async with self._store.reading() as work:
            first = await work.audit_records(limit=1)
            headers = await work.audit_controls(Kind.FILE.value, newest_first=True)
        for row in headers:
            try:
                header = FileHeader.of(parse_payload(parse_line(row.line).payload))
            except MalformedRecordError:
                continue
            self._known |= _subtrees(row.seq, header.roots)
        return first[0].seq if first else 0


def keep_checkpoint(path: Path, note: bytes) -> None:
    """Write a checkpoint to a file, unless that has a later one of the same log; on disk when this returns.

    Raises:
        ConfigurationError: the file cannot be written, or is no checkpoint.
        StorageOperationError: it has a later one: the log was put back to an earlier state.
    """
    new = Checkpoint.parse(Note.parse(note).text)
    old = read_checkpoint(path)
    if old is not None and old.origin == new.origin and old.size > new.size:
        raise StorageOperationError(
            f"{path} has a checkpoint over {old.size} records, and the log has {new.size}: it was put back to an "
            "earlier state. Keep that file, and verify the trail with it (--since-checkpoint)"
        )
    staged = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with staged.open("wb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except OSError as exc:
        raise ConfigurationError(f"the checkpoint file {path} cannot be written: {exc.strerror}") from None


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a file, None where there is no file. Whose it is, is not looked at.

    Raises:
        ConfigurationError: it cannot be read, or is no checkpoint.
    """
    try:
        content = path.read_bytes()[: MAX_NOTE_BYTES + 1]
        return Checkpoint.parse(Note.parse(content).text)
    except FileNotFoundError:
        return None
    except (OSError, InvalidSignatureError):
        raise ConfigurationError(f"{path} is no checkpoint of a log: name another file for them") from None


def _subtrees(size: int, roots: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """Return the complete subtrees over the first ``size`` records, by level and number."""
    found: dict[tuple[int, int], bytes] = {}
    at, remaining = 0, iter(roots)
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found[level, at >> level] = next(remaining, b"")
            at += 1 << level
    return found
