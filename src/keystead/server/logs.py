"""What the service and its server log, and in which form."""

from __future__ import annotations

from typing import Any, Final

_LOGGERS: Final = ("keystead", "uvicorn", "uvicorn.access")


def log_config() -> dict[str, Any]:
    """Return the set-up of logging for ``logging.config.dictConfig``: all on stderr, requests included."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in _LOGGERS},
    }
