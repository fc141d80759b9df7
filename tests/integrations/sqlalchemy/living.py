"""An application whose threads go on reading and writing while something is done to its table."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event

from keystead import blocking
from keystead.integrations.sqlalchemy import Binding


@dataclass
class Living:
    """An engine that is bound, and what its threads came upon."""

    engine: Engine
    km: blocking.KeyManager
    binding: Binding
    is_over: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the job finds the table."""
        own = self.engine.url.set(drivername=self.engine.url.get_backend_name())
        return own.render_as_string(hide_password=False)

    def start(self, name: str, turn: Callable[[random.Random], None], pause_s: float = 0.005) -> threading.Thread:
        """Let a thread take turns until everything is over."""

        def run() -> None:
            draw = random.Random(name)
            try:
                while not self.is_over.wait(pause_s):
                    turn(draw)
                    self.turns[name] = self.turns.get(name, 0) + 1
            except BaseException as failure:
                self.failures.append(failure)
                self.is_over.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def engine_on(kind: str, request: pytest.FixtureRequest, folder: Path) -> Engine:
    """Return an engine that many threads use, on SQLite or PostgreSQL."""
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+psycopg:")
        return create_engine(url, pool_size=10)
    engine = create_engine(f"sqlite:///{folder}/app.db", connect_args={"timeout": 60}, pool_size=10)
    event.listen(engine, "connect", lambda raw, record: raw.execute("PRAGMA journal_mode = WAL"))
    return engine
