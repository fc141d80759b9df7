"""Statements as messages to PostgreSQL: what the driver's cursors do around one takes as long as the rest of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format

from keystead.stores.ears import Ears

if TYPE_CHECKING:
    from psycopg import AsyncConnection

KEPT: Final = 200
"""Statements that a server keeps prepared for a connection; further ones are sent as they are."""
GIVE_UP_S: Final = 5.0
"""How long a server is given to give up a statement."""
_ANSWERED: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)

_Form = tuple[bytes, tuple[int, ...]]


class Messages:
    """Sends statements on one connection of the driver, one after the other.

    A statement is prepared when the driver would prepare it: by the ``prepare_threshold`` of its connection.
    """

    def __init__(self, driver: AsyncConnection[Any]) -> None:
        self._driver = driver
        self._adapted = Transformer(driver)
        self._ears = Ears(driver.pgconn)
        self._uses: dict[_Form, int] = {}
        self._names: dict[_Form, bytes] = {}

    @property
    def is_quiet(self) -> bool:
        """Whether the server is known to have said nothing since it answered: no farewell either."""
        return self._ears.are_open

    async def ask(self, sql: bytes, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Return the rows that are answered to a statement whose values are ``$1`` and so on; errors are the driver's.

        Where it is given up, the driver has the server give it up as well, if that can be.
        """
        adapted, server = self._adapted, self._driver.pgconn
        written = adapted.dump_sequence(values, [PyFormat.AUTO] * len(values))
        formats, form = adapted.formats, (sql, adapted.types or ())
        name = self._names.get(form) or await self._prepared(form)
        if name is None:
            server.send_query_params(sql, written, form[1], formats)
        else:
            server.send_query_prepared(name, written, formats)
        result = await self._answer()
        adapted.set_pgresult(result, format=Format.TEXT)
        return adapted.load_rows(0, result.ntuples, tuple)

    async def _prepared(self, form: _Form) -> bytes | None:
        """Have the server prepare a statement that was used often enough; return its name."""
        threshold, uses = self._driver.prepare_threshold, self._uses.get(form, 0)
        if threshold is None or len(self._uses) >= KEPT:
            return None
        self._uses[form] = uses + 1
        if uses < threshold:
            return None
        name = f"keystead_{len(self._names)}".encode()
        self._driver.pgconn.send_prepare(name, *form)
        await self._answer()
        self._names[form] = name
        return name

    async def _answer(self) -> Any:
        server = self._driver.pgconn
        try:
            if server.flush():
                # More than the socket takes at once.
                return _last(await self._driver.wait(execute(server)))
            return _last(await self._results())
        except Exception:
            raise
        except BaseException:
            await self._give_up()
            raise

    async def _results(self) -> list[Any]:
        server, found = self._driver.pgconn, list[Any]()
        while True:
            while server.is_busy():
                await self._ears.hear()
                server.consume_input()
            if (result := server.get_result()) is None:
                return found
            found.append(result)

    async def _give_up(self) -> None:
        """Have the server give up what is under way, if that can be; nothing else runs on the connection after it."""
        with suppress(Exception):
            async with asyncio.timeout(GIVE_UP_S):
                await self._driver.cancel_safe(timeout=GIVE_UP_S)
                await self._results()


def _last(results: Sequence[Any]) -> Any:
    for result in results:
        if result.status not in _ANSWERED:
            raise error_from_result(result)
    return results[-1]
