"""Two frequencies; a scheduler takes the bound method as it is."""

from __future__ import annotations

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from keystead import KeyManager


async def sample(key_manager: KeyManager, scheduler: AsyncIOScheduler) -> None:
    scheduler.add_job(key_manager.rotate_data_key, trigger="interval", hours=1)
    scheduler.add_job(key_manager.rotate_data_key, trigger="interval", hours=12)
    assert len(scheduler.get_jobs()) == 2
