"""``SealedFile``: a log on disk that nobody can change without being seen.

with SealedFile("app.log", stream="example.org/app", kms="file:/run/kek") as log:
log.append(b'{"event":"started"}')
log.flush()                                      # on disk, whatever happens now
log.trust_policy().save("app.policy.json")       # for the reader: keep it away from the log
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from keystead.config import is_production
from keystead.errors import ConfigurationError, InvalidInputError, SystemShutdownError
from keystead.ledger.checkpoint_signers import CheckpointSigner, name_for
from keystead.ledger.checkpoint_signers_kms import KmsCheckpointSigner
from keystead.ledger.open_log import Fsync, LogOptions, OpenLog
from keystead.ledger.policy import TrustPolicy
from keystead.ledger.records import require_stream_name
from keystead.ledger.sealer import require_payload
from keystead.ledger.session_source import ChainedSessions, KmsSessions, SessionSource
from keystead.ports import Clock, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime import fork
from keystead.runtime.clock import SystemClock

MIN_FILE_BYTES = 4096


class SealedFile:
    """One stream, written by one process at a time. Synchronous and thread-safe; appending never waits for a KMS.

    Opening it draws a session key through the KMS, and goes on where the files end: after a crash what is left of a
    line is marked, and nothing is lost that ``flush`` had returned for. A child of a fork writes a stream and files of
    its own, named after its parent's.

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
        on_kms_failure: ``raise`` when the KMS gives no session key, or ``chain``: seal without a key until it does, and
            say so loudly.

    Raises:
        ConflictError: another process, or object, writes this log.
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
        on_kms_failure: Literal["raise", "chain"] = "raise",
        clock: Clock | None = None,
    ) -> None:
        require_stream_name(stream)
        if epoch_s < 1 or checkpoint_records < 1 or not checkpoint_s > 0 or not buffer_s > 0:
            raise ConfigurationError("epoch_s, checkpoint_records, checkpoint_s and buffer_s are above zero")
        if max_bytes is not None and max_bytes < MIN_FILE_BYTES:
            raise ConfigurationError(f"max_bytes is at least {MIN_FILE_BYTES}")
        self._options = LogOptions(
            clock or SystemClock(),
            epoch_s,
            checkpoint_records,
            checkpoint_s,
            max_bytes,
            compress,
            fsync,
            buffer_s,
            on_kms_failure == "chain",
        )
        self._source = source_of(kms, key_id)
        self._is_closed = self._is_child = False
        self._own_signer = KmsCheckpointSigner.open(signer, name_for(stream)) if isinstance(signer, str) else None
        signs = signer if not isinstance(signer, str) else self._own_signer
        try:
            self._log = OpenLog(Path(path).absolute(), stream, self._source, signs, self._options)
        except BaseException:
            self._give_back()
            raise
        fork.in_child(self._in_child)

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
    def session_id(self) -> str:
        """The id of the session that records are sealed in now; a rekey begins another."""
        return self._live().session_id

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
        """
        require_payload(record)
        self._live().append(record)

    def append_many(self, records: Iterable[bytes]) -> None:
        """Append JSON values, all or none of them; errors as ``append``."""
        taken = list(records)
        for record in taken:
            require_payload(record)
        self._live().append_many(taken)

    def append_text(self, text: str) -> None:
        """Append any text, as a JSON string; errors as ``append``."""
        if not isinstance(text, str):
            raise InvalidInputError("append_text takes text; append takes the bytes of a JSON value")
        self.append(json.dumps(text).encode())

    def flush(self, *, waits: bool = True) -> bool:
        """Return once everything that was appended is written, and on disk unless ``fsync`` is ``never``.

        Args:
            waits: False returns False where the end of a file is being signed by a KMS, instead of waiting for that:
                for code that the KMS's own client may call.

        Raises:
            StorageOperationError: the disk does not take it. It is kept, and written by a later attempt.
        """
        return self._live().flush(waits=waits)

    def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint: keep it where the log's writer cannot change it.

        Raises:
            KMSError: the signing key's KMS does not sign.
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
            KMSError, StorageOperationError: as ``checkpoint``; nothing was removed.
        """
        self._live().retire(files, reason)

    def trust_policy(self) -> TrustPolicy:
        """Return what a reader of this log has to trust: save it, away from the log."""
        return TrustPolicy.of_writer(self._live().stream, self._source, self._live().signer)

    def close(self) -> None:
        """Write everything, sign that the stream is closed, erase the key; idempotent.

        Raises:
            StorageOperationError: the disk does not take it; it can be called again.
        """
        if self._is_closed:
            return
        if not self._is_child:
            self._log.close()
            self._give_back()
        self._is_closed = True

    def _give_back(self) -> None:
        self._source.close()
        if self._own_signer is not None:
            self._own_signer.close()

    def _live(self) -> OpenLog:
        if self._is_closed:
            raise SystemShutdownError(f"the log {self._log.path.name} was closed")
        if self._is_child:
            name, parent = secrets.token_hex(4), self._log
            path = parent.path.with_name(f"{parent.path.stem}-{name}{parent.path.suffix}")
            self._log = OpenLog(path, f"{parent.stream}/{name}", self._source, parent.signer, self._options)
            self._is_child = False
        return self._log

    def _in_child(self) -> None:
        # Nothing of the parent's is written here: neither what waited there, nor into its files.
        self._log.forget()
        self._is_child = True


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
