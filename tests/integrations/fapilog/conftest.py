"""What tests of the fapilog plugins share: the key in its variable, and nothing left open behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import fapilog
import pytest

from keystead.integrations.fapilog.opened import OpenLogs, open_logs
from tests.integrations.fapilog.apps import KEY_TEXT, VARIABLE


@pytest.fixture(autouse=True)
def _left_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # fapilog would take the signals of this process; and its first logger asks no settings but the environment's.
    monkeypatch.setenv("FAPILOG_CORE__SIGNAL_HANDLER_ENABLED", "false")
    monkeypatch.setenv(VARIABLE, KEY_TEXT)
    yield
    asyncio.run(fapilog.clear_logger_cache())
    close_all(open_logs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs"


def close_all(logs: OpenLogs) -> None:
    """Close every log of this process, whoever still uses it."""
    for path, log in list(logs._logs.items()):
        del logs._logs[path], logs._users[path]
        log.close()
    logs._made.clear()
