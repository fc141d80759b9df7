"""A logger factory of structlog whose loggers write a sealed log.

    structlog.configure(
        processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
        logger_factory=SealedLoggerFactory("app.log", stream="example.org/app", kms="file:/run/kek"),
    )

The last processor renders the event: as a JSON object, which is sealed as it is, or as text.
"""

from __future__ import annotations

import os
from typing import Any

from keystead.integrations.logging import is_json_object
from keystead.ledger import SealedFile


class SealedLogger:
    """What structlog hands its rendered events to: a JSON object is sealed as it is, anything else as text."""

    def __init__(self, log: SealedFile) -> None:
        self._log = log

    def __repr__(self) -> str:
        return f"<SealedLogger of {self._log!r}>"

    def msg(self, message: str | bytes) -> None:
        """Seal an event; errors as ``SealedFile.append``."""
        text = message.decode() if isinstance(message, bytes) else message
        if is_json_object(text):
            self._log.append(text.encode())
        else:
            self._log.append_text(text)

    log = debug = info = warn = warning = msg

    def error(self, message: str | bytes) -> None:
        """Seal an event, on disk when this returns; errors as ``SealedFile.flush``."""
        self.msg(message)
        self._log.flush()

    fatal = failure = err = critical = exception = error


class SealedLoggerFactory:
    """Gives every logger of structlog the same sealed log.

    Args:
        log: where the log is, or one that is open already.
        options: of ``SealedFile``, where this opens it: stream, kms and so on.
    """

    def __init__(self, log: SealedFile | str | os.PathLike[str], **options: Any) -> None:
        self.log = log if isinstance(log, SealedFile) else SealedFile(log, **options)
        self._logger = SealedLogger(self.log)

    def __call__(self, *given: object) -> SealedLogger:
        """Return the logger; structlog gives the factory what a logger was asked for by."""
        return self._logger

    def close(self) -> None:
        """Close the log."""
        self.log.close()
