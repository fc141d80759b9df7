"""Rotate now, rotate hourly, and ask when the next rotation is."""

from __future__ import annotations

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from keystead import KeyManager


async def sample(key_manager: KeyManager, scheduler: AsyncIOScheduler) -> None:
    await key_manager.initialize()
    await key_manager.rotate_data_key()

    scheduler.add_job(key_manager.rotate_data_key, trigger="interval", hours=1)

    policy = key_manager.get_rotation_policy()
    print(f"next rotation: {policy.next_rotation}")
    assert policy.next_rotation is not None
