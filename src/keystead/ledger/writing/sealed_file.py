"""``SealedFile``: a log on disk that nobody can change without being seen.

with SealedFile("app.log", stream="example.org/app", kms="file:/run/kek") as log:
log.append(b'{"event":"started"}')
log.flush()                                      # on disk, whatever happens now
log.trust_policy().save("app.policy.json")       # for the reader: keep it away from the log
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from keystead.config import is_production
from keystead.errors import ConfigurationError, InvalidInputError, KMSError, SystemShutdownError
from keystead.ledger.format.records import LINE_END, NUL, is_stream_name, require_stream_name
from keystead.ledger.format.session_source import ChainedSessions, KmsSessions, SessionSource
from keystead.ledger.reading.policy import TrustPolicy
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner, name_for
from keystead.ledger.tlog.checkpoint_signers_kms import KmsCheckpointSigner
from keystead.ledger.writing.early_records import EarlyRecords
from keystead.ledger.writing.open_log import OpenLog
from keystead.ledger.writing.options import Fsync, LogOptions
from keystead.ledger.writing.sealer import BEGINNINGS
from keystead.ledger.writing.turns import Turn
from keystead.ledger.writing.witnessing import require_quorum, witness_keys
from keystead.ports import Clock, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime import exits, fork
from keystead.runtime.clock import SystemClock
from keystead.runtime.loop import background_loop

logger = logging.getLogger("keystead.ledger")

_LARGE_BYTES: Final = 1 << 12
"""A record of this size takes the log's lock, and everything before it to the disk."""


