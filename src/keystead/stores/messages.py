"""Statements as messages to PostgreSQL: what the driver's cursors do around one takes as long as the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format

if TYPE_CHECKING:
    from psycopg import AsyncConnection

KEPT: Final = 200
"""Statements that a server keeps prepared for a connection; further ones are sent as they are."""
_ANSWERED: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)

_Form = tuple[bytes, tuple[int, ...]]


class Messages:
    """Sends statements on one connection of the driver, one after the other.

    A statement is prepared when the driver would prepare it: by the ``prepare_threshold`` of its connection.
    """

    def __init__(self, driver: AsyncConnection[Any]) -> None:
        self._driver = driver
        self._adapted = Transformer(driver)
        self._uses: dict[_Form, int] = {}
        self._names: dict[_Form, bytes] = {}

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
        results = await self._driver.wait(execute(self._driver.pgconn))
        for result in results:
            if result.status not in _ANSWERED:
                raise error_from_result(result)
        return results[-1]
