"""Who opens a trail in this process: one task, which alone may change what it opens the trail with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Opening:
    """Holds other tasks back until the trail is on, or cannot be opened."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._is_over = asyncio.Event()

    @property
    def is_under_way(self) -> bool:
        """Whether a task opens the trail."""
        return self._task is not None

    @property
    def is_anothers(self) -> bool:
        """Whether another task than this one opens the trail."""
        return self._task is not None and self._task is not asyncio.current_task()

    @contextmanager
    def by_this_task(self) -> Iterator[None]:
        """Open the trail in the block."""
        self._task, self._is_over = asyncio.current_task(), asyncio.Event()
        try:
            yield
        finally:
            self._task = None
            self.end()

    def end(self) -> None:
        """Let those go on who wait: what they change is recorded, or refused."""
        self._is_over.set()

    async def wait(self) -> None:
        """Wait while another task opens the trail."""
        if self.is_anothers:
            await self._is_over.wait()
