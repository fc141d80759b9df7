"""Keys held in memory: in buffers that are overwritten, and for no longer than whoever keeps them says."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, SupportsIndex, TypeVar

from keystead.errors import KMSError, ProviderConnectionError, SystemShutdownError
from keystead.ledger.signers.format import derive_key
from keystead.model import SecretBytes
from keystead.ports import Clock
from keystead.runtime import fork
from keystead.runtime.single_flight import SingleFlight

log = logging.getLogger("keystead.ledger")

T = TypeVar("T")

AHEAD: Final = 0.8
"""At which part of its time a value is asked for anew in the background, while it is still used."""
RETRY_S: Final = 5.0
"""How long after a failure the next attempt is made, while an outage is bridged."""


class HeldKey:
    """A key in a buffer of its own that ``wipe`` overwrites.

    That is as far as it goes in Python: what handed the key over, HMAC and key derivation have had copies that live
    until their memory is used again, and ``copy`` gives one that nobody can overwrite.
    """

    __slots__ = ("_is_wiped", "_key")

    def __init__(self, key: bytes | bytearray) -> None:
        self._key = bytearray(key)
        self._is_wiped = False

    def __repr__(self) -> str:
        return "HeldKey(hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("HeldKey cannot be pickled or copied; nobody would wipe what comes of it")

    def mac(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of ``message``.

        Raises:
            SystemShutdownError: the key was wiped, maybe in the middle of this.
        """
        return self._unless_wiped(hmac.digest(self._key, message, "sha256"))

    def derive(self, purpose: str, *, stream: str = "", epoch: int = 0) -> HeldKey:
        """Return the key that this one gives for a purpose, stream and epoch; errors as ``mac``."""
        return HeldKey(self._unless_wiped(derive_key(self._key, purpose, stream=stream, epoch=epoch)))

    def copy(self) -> SecretBytes:
        """Return the key as bytes that hide themselves and cannot be wiped; errors as ``mac``."""
        return SecretBytes(self._unless_wiped(bytes(self._key)))

    def equals(self, key: bytes) -> bool:
        """Whether this is ``key``."""
        return hmac.compare_digest(self._key, key)

    def wipe(self) -> None:
        """Overwrite the key; idempotent."""
        self._is_wiped = True
        self._key[:] = bytes(len(self._key))

    def _unless_wiped(self, result: bytes) -> bytes:
        # Asked after the work: a key wiped in the middle of it, by another thread, must not have signed anything.
        if self._is_wiped:
            raise SystemShutdownError("the key was given up during the call")
        return result


@dataclass(frozen=True, slots=True)
class Terms:
    """For how long a value counts.

    Attributes:
        ttl_s: until it has to be confirmed.
        grace_s: how much longer it is used while nobody answers; None is for ever, 0 is not at all.
    """

    clock: Clock
    ttl_s: float
    grace_s: float | None = 0.0


