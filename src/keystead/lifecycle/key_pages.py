"""Reading data keys of which there may be more than fit one page."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

from keystead.model import DataKeyState, KeyRecord
from keystead.ports import UnitOfWork

PAGE: Final = 1000


async def all_keys(
    work: UnitOfWork,
    *,
    keyring: str | None = None,
    states: Collection[DataKeyState] | None = None,
    published_after: int | None = None,
    due_before: datetime | None = None,
    only: Callable[[KeyRecord], bool] = lambda row: True,
) -> list[KeyRecord]:
    """Return the data keys by id that ``only`` is true of; the other filters are those of ``UnitOfWork.keys``."""
    rows: list[KeyRecord] = []
    after = 0
    while True:
        page = await work.keys(
            keyring=keyring,
            states=states,
            published_after=published_after,
            due_before=due_before,
            after_id=after,
            limit=PAGE,
        )
        rows += filter(only, page)
        if len(page) < PAGE:
            return rows
        after = page[-1].id