class SealedFile:
    """One stream, written by one process at a time. Synchronous and thread-safe; appending never waits for a KMS.

    Opening it draws a session key through the KMS, and goes on where the files end: after a crash what is left of a
    line is marked, and nothing is lost that ``flush`` had returned for. One that nobody closed is closed when the
    interpreter exits. A child of a fork writes a stream and files of its own, named after its parent's.

    Args:
        path: the file that is written. Those that have ended stand beside it: ``app.log.000001``.
        stream: the stream's name: an address without its scheme, such as ``example.org/app/audit``.
        kms: what wraps session keys: a URI as ``KeyManager.open`` takes it, or a provider with ``key_id``. None: tags
            without a key, for a ``signer`` in a KMS, whose checkpoints alone say who wrote.
        signer: what signs checkpoints; an Ed25519 key in ``<path>.key``, made at the first opening, unless given. A URI
            names a key in a KMS that signs or makes MACs.
        epoch_s: seconds after which the session key goes forward and the one before is erased.
        checkpoint_records, checkpoint_s: a checkpoint is made after so many records, or so many seconds with records.
        max_bytes: a file of about this size ends, and the next one begins.
        compress: files that have ended are compressed.
        fsync: ``flush`` puts on disk what flush, rotate and close have returned for, ``always`` every write, ``never``
            none: then a crash of the machine may take what was acknowledged.
        buffer_s: how long a record may wait in memory.
        on_kek_mismatch: ``raise`` where a KEK of this machine does not open what the log was sealed under last, or
            ``go_on`` under it, where the one before is lost: its records are then vouched for by checkpoints alone.
        on_kms_failure: ``raise`` when the KMS gives no session key, or ``chain``: seal without a key until it does, and
            say so loudly.
        witnesses: verifier keys of witnesses by their URLs; each is asked to cosign each checkpoint. One that is away
            holds nothing up. One that refuses because it has seen another history of the log is an error of
            ``checkpoint``, and of the log ``keystead.ledger``.
        quorum: of how many witnesses the policy asks for a cosignature.

    Raises:
        ConflictError: another process, or object, writes this log.
        KekMismatchError: the log was sealed under another KEK.
        ConfigurationError: what is there is no log of this stream, or an option cannot be.
        KMSError: the KMS gives no session key.
        StorageOperationError: the files cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stream: str,
        kms: str | KmsProvider | SessionSource | None,
        key_id: str | None = None,
        signer: str | CheckpointSigner | None = None,
        epoch_s: int = 900,
        checkpoint_records: int = 100_000,
        checkpoint_s: float = 60.0,
        max_bytes: int | None = None,
        compress: bool = False,
        fsync: Fsync = "flush",
        buffer_s: float = 0.1,
        on_kek_mismatch: Literal["raise", "go_on"] = "raise",
        on_kms_failure: Literal["raise", "chain"] = "raise",
        witnesses: Mapping[str, str | Sequence[str]] | None = None,
        quorum: int = 1,
        clock: Clock | None = None,
    ) -> None:
        require_stream_name(stream)
        self._options = LogOptions(
            epoch_s=epoch_s,
            checkpoint_records=checkpoint_records,
            checkpoint_s=checkpoint_s,
            max_bytes=max_bytes,
            compress=compress,
            fsync=fsync,
            buffer_s=buffer_s,
            chains_on_failure=on_kms_failure == "chain",
            goes_on_without_kek=on_kek_mismatch == "go_on",
            witnesses=witness_keys(witnesses),
            clock=clock or SystemClock(),
        )
        self._quorum = require_quorum(quorum, self._options.witnesses)
        self._source = source_of(kms, key_id)
        self._is_closed = self._is_child = False
        self._opens, self._early = Turn(Path(path).name, breaks=False), EarlyRecords()
        self._own_signer = KmsCheckpointSigner.open(signer, name_for(stream)) if isinstance(signer, str) else None
        signs = signer if not isinstance(signer, str) else self._own_signer
        try:
            self._log = OpenLog(Path(path).absolute(), stream, self._source, signs, self._options)
        except BaseException:
            self._give_back()
            raise
        self._ready: OpenLog | None = self._log
        fork.in_child(self._in_child)
        exits.to_write(self._end)

    def __repr__(self) -> str:
        state = "closed " if self._is_closed else ""
        return f"<SealedFile {state}{self._log.path.name!r} of {self._log.stream!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._live().path

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._live().stream

    @property
    def session_id(self) -> str | None:
        """The id of the session that is sealed in now; None in a child of a fork that has written nothing yet."""
        return None if self._is_child else self._log.session_id

    @property
    def unwitnessed(self) -> Mapping[str, KMSError]:
        """Why the last checkpoint lacks the cosignature of a witness, by its URL."""
        return dict(self._log.witnesses.failures)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._is_closed

    def append(self, record: bytes) -> None:
        """Append one JSON value on one line, as it is.

        Raises:
            InvalidInputError: it cannot be a record; ``append_text`` takes any text.
            StorageOperationError: the disk has taken nothing for too long; the record was not taken.
            SystemShutdownError: the log was closed.
            KMSError: in a child of a fork, whose log this begins, the KMS gives no session key. While another thread
                opens it, and on the loop that calls the KMS, a record is kept instead, for whoever opens it.
        """
        log = self._ready
        if log is None:
            self.append_many([record])
            return
        # Here and not in the log: another call would cost as much as all of this.
        is_small = record.__class__ is bytes and 0 < len(record) < _LARGE_BYTES and len(log.fresh) < log.most_fresh
        if is_small and record[0] in BEGINNINGS and LINE_END not in record and NUL not in record:
            log.fresh.append(record)
            if not log.is_told:
                log.tell()
        else:
            log.append_many([record])

    def append_many(self, records: Iterable[bytes]) -> None:
        """Append JSON values, all or none of them; errors as ``append``."""
        self._appends().append_many(list(records))

    def append_text(self, text: str) -> None:
        """Append any text, as a JSON string; errors as ``append``."""
        if not isinstance(text, str):
            raise InvalidInputError("append_text takes text; append takes the bytes of a JSON value")
        self.append(json.dumps(text).encode())

    def flush(self, *, waits: bool = True) -> bool:
        """Return once everything that was appended is written, and on disk unless ``fsync`` is ``never``.

        Where records are sealed without a key, a checkpoint is signed over them before it returns.

        Args:
            waits: False returns False where a signature by a KMS would have to be waited for, or the log of a forked
                child to be opened, or this code has interrupted the log: for code that the KMS's own client may call.

        Raises:
            StorageOperationError: the disk does not take it. It is kept, and written by a later attempt, unless the
                disk failed to keep what it took (fsync), or an exception of a signal's handler left sealing halfway:
                then the log is broken, takes no more, and has to be closed and opened anew.
            KMSError: records are sealed without a key, and the signing key's KMS does not sign.
        """
        if self._is_child and not self._is_closed and (self._early.is_empty or not waits):
            # What is the parent's is written there. Where records wait for a log, it is opened for them.
            return self._early.is_empty
        return self._live().flush(waits=waits)

    def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint: keep it where the log's writer cannot change it.

        Raises:
            KMSError: the signing key's KMS does not sign.
            InvalidProofError: a witness has seen another history of this log: it was put back, or there are two of it.
            StorageOperationError: the disk does not take it.
        """
        return self._live().checkpoint()

    def rotate(self) -> Path:
        """End the file and begin the next one; return the one that has ended.

        Raises:
            StorageOperationError: the next file cannot be made; what is appended waits until it can.
        """
        return self._live().rotate()

    def retire(self, files: Iterable[int], reason: str) -> None:
        """Remove files that have ended, by number, and leave a sealed and signed word of it, so that none is missing.

        Raises:
            InvalidInputError: a file that is not there, or has not ended; or no reason.
            KMSError, StorageOperationError: as ``checkpoint``, or a witness has not cosigned; nothing was removed.
        """
        self._live().retire(files, reason)

    def trust_policy(self) -> TrustPolicy:
        """Return what a reader of this log has to trust: save it, away from the log."""
        witnesses = [key for keys in self._options.witnesses.values() for key in keys]
        return TrustPolicy.of_writer(
            self._live().stream, self._source, self._live().signer, witnesses=witnesses, quorum=self._quorum
        )

    def close(self) -> None:
        """Write everything, sign that the stream is closed, erase the key; idempotent.

        Raises:
            StorageOperationError: the disk does not take it; it can be called again. Or the log is broken, and let go
                of: what had not been flushed may be lost, and opening it anew says so in the log.
        """
        if self._is_closed:
            return
        if self._is_child and self._early.is_empty:
            self._is_closed, self._ready = True, None
            return
        self._live()
        try:
            self._log.close()
        finally:
            if self._log.is_over:
                self._is_closed, self._ready = True, None
                self._give_back()

    def _end(self) -> None:
        """Close the log at the interpreter's exit, where nobody did."""
        try:
            self.close()
        except KMSError as exc:
            logger.critical("log %s was not closed at the exit, and may lack its end: %s", self._log.path.name, exc)

    def _give_back(self) -> None:
        self._source.close()
        if self._own_signer is not None:
            self._own_signer.close()

    def _appends(self) -> OpenLog | EarlyRecords:
        """Return what takes records: the log, or what keeps them where this thread must not wait for a log to open."""
        is_kept = self._is_child and not self._is_closed and (self._early.is_awaited or background_loop.is_here)
        return self._early if is_kept else self._live()

    def _live(self) -> OpenLog:
        if self._is_closed:
            raise SystemShutdownError(f"the log {self._log.path.name} was closed")
        if self._is_child:
            self._opens.settle()
            with self._opens.lock, self._opens:
                self._open_own()
        return self._log

    def _open_own(self) -> None:
        """Begin the log of a child of a fork, unless another thread has."""
        if self._is_child:
            name, parent = secrets.token_hex(4), self._log
            stream = f"{parent.stream}/{name}"
            if not is_stream_name(stream):
                raise ConfigurationError(
                    f"the log of a forked worker is named after its parent's, and {stream} is longer than the 255 "
                    "bytes that a name may have: give the log a shorter one"
                )
            path = parent.path.with_name(f"{parent.path.stem}-{name}{parent.path.suffix}")
            self._early.is_awaited = True
            try:
                log = OpenLog(path, stream, self._source, parent.signer, self._options)
            finally:
                self._early.is_awaited = False
            self._early.hand_over(log)
            self._log, self._is_child, self._ready = log, False, log

    def _in_child(self) -> None:
        # Nothing of the parent's is written here: neither what waited there, nor into its files.
        self._log.forget()
        self._opens, self._early = Turn(self._log.path.name, breaks=False), EarlyRecords()
        self._is_child, self._ready = True, None


def source_of(kms: str | KmsProvider | SessionSource | None, key_id: str | None) -> SessionSource:
    """Return where a log's sessions come from."""
    if kms is None:
        return ChainedSessions()
    if isinstance(kms, str):
        opened = open_provider(kms, ProviderSettings(production=is_production()))
        guarded = GuardedProvider(opened.provider, opened.name)
        return KmsSessions(guarded, key_id or opened.default_key_id or "", uri=kms, owns_provider=True)
    if isinstance(kms, KmsProvider):
        return KmsSessions(kms, key_id or "")
    return kms
