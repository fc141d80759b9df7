"""Checkpoints that leave the database: into a file, and to witnesses. Only those make a lost end of the log seen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from keystead.errors import ConfigurationError, KMSError
from keystead.ledger.audit.kept_file import LogChangedError, Proof, keep_checkpoint, require_continued
from keystead.ledger.audit.table_tree import TableTree
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import Note
from keystead.ledger.witness.client import cosigned, with_cosignatures
from keystead.ports import KeyStore

log = logging.getLogger("keystead.audit")


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
        file: where the last checkpoint is kept; only one of a log that continues it is written over it.
    """

    def __init__(self, store: KeyStore, *, file: Path | None = None, witnesses: Sequence[Witness] = ()) -> None:
        self._store = store
        self._file = file
        self._witnesses = tuple(witnesses)
        self._latest: bytes | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[str, int] = {}
        self._tree: TableTree | None = None

    def __call__(self, note: bytes) -> None:
        """Export a checkpoint, beside everything else."""
        if self._file is None and not self._witnesses:
            return
        self._latest = note
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="keystead-audit-export")

    async def examine(self, log_now: Checkpoint) -> LogChangedError | None:
        """Return what is wrong with a log, given the checkpoint that was kept in the file; said in the log as well.

        Raises:
            KMSError: the store does not answer.
        """
        if self._file is None:
            return None
        try:
            await self._proving(partial(require_continued, self._file, log_now))
        except (LogChangedError, ConfigurationError) as exc:
            _say("the audit trail is not what its kept checkpoint says", exc)
            return exc if isinstance(exc, LogChangedError) else None
        return None

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
        self._task = self._latest = self._tree = None

    async def _work(self) -> None:
        while self._latest is not None:
            note, self._latest = self._latest, None
            try:
                await self._export(note)
            except (LogChangedError, ConfigurationError) as exc:
                _say("a checkpoint of the audit trail was not exported", exc)
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
            await self._proving(partial(keep_checkpoint, self._file, note))
            is_seen = True
        if is_seen:
            async with self._store.transaction() as work:
                await work.note_audit_export(checkpoint.size)

    def _cosigned(
        self, note: bytes, checkpoint: Checkpoint, witness: Witness, loop: asyncio.AbstractEventLoop
    ) -> Sequence[Any]:
        tree = table_tree(self._store, loop)
        return cosigned(
            note,
            witness.url,
            [witness.key],
            lambda old: tree.proof(old, checkpoint.size),
            old=self._seen.get(witness.url, 0),
        )

    async def _proving(self, check: Callable[[Proof], object]) -> None:
        """Run what takes proofs, beside the loop; anew with nothing remembered, if they did not convince it.

        What is remembered of the table is of no harm, since proofs are checked, and of no use once records are moved.
        """
        known, loop = self._tree, asyncio.get_running_loop()
        if known is not None:
            with contextlib.suppress(LogChangedError):
                await asyncio.to_thread(check, known.proof)
                return
        self._tree = tree = table_tree(self._store, loop)
        await asyncio.to_thread(check, tree.proof)


def table_tree(
    store: KeyStore,
    loop: asyncio.AbstractEventLoop,
    *,
    before: int | None = None,
    kept: MutableMapping[int, bytes] | None = None,
) -> TableTree:
    """Return the tree over a store's log, for a thread that waits for what the store answers on ``loop``.

    Args:
        before, kept: as ``TableTree``.
    """

    def wait(read: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(read, loop).result()

    return TableTree(store, wait, before=before, kept=kept)


async def keep_in_file(store: KeyStore, file: Path, note: bytes) -> None:
    """Write a checkpoint of a store's log to a file, and note that in the store; errors as ``keep_checkpoint``."""
    tree = table_tree(store, asyncio.get_running_loop())
    await asyncio.to_thread(keep_checkpoint, file, note, tree.proof)
    async with store.transaction() as work:
        await work.note_audit_export(Checkpoint.parse(Note.parse(note).text).size)


def _say(what: str, exc: KMSError) -> None:
    log.error("%s: %s", what, exc)