class Confirmed(Generic[T]):
    """A value that somebody else vouches for: fetched when it is asked for, and confirmed when its time is over.

    ``fetch`` is given the value so far, or None, and returns the same one, which confirms it, or another; ``drop`` is
    given each one that nobody will be given any more. However many ask, one fetch is under way in each event loop.

    From 80 % of its time on, a value is confirmed in the background. Once the time is over, a caller waits for that.
    Where nobody answers, the value is used for the grace, and further attempts are made in the background. Every other
    failure ends its use at once, and is never remembered: the next caller asks again.
    """

    def __init__(
        self, fetch: Callable[[T | None], Awaitable[T]], terms: Terms, *, drop: Callable[[T], None] = lambda value: None
    ) -> None:
        self._fetch = fetch
        self._terms = terms
        self._drop = drop
        self._value: T | None = None
        self._confirmed_at = 0.0
        self._tried_at = 0.0
        self._flights: SingleFlight[T] = SingleFlight()
        self._behind: set[asyncio.Task[None]] = set()
        self._has_failed = False
        self._is_closed = False
        self._renew_lock()
        fork.in_child(self._renew_lock)

    @property
    def known(self) -> T | None:
        """The value as it is, however old; nothing is asked."""
        return self._value

    @property
    def fresh(self) -> T | None:
        """The value while its time is not over; nothing is asked."""
        is_fresh = self._terms.clock.monotonic() - self._confirmed_at < self._terms.ttl_s
        return self._value if is_fresh else None

    @property
    def confirmed_at(self) -> float:
        """When it was asked for that the value rests on; seconds of the monotonic clock."""
        return self._confirmed_at

    def expire(self) -> None:
        """End the value's time, as if it had passed."""
        self._confirmed_at = min(self._confirmed_at, self._terms.clock.monotonic() - self._terms.ttl_s)

    async def get(self) -> T:
        """Return the value, fetched or confirmed where that is due; errors are those of ``fetch``."""
        value, now = self._value, self._terms.clock.monotonic()
        if value is None:
            return await self.refresh()
        age = now - self._confirmed_at
        if age < self._terms.ttl_s:
            if age >= AHEAD * self._terms.ttl_s and now - self._tried_at >= self._pause_s:
                self._refresh_behind()
            return value
        if self._has_failed and self._is_in_grace(now):
            if now - self._tried_at >= self._pause_s:
                self._refresh_behind()
            return value
        try:
            return await self.refresh()
        except ProviderConnectionError as outage:
            if outage.retryable and self._value is value and self._is_in_grace(self._terms.clock.monotonic()):
                return value
            raise

    async def refresh(self) -> T:
        """Return the value as it is now, confirmed or fetched by a call of this moment."""
        if self._is_closed:
            raise _closed()
        return await self._flights.run(None, self._ask)

    def close(self) -> None:
        """Give the value up, and stop what goes on in the background; nothing is fetched any more."""
        with self._lock:
            self._is_closed = True
            value, self._value = self._value, None
            behind, self._behind = self._behind, set()
        for task in behind:
            # A loop that has ended has ended its tasks as well.
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)
        if value is not None:
            self._drop(value)

    async def _ask(self) -> T:
        before = self._value
        asked_at = self._tried_at = self._terms.clock.monotonic()
        try:
            found = await self._fetch(before)
        except KMSError as failure:
            self._has_failed = True
            if not (isinstance(failure, ProviderConnectionError) and failure.retryable):
                self._end(before)
            raise
        return self._land(before, found, asked_at)

    def _land(self, before: T | None, found: T, asked_at: float) -> T:
        """Keep what was fetched; where another event loop was faster, everybody has what that one fetched."""
        with self._lock:
            now = self._value
            if not self._is_closed and (now is before or now is None):
                self._value, self._confirmed_at, self._has_failed = found, asked_at, False
                given_up = now
            else:
                given_up = found
            kept = self._value
        if given_up is not None and given_up is not kept:
            self._drop(given_up)
        if kept is None:
            raise _closed()
        return kept

    def _end(self, before: T | None) -> None:
        with self._lock:
            if before is None or self._value is not before:
                return
            self._value = None
        self._drop(before)

    def _is_in_grace(self, now: float) -> bool:
        grace_s = self._terms.grace_s
        return grace_s is None or now - self._confirmed_at < self._terms.ttl_s + grace_s

    @property
    def _pause_s(self) -> float:
        return min(RETRY_S, (1 - AHEAD) * self._terms.ttl_s)

    def _refresh_behind(self) -> None:
        # What was left behind in a loop that has ended will never be done.
        self._behind -= {task for task in self._behind if task.get_loop().is_closed()}
        if self._behind:
            return
        task = asyncio.get_running_loop().create_task(self._refresh_quietly())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh()
        except KMSError as exc:
            log.warning("a key was not confirmed: %s", exc.code, extra={"outcome": exc.code})
        except Exception as exc:  # what an audit hook raises ends the calls that somebody waits for
            log.warning("a key was not confirmed: %s", type(exc).__name__, extra={"outcome": type(exc).__name__})

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
        self._behind = set()


def _closed() -> SystemShutdownError:
    return SystemShutdownError("the keys were given up: whatever held them was closed")
