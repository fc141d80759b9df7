"""Processes that write into a trail: ``python -m tests.audit.programs NAME URL``."""

from __future__ import annotations

import asyncio
import os
import sys

from keystead import blocking
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.audit.places import KEK, Place, options


async def write(url: str) -> None:
    """Write events for ever, seal beside that, and say which events were written."""
    async with Place(url).open(audit=options(interval_s=0.05), background=True) as km:
        for number in range(1_000_000):
            await km.audit.record("order.paid", number=number)
            print(number, flush=True)


def fork(url: str) -> None:
    """Write in a parent and in its child, with one manager."""
    providers = {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
    with blocking.KeyManager(providers, store=url, audit=options(), initialization_timeout=60) as km:
        km.audit.record("order.paid", number=1)
        child = os.fork()
        km.audit.record("order.paid", number=2 if child else 3)
        if not child:
            km.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        km.audit.record("order.paid", number=4)


if __name__ == "__main__":
    _, name, url = sys.argv
    if name == "write":
        asyncio.run(write(url))
    else:
        fork(url)
