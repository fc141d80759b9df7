"""Connections to a server that are kept between single statements.

To give one back to the pool, and to take it out again, takes longer than the statement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystead.stores.prepared import driver_of, runner_of

KEPT: Final = 2
"""Connections that are kept out of the pool; a service whose requests come one after another needs no more."""
RESTED_S: Final = 1.0
"""How long a connection to a server has to rest before it is asked whether it still is one."""


class Spare:
    """Those of one engine.

    Args:
        has_left: whether the server has left a connection of the driver, as far as this side was told.
    """

    def __init__(self, has_left: Callable[[Any], bool]) -> None:
        self._has_left = has_left
        self._kept: list[tuple[AsyncConnection, float]] = []

    async def take(self) -> AsyncConnection | None:
        """Return one that was used a moment ago; None where there is none. One that rests for longer goes back."""
        while self._kept:
            connection, rests_since = self._kept.pop()
            by = runner_of(connection)
            is_quiet = not isinstance(by, aiosqlite.Connection) and by.is_quiet
            if not is_quiet and self._has_left(driver_of(connection)):
                await connection.invalidate()
            elif time.monotonic() - rests_since < RESTED_S:
                return connection
            await connection.close()
        return None

    async def keep(self, connection: AsyncConnection) -> None:
        """Keep one on which nothing is under way, or give it back."""
        if connection.sync_connection is not None and connection.sync_connection.in_transaction():
            # Of a statement that SQLAlchemy ran: at the server there is none.
            await connection.commit()
        if len(self._kept) < KEPT:
            self._kept.append((connection, time.monotonic()))
        else:
            await connection.close()

    async def aclose(self) -> None:
        """Give all back."""
        while self._kept:
            connection, _ = self._kept.pop()
            await connection.close()

    async def drop(self) -> None:
        """Forget all, whose driver's connections are closed."""
        while self._kept:
            connection, _ = self._kept.pop()
            await connection.invalidate()
            await connection.close()
