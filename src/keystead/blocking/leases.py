"""What rooms above ask of an open manager's store: which one it is, what is new in it, and to work alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from keystead.blocking.manager import KeyManager
from keystead.errors import ConflictError, StorageOperationError
from keystead.jobs.runner import Job, JobRunner
from keystead.ports import Lease
from keystead.runtime.clock import SystemClock
from keystead.runtime.loop import background_loop


def store_id_of(km: KeyManager) -> str:
    """Return the random id of the manager's store."""

    async def ask() -> str:
        return (await km._manager.session()).live.store_id

    return background_loop.run(ask())


def look_again(km: KeyManager) -> None:
    """Load what changed in the store."""

    async def poll() -> None:
        await (await km._manager.session()).poll()

    background_loop.run(poll())


@contextmanager
def alone(km: KeyManager, name: str, lost: threading.Event) -> Iterator[Lease]:
    """Hold the lease ``name`` in the manager's store for as long as the block runs; ``lost`` is set when it is lost.

    Its token is greater than that of whoever held it before.

    Raises:
        ConflictError: somebody else holds it.
        StorageOperationError: the store cannot be written.
    """
    begun: Future[Lease] = Future()
    ended = asyncio.Event()

    async def hold(lease: Lease) -> None:
        begun.set_result(lease)
        try:
            await ended.wait()
        finally:
            if not ended.is_set():
                lost.set()

    async def run() -> None:
        surroundings = (await km._manager.session()).surroundings
        # Of an owner of its own: to the same one a lease is given as often as it asks.
        owner = f"{surroundings.node.value}/{secrets.token_hex(4)}"
        runner = JobRunner(surroundings.store, lambda: owner, SystemClock())
        if not await runner.run_alone(Job(name, 0.0, hold)):
            raise ConflictError(f"{name}: another process is at work on it; wait for its end, or for its lease's")

    def tell(task: Future[None]) -> None:
        if begun.done():
            return
        failure = task.exception() if not task.cancelled() else None
        begun.set_exception(failure or ConflictError(f"{name}: the work was stopped before it began"))

    async def end() -> None:
        ended.set()

    running = background_loop.begin(run())
    running.add_done_callback(tell)
    lease = begun.result()
    try:
        yield lease
    finally:
        background_loop.run(end())
        # What the lease's end fails with is no failure of what was done under it; it expires by itself.
        with contextlib.suppress(StorageOperationError):
            running.result()
