"""The sessions of a log that is open: the first one, and when another is due."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Final

from keystead.errors import ConfigurationError, KekMismatchError, KMSError
from keystead.ledger.format.records import MalformedRecordError, Session
from keystead.ledger.format.session_source import ChainedSessions, KmsSessions, SessionSource
from keystead.ledger.format.tags import SESSION_KEY_SIZE
from keystead.ledger.writing.options import LogOptions
from keystead.ledger.writing.writer import LogWriter
from keystead.model import EncryptedData

log = logging.getLogger("keystead.ledger")

_RETRY_S: Final = 30.0
"""How long a KMS that did not say whether its key was rotated is left alone."""


class LogSessions:
    """Draws a log's sessions; every method blocks for as long as a KMS takes.

    Attributes:
        is_fallback: a session has no key only for as long as the KMS gives none.
    """

    def __init__(self, source: SessionSource, path: Path, stream: str, options: LogOptions) -> None:
        self._source = source
        self._path = path
        self._stream = stream
        self._options = options
        self._asks_again_at = 0.0
        self.is_fallback = not isinstance(source, ChainedSessions)

    def first(self, start_ms: int, before: Session | None) -> tuple[Session, bytes | None]:
        """Return the session that a log is opened in, and its key.

        Args:
            before: the last one of the log that has a key.

        Raises:
            KekMismatchError: that was sealed under another KEK, and nothing else was asked for.
            KMSError: the KMS gives none, and nothing else was asked for.
        """
        if before is not None and not self._options.goes_on_without_kek:
            self._require_kek(before)
        try:
            return self._draw(start_ms)
        except KMSError as exc:
            if not self._options.chains_on_failure:
                raise
            told = f"the log {self._stream} is sealed without a key, since the KMS gives none ({exc.code})"
            warnings.warn(f"{told}; until it does, only checkpoints say who wrote", stacklevel=5)
            log.warning("a log is sealed without a key: %s", exc.code, extra={"stream": self._stream})
            return ChainedSessions().draw(self._stream, epoch_s=0, start_ms=start_ms)

    def following(self, writer: LogWriter) -> tuple[Session, bytes | None, float] | None:
        """Return another session, where the KMS key was rotated, or the writer's has no key or no further epoch.

        With it, and its key, what the monotonic clock said where it starts.

        Raises:
            KMSError: the KMS gives none, or does not say whether its key was rotated.
        """
        is_chained = self.is_fallback and writer.sealer.session.key is None
        if not (is_chained or writer.needs_rekey or self._has_rotated()):
            return None
        start_ms, started_s = writer.moment()
        return *self._draw(start_ms), started_s

    def _require_kek(self, before: Session) -> None:
        """Refuse to go on under another KEK: under two of one name no reader can open all sessions."""
        try:
            encrypted = EncryptedData.parse(before.key or "")
        except KMSError:
            return  # a line that was changed: the reader finds it
        if isinstance(self._source, KmsSessions) and self._source.refuses(encrypted, before, self._stream):
            kek = encrypted.key_reference
            raise KekMismatchError(
                f"the log {self._path} was sealed under another KEK than {self._source.uri or 'the one at hand'}: "
                f"{kek.provider}:{kek.key_id}, version {kek.key_version}, which that one does not hold. Give the KEK "
                "that it was sealed under; keep it behind the new one where it was replaced; where it is lost begin "
                "another log, or open this one with on_kek_mismatch='go_on' (--on-kek-mismatch go_on)"
            )

    def _has_rotated(self) -> bool:
        if time.monotonic() < self._asks_again_at:
            return False
        try:
            return self._source.has_rotated()
        except KMSError:
            self._asks_again_at = time.monotonic() + _RETRY_S
            raise

    def _draw(self, start_ms: int) -> tuple[Session, bytes | None]:
        session, key = self._source.draw(self._stream, epoch_s=self._options.epoch_s, start_ms=start_ms)
        _require_possible(session, key)
        return session, key


def _require_possible(session: Session, key: bytes | None) -> None:
    """Refuse a session that no reader would take, before anything is sealed in it.

    Raises:
        ConfigurationError: the source is at fault.
    """
    try:
        Session.of(session.as_dict())
    except MalformedRecordError:
        raise ConfigurationError("what gives this log its sessions gave one that the format has not") from None
    if (session.key is None) != (key is None) or (key is not None and len(key) != SESSION_KEY_SIZE):
        raise ConfigurationError(f"what gives this log its sessions gave one whose key is not {SESSION_KEY_SIZE} bytes")
