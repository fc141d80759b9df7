"""A handler of the standard ``logging`` that writes a sealed log.

    handler = SealedHandler("app.log", stream="example.org/app", kms="file:/run/kek")
    logging.getLogger().addHandler(handler)

Or, where the log is opened elsewhere: ``SealedHandler(sealed_file)``.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import traceback
from datetime import UTC, datetime
from typing import Any, Final

from keystead.errors import SystemShutdownError
from keystead.integrations.json_values import plain
from keystead.ledger import SealedFile
from keystead.runtime import fork

OWN_LOGGER: Final = "keystead.ledger"
RETRY_S: Final = 5.0
"""How long after a log that could not be opened it is tried again."""
CLOSE_WITHIN_S: Final = 10.0
"""How long a handler that is closed waits for its log to be opened."""
MAX_EARLY: Final = 10_000
"""Records that wait while the log is being opened."""
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def is_json_object(text: str) -> bool:
    """Whether a line of text is one JSON object."""
    if not text.startswith("{") or "\n" in text:
        return False
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, what ``extra`` added, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object; what JSON cannot hold stands in it as text."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if extra:
            entry["extra"] = extra
        if record.exc_info:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info))
        if record.stack_info:
            entry["stack"] = record.stack_info
        try:
            return json.dumps(entry, default=str, allow_nan=False)
        except Exception:
            return json.dumps(plain(entry), allow_nan=False)


class _NoLock:
    """Stands where a handler's lock is: the log has its own, and a KMS that logs in its own threads must not wait."""

    def acquire(self, *given: object) -> bool:
        return True

    def release(self) -> None:
        return None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *given: object) -> None:
        return None


class SealedHandler(logging.Handler):
    """Writes records to a sealed log. A record that cannot be sealed is an error of the handler, never left unsealed.

    The log is opened by the first record, or by ``open``: while ``logging`` is being configured nothing may wait for a
    KMS, which may have to log itself. Records of Keystead's own log (``keystead.ledger``) are not taken: a log that
    cannot be written would write of it.

    Args:
        log: where the log is, or one that is open already, which whoever opened it closes.
        flush_level: records of this level or above are on disk when the call returns.
        raises: whether a record that cannot be sealed raises in the code that logs it. Otherwise, and where that call
            has returned since the log was just being opened, the handler says so as handlers do, on stderr.
        options: of ``SealedFile``, where this opens it: stream, kms and so on.
    """

    def __init__(
        self,
        log: SealedFile | str | os.PathLike[str],
        level: int | str = logging.NOTSET,
        *,
        flush_level: int = logging.ERROR,
        raises: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(level)
        self._log = log if isinstance(log, SealedFile) else None
        self._path = None if isinstance(log, SealedFile) else log
        self._options = options
        self._flush_level = flush_level
        self._raises = raises
        self._failed_at = -RETRY_S
        self._renew()
        fork.in_child(self._renew)
        self.setFormatter(JsonFormatter())

    def _renew(self) -> None:
        # What waits in the parent is the parent's, and who opens its log is no thread of a child's.
        self._opening = threading.Lock()
        self._early: list[tuple[logging.LogRecord, str]] = []
        # One that its thread may take again: a signal's handler, or what garbage collection ends, may log as well.
        self._deciding = threading.RLock()

    def createLock(self) -> None:  # noqa: N802  # logging's own name
        """Use none: see ``_NoLock``."""
        self.lock = _NoLock()  # type: ignore[assignment]  # all that logging asks of it

    @property
    def log(self) -> SealedFile:
        """The log, opened if it is not; errors as ``SealedFile``."""
        self.open()
        if self._log is None:
            raise SystemShutdownError("the log could not be opened just now; it is tried again soon")
        return self._log

    def open(self) -> None:
        """Open the log, so that what is wrong is seen when the application starts; errors as ``SealedFile``."""
        if self._log is not None or self._path is None or not self._opening.acquire(blocking=False):
            return
        try:
            if self._log is None and time.monotonic() - self._failed_at >= RETRY_S:
                self._failed_at = time.monotonic()
                made = SealedFile(self._path, **self._options)
                self._seal_early(made)
                with self._deciding:
                    self._log, self._failed_at = made, -RETRY_S
                self._seal_early(made)
        finally:
            self._opening.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Seal a record. What another formatter returns is taken as it is where it is a JSON object, else as text."""
        if record.name == OWN_LOGGER or record.name.startswith(f"{OWN_LOGGER}."):
            return
        try:
            text = self.format(record)
            # Once it is open it stays so, and nobody waits for anything.
            if self._log is None:
                if self._is_early(record, text):
                    return
                self.open()
                # Unless another thread opens it just now.
                if self._is_early(record, text):
                    return
            self._seal(self.log, record, text)
        except Exception:
            if self._raises:
                raise
            self.handleError(record)

    def flush(self) -> None:
        """Put everything on disk."""
        if self._log is not None and not self._log.is_closed:
            self._log.flush()

    def close(self) -> None:
        """Close the log, if the handler opened it. Each record that waited for one that never opened is an error."""
        is_settled = self._opening.acquire(timeout=CLOSE_WITHIN_S)
        try:
            if self._path is not None and self._log is not None:
                self._log.close()
        finally:
            if is_settled:
                self._opening.release()
            # From here on none is kept any more, unless the log is opened after all.
            for record, _ in self._taken():
                self._tell(record, SystemShutdownError("the log could not be opened, and this record is not sealed"))
            super().close()

    def _is_early(self, record: logging.LogRecord, text: str) -> bool:
        """Keep a record for later that comes while the log is being opened: who opens it would wait for itself."""
        with self._deciding:
            is_early = self._log is None and self._opening.locked() and len(self._early) < MAX_EARLY
            if is_early:
                self._early.append((record, text))
            return is_early

    def _taken(self) -> list[tuple[logging.LogRecord, str]]:
        with self._deciding:
            early, self._early = self._early, []
            return early

    def _seal_early(self, log: SealedFile) -> None:
        for record, text in self._taken():
            try:
                self._seal(log, record, text)
            except Exception as exc:
                self._tell(record, exc)

    def _tell(self, record: logging.LogRecord, failure: Exception) -> None:
        """Say what went wrong with a record whose call has returned."""
        try:
            raise failure
        except Exception:
            self.handleError(record)

    def _seal(self, log: SealedFile, record: logging.LogRecord, text: str) -> None:
        if isinstance(self.formatter, JsonFormatter) or is_json_object(text):
            log.append(text.encode())
        else:
            log.append_text(text)
        if record.levelno >= self._flush_level:
            log.flush(waits=False)
