"""What the service and its server log, and in which form: a line for each thing, and nothing that anybody has sent.

Of an exception its type and its places are told. What it says is not: it may hold what was to be decrypted.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

_LOGGERS: Final = ("keystead", "uvicorn")
_FIELDS: Final = ("operation", "code", "duration_ms", "request_id")


class TextLines(logging.Formatter):
    """``INFO:     what happened``, as the server has it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        where = _where(record)
        told = f"{record.levelname + ':':<9} {_message(record)}"
        return told if where is None else f"{told} ({where['error']}: {' < '.join(where['where'])})"


class JsonLines(logging.Formatter):
    """An object in JSON for each record: time, level, event, and what belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
        }
        if told["event"] == "log":
            told |= {"logger": record.name, "message": _message(record)}
        told |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        return json.dumps(told | (_where(record) or {}), ensure_ascii=True)


def log_config(form: Literal["text", "json"]) -> dict[str, Any]:
    """Return the set-up of logging for ``logging.config.dictConfig``: everything on stderr, the server's lines too."""
    formatter = "keystead.server.logs.JsonLines" if form == "json" else "keystead.server.logs.TextLines"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in _LOGGERS},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }


def _message(record: logging.LogRecord) -> str:
    """Return the first line of what a record says: what follows in one of a server or a loop is an exception's text."""
    first = record.getMessage().strip().partition("\n")[0]
    return "it failed" if first.startswith("Traceback ") else first


def _where(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return the type of a record's exception, and where it was raised, the innermost place first."""
    if not record.exc_info or record.exc_info[0] is None:
        return None
    kind, _, trace = record.exc_info
    return {"error": kind.__name__, "where": _places(trace)}


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)
    named = [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}" for frame in frames]
    return named[::-1]
