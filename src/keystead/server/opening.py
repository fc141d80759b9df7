"""The manager under a service: opened with it, the database before the KMS, and closed with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keystead.config.sources import LoadedSettings
from keystead.errors import StoreUnavailableError
from keystead.manager.manager import KeyManager
from keystead.ports import Clock


@asynccontextmanager
async def opened_manager(settings: LoadedSettings, clock: Clock, *, creates: bool = True) -> AsyncIterator[KeyManager]:
    """Open the manager that settings describe.

    Args:
        creates: whether it makes the store, where an SQLite file is named in which there is none.

    Raises:
        KMSError: one of the store is the database's, whether or not there was an answer; then the KMS was reached for.
    """
    km = KeyManager.from_config(settings, clock=clock, create_store=creates)
    try:
        await _require_database(km, settings.settings.initialization_timeout.total_seconds())
        await km.initialize()
        yield km
    finally:
        await km.close()


async def _require_database(km: KeyManager, timeout_s: float) -> None:
    """Open the store alone, so that a database without an answer is not taken for a KMS without one."""
    try:
        async with asyncio.timeout(timeout_s):
            await km.surroundings().store.open()
    except TimeoutError:
        raise StoreUnavailableError(f"the store did not answer within {timeout_s:g} s") from None
