"""Rotation driven by APScheduler: on the event loop with the async manager, in threads with the blocking one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

from keystead import blocking
from keystead.manager.manager import KeyManager
from keystead.providers.local.provider import LocalKMSProvider

LOOKS = 1200


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an SQLite store."""
    return f"sqlite:///{tmp_path}/keys.db"


async def test_an_asyncio_scheduler_rotates_the_async_manager(provider: LocalKMSProvider, url: str) -> None:
    async with KeyManager({"local": provider}, store=url) as km:
        sealed = km.local_encrypt(b"x")
        scheduler = AsyncIOScheduler()
        scheduler.add_job(km.rotate_data_key, "interval", seconds=0.2)
        scheduler.start()
        for _ in range(LOOKS):
            if (await km.get_active_data_key()).version >= 3:
                break
            await asyncio.sleep(0.05)
        scheduler.shutdown()
        assert (await km.get_active_data_key()).version >= 3
        assert km.local_decrypt(sealed) == b"x"


def test_a_background_scheduler_rotates_the_blocking_manager(km: blocking.KeyManager) -> None:
    sealed = km.local_encrypt(b"x")
    scheduler = BackgroundScheduler()
    scheduler.add_job(km.rotate_data_key, trigger="interval", seconds=0.2)
    scheduler.start()
    for _ in range(LOOKS):
        if km.get_active_data_key().version >= 3:
            break
        time.sleep(0.05)
    scheduler.shutdown()
    assert km.get_active_data_key().version >= 3
    assert km.local_decrypt(sealed) == b"x"


async def test_threads_use_the_hot_path_of_an_async_manager_while_it_rotates(
    provider: LocalKMSProvider, url: str
) -> None:
    async with KeyManager({"local": provider}, store=url) as km:

        def work(number: int) -> list[bytes]:
            return [km.local_encrypt(f"{number}".encode()) for _ in range(200)]

        working = [asyncio.create_task(asyncio.to_thread(work, number)) for number in range(4)]
        for _ in range(4):
            await km.rotate_data_key()
        sealed = await asyncio.gather(*working)
        assert all(km.local_decrypt(blob) == f"{n}".encode() for n, blobs in enumerate(sealed) for blob in blobs)
