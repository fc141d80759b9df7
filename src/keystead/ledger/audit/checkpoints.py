"""When a trail's checkpoints are made, and signed without holding anything up. Spec: docs/spec/audit-v1.md, 3.6.

A key of this process signs at once. One that somebody else keeps takes its time: the log says where the checkpoint is
to stand, the signature is asked for beside everything else, and put into the log when it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keystead.errors import KMSError
from keystead.ledger.audit.chain import Chain
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ledger.tlog.note import NoteKey, NoteSignature
from keystead.ports import Clock

log = logging.getLogger("keystead.audit")

RETRY_S: Final = 30.0
"""How long after a signature that a KMS has refused the next one is asked for."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was put into a chain: a checkpoint and its note, or the announcement of one."""

    checkpoint: Checkpoint
    note: bytes | None = None


class Checkpoints:
    """Makes the checkpoints of the chain that this process seals.

    Args:
        signer: signs; given the stream's name.
        records, seconds: a checkpoint is due after so many records, or so long with any.
    """

    def __init__(
        self, signer: Callable[[str], CheckpointSigner], clock: Clock, *, records: int, seconds: float
    ) -> None:
        self._signer_of = signer
        self._clock = clock
        self._records = records
        self._seconds = seconds
        self._signer: CheckpointSigner | None = None
        self._covered = 0
        self._due_at = 0.0
        self._announced: Checkpoint | None = None
        self._signing: asyncio.Task[NoteSignature] | None = None
        self._ask_at = 0.0
        self._wants_another = False

    async def keys(self, stream: str) -> tuple[NoteKey, ...]:
        """Return the keys that readers of the stream trust.

        Raises:
            KMSError: the KMS of the signer does not tell.
        """
        signer = self._of(stream)
        return signer.keys if not signer.is_remote else await asyncio.to_thread(lambda: signer.keys)

    def begin(self, covered: int) -> None:
        """Begin with a chain of which ``covered`` records have been signed."""
        self.forget()
        self._covered = covered
        self._due_at = self._clock.monotonic() + self._seconds

    def has_work(self, chain: Chain) -> bool:
        """Whether something is to be put into the chain although no entry waits."""
        if self._announced is not None:
            return self._is_signed() or self._should_ask()
        return self._is_due(chain)

    def put(self, chain: Chain, *, is_asked: bool) -> Made | None:
        """Put into a chain what is due, or was asked for.

        Raises:
            KMSError: a key of this process cannot sign now.
        """
        if self._announced is not None:
            # Who asks now is not served by what was announced before.
            self._wants_another |= is_asked
            return self._put_signed(chain)
        if not is_asked and not self._is_due(chain):
            return None
        signer = self._of(chain.stream)
        if signer.is_remote:
            return Made(chain.cut())
        checkpoint = chain.checkpoint()
        return Made(checkpoint, chain.put_checkpoint(checkpoint, signer.sign(checkpoint.text())))

    async def put_behind_end(self, chain: Chain) -> Made | None:
        """Put a checkpoint behind the end of a file; None where the KMS does not sign it."""
        checkpoint, signer = chain.checkpoint(), self._of(chain.stream)
        try:
            if signer.is_remote:
                signature = await asyncio.to_thread(signer.sign, checkpoint.text())
            else:
                signature = signer.sign(checkpoint.text())
        except KMSError as exc:
            log.warning("a file of the audit trail ends without a checkpoint: %s", exc.code)
            return None
        return Made(checkpoint, chain.put_checkpoint(checkpoint, signature))

    def kept(self, made: Made | None, chain: Chain) -> None:
        """Note that what was put into the chain has been committed."""
        if made is None:
            return
        self._due_at = self._clock.monotonic() + self._seconds
        if made.note is None:
            self._announced, self._ask_at = made.checkpoint, 0.0
            self._should_ask()
            return
        if made.checkpoint == self._announced:
            self._announced = self._signing = None
        self._covered = chain.size
        if self._wants_another:
            self._wants_another, self._due_at, self._covered = False, 0.0, 0

    def forget(self) -> None:
        """Give up the chain."""
        signing, self._signing = self._signing, None
        self._announced = None
        if signing is not None and not signing.done():
            signing.cancel()

    def _put_signed(self, chain: Chain) -> Made | None:
        signing, announced = self._signing, self._announced
        if announced is None or signing is None or not signing.done():
            self._should_ask()
            return None
        try:
            return Made(announced, chain.put_checkpoint(announced, signing.result()))
        except (KMSError, asyncio.CancelledError) as exc:
            log.warning("a checkpoint of the audit trail could not be signed: %s", getattr(exc, "code", "cancelled"))
            self._signing, self._ask_at = None, self._clock.monotonic() + RETRY_S
            return None

    def _is_signed(self) -> bool:
        return self._signing is not None and self._signing.done()

    def _should_ask(self) -> bool:
        """Ask for the signature that was announced, if that is to be done now. Returns False: nothing is there yet."""
        announced = self._announced
        if announced is not None and self._signing is None and self._clock.monotonic() >= self._ask_at:
            signer = self._of(announced.origin)
            self._signing = asyncio.ensure_future(asyncio.to_thread(signer.sign, announced.text()))
        return False

    def _is_due(self, chain: Chain) -> bool:
        waiting = chain.size - self._covered
        is_late = self._clock.monotonic() >= self._due_at
        return waiting >= self._records or (waiting > 0 and is_late)

    def _of(self, stream: str) -> CheckpointSigner:
        if self._signer is None:
            self._signer = self._signer_of(stream)
        return self._signer
