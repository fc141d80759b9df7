"""A KMS that is throttled, gone, and back: the real OpenBao behind the fault proxy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from keystead.errors import KMSError, ProviderConnectionError
from keystead.manager.manager import KeyManager
from keystead.providers.guard import GuardedProvider
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from soak.figures import Figures
from tests.fakes.clock import FakeClock
from tests.fakes.world import polled
from tests.services.openbao import OpenBao, dev_server

WHERE: Final = "OpenBao behind the proxy"
CALLERS: Final = 20
MANY: Final = 5_000
RECOVERY_S: Final = 5.0
STEP_S: Final = 300
GRACE_S: Final = 3600
_THROTTLED: Final = json.dumps({"errors": ["rate limit quota exceeded"]}).encode()


def outage(folder: Path, *, calls: int) -> Figures:
    """Throttle a fifth of the requests, then all; then answer nothing for the grace, and come back."""
    figures = Figures()

    async def main() -> None:
        with dev_server(folder) as server:
            await _throttled(figures, server, calls)
            await _black_hole(figures, server, f"sqlite:///{folder}/keys.db")

    asyncio.run(main())
    return figures


async def _throttled(figures: Figures, server: OpenBao, calls: int) -> None:
    key_id = server.new_key()
    for every, what in ((5, "a fifth throttled"), (1, "all throttled")):
        # An instance of its own, with a budget of its own.
        provider = _provider(server)
        guarded = GuardedProvider(provider, "cloud")
        await guarded.encrypt(b"x", key_id)
        server.proxy.fail_every(every, status=429, body=_THROTTLED, headers={"Retry-After": "0"})
        before = len(server.proxy.requests)
        answered = await _call(calls, lambda guarded=guarded: guarded.encrypt(b"x", key_id))  # type: ignore[misc]
        made = len(server.proxy.requests) - before
        server.proxy.heal()
        await provider.aclose()
        if every == 1:
            figures.equal(WHERE, f"{what}: of {calls} calls answered", answered, 0)
            figures.at_most(WHERE, f"{what}: % of calls made again", 100 * (made - calls) / calls, 10)
        else:
            # One call in 125 meets the throttle in each of its three tries: of a few calls more may by chance.
            wanted = 99 if calls >= MANY else 96
            figures.at_least(
                WHERE, f"{what}: % of {calls} calls answered within the deadline", 100 * answered / calls, wanted
            )
            figures.tell(WHERE, f"{what}: requests a call", made / calls)


async def _black_hole(figures: Figures, server: OpenBao, url: str) -> None:
    clock, key_id = FakeClock(), server.new_key()
    provider = _provider(server)
    km = KeyManager(
        {"cloud": provider}, store=url, default_key_id=key_id, background=False, clock=clock, provider_deadline_s=1.0
    )
    async with km:
        sealed = km.local_encrypt(b"before")
        await polled(km)
        server.proxy.black_hole()
        good = 0
        for _ in range(0, GRACE_S, STEP_S):
            clock.advance(STEP_S)
            await polled(km)
            good += _serves(km, sealed)
        figures.equal(WHERE, "nothing answered for the grace of 1 h, virtual: rounds that were served", good, 12)
        clock.advance(timedelta(hours=1, minutes=5))
        await polled(km)
        figures.equal(WHERE, "after it: served", _serves(km, sealed), False)
        server.proxy.heal()
        started = time.monotonic()
        while not _serves(km, sealed) and time.monotonic() < started + 10 * RECOVERY_S:
            clock.advance(1)
            await polled(km)
            await asyncio.sleep(0.05)
        figures.at_most(WHERE, "seconds until served again, once it answers", time.monotonic() - started, RECOVERY_S)
    await provider.aclose()


def _serves(km: KeyManager, sealed: bytes) -> bool:
    try:
        return km.local_decrypt(sealed) == b"before" and km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    except ProviderConnectionError:
        return False


def _provider(server: OpenBao) -> VaultKMSProvider:
    return VaultKMSProvider(VaultConfig(server.proxy.url, token=server.token, mount_path=server.mount), environ={})


async def _call(calls: int, call: Callable[[], Awaitable[object]]) -> int:
    """Make so many calls by a few callers, and return how many were answered."""

    async def caller() -> int:
        answered = 0
        for _ in range(calls // CALLERS):
            try:
                await call()
            except KMSError:
                continue
            answered += 1
        return answered

    return sum(await asyncio.gather(*(caller() for _ in range(CALLERS))))
