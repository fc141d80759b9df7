"""Pattern 1: one KMS call at start, the cached data key in handlers, rotation by a scheduler."""

from __future__ import annotations

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from keystead import KeyManager


async def sample(key_manager: KeyManager, scheduler: AsyncIOScheduler, data: bytes) -> None:
    await key_manager.initialize()

    encrypted = key_manager.local_encrypt(data)
    decrypted = key_manager.local_decrypt(encrypted)

    scheduler.add_job(key_manager.rotate_data_key, trigger="interval", hours=1)

    assert decrypted == data
    assert len(scheduler.get_jobs()) == 1
