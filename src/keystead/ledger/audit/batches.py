"""One transaction for what several callers want written at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Batch(Generic[T]):
    given: list[T] = field(default_factory=list)
    task: asyncio.Task[Exception | None] | None = None


class Batches(Generic[T]):
    """Gathers what is given while a batch is being written into the next one.

    Args:
        write: writes a batch, all of it or nothing.
    """

    def __init__(self, write: Callable[[list[T]], Awaitable[None]]) -> None:
        self._write = write
        self.forget()

    def forget(self) -> None:
        """Begin again, as in a child of a fork or on another event loop."""
        self._batch: _Batch[T] = _Batch()
        self._writing = asyncio.Lock()

    async def write(self, given: list[T]) -> Exception | None:
        """Write with what others give at the same time, and return why it could not be written."""
        loop = asyncio.get_running_loop()
        if self._batch.task is not None and self._batch.task.get_loop() is not loop:
            self.forget()
        batch = self._batch
        batch.given += given
        if batch.task is None:
            batch.task = loop.create_task(self._write_batch(batch), name="keystead-audit-write")
        # Whoever is cancelled here is one of several.
        return await asyncio.shield(batch.task)

    async def _write_batch(self, batch: _Batch[T]) -> Exception | None:
        async with self._writing:
            self._batch = _Batch()
            try:
                await self._write(batch.given)
            except Exception as failure:  # whatever it is, each of those who gave something raises it
                return failure
        return None
