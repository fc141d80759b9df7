"""How long unwrapped keys may be used without the KMS being asked again.

Every ``recheck_s`` the KMS is asked to unwrap the active WRAP key. Unreachable or throttled, use goes on for
``grace_s`` more (None = for ever), then everything fails closed until the KMS answers. Denied, disabled or destroyed
is no outage: it ends use at once.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
from typing import Final

from keystead.errors import (
    KeyDecryptionFailError,
    KeyStateError,
    KMSError,
    ProviderConnectionError,
    StorageOperationError,
)
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import WRAP_KEYRING

log = logging.getLogger("keystead.lifecycle")

RETRY_S: Final = 30.0
RETRY_REFUSED_S: Final = 5.0
"""How long after an attempt without a yes the KMS is asked again: within the grace, and once use is refused."""


class KekWatch:
    """Asks the KMS again, and says whether its last answer still counts."""

    def __init__(self, live: LiveKeyrings, *, recheck_s: float = 3600.0, grace_s: float | None = 3600.0) -> None:
        self._live = live
        self._clock = live.surroundings.clock
        self._recheck_s = recheck_s
        self._grace_s = grace_s
        self._answered = self._clock.monotonic()
        self._tried = self._answered
        self._ended: KMSError | None = None
        self._is_silent = False

    def confirm(self) -> None:
        """Note that the KMS has just unwrapped the WRAP key."""
        self._answered = self._tried = self._clock.monotonic()
        self._ended, self._is_silent = None, False

    def refusal(self) -> KMSError | None:
        """Return why keys must not be used now, or None."""
        if self._ended is not None:
            return type(self._ended)(*self._ended.args)
        if self._grace_s is None:
            return None
        if self._clock.monotonic() - self._answered > self._recheck_s + self._grace_s:
            return ProviderConnectionError(
                "the KMS has not confirmed the WRAP key for longer than kek_recheck and grace together; nothing is "
                "encrypted or decrypted until it answers again"
            )
        return None

    @property
    def ended(self) -> KMSError | None:
        """Why the KMS has ended the use of the WRAP key, which is no outage; None where it has not."""
        return self._ended

    @property
    def silent_s(self) -> float | None:
        """For how long the KMS has not confirmed the WRAP key; None where it did when it was asked last."""
        return self._clock.monotonic() - self._answered if self._is_silent else None

    @property
    def is_due(self) -> bool:
        """Whether the KMS should be asked now: the recheck interval is over, or the last attempt brought no yes."""
        waited = self._clock.monotonic() - self._tried
        if self._ended is None and self._tried == self._answered:
            return waited >= self._recheck_s
        return waited >= min(RETRY_S if self.refusal() is None else RETRY_REFUSED_S, self._recheck_s)

    async def ask(self) -> None:
        """Ask the KMS to unwrap the active WRAP key, and act on its answer. Raises nothing."""
        self._tried = self._clock.monotonic()
        try:
            await self._ask()
        except (StorageOperationError, ProviderConnectionError) as exc:
            if isinstance(exc, ProviderConnectionError) and not exc.retryable:
                await self._end(exc)
            else:
                self._is_silent = True
                log.warning("the WRAP key was not confirmed: %s", exc.code)
                if self.refusal() is not None:
                    self._block()
        except KMSError as exc:
            await self._end(exc)
        else:
            self.confirm()

    async def _ask(self) -> None:
        ring = await self._live.wrap_ring(WRAP_KEYRING)
        if ring.snapshot.active is None:
            # The version that became active could not be unwrapped then; unwrapping it now is the question as well.
            ring = await self._live.sealing_ring(WRAP_KEYRING)
        held = ring.snapshot.active_key
        row = self._live.wrap_row(ring.snapshot.active or 0)
        if held is None or row is None:
            raise KeyStateError("the store has no active WRAP key; `keystead key rewrap` makes one")
        answer = await self._live.surroundings.wrapper.unwrap(self._live.store_id, row)
        if not hmac.compare_digest(answer, bytes(held.key)):
            raise KeyDecryptionFailError("the KMS unwraps the WRAP key to another key than before")
        await self._live.uses.note("kek.confirm", provider=row.kek_provider, key=row.kek_key_id, wrap_key=str(row.id))

    async def _end(self, reason: KMSError) -> None:
        log.error("the KMS ended the use of the WRAP key: %s", reason.code)
        self._ended = reason
        self._block()
        kek = self._live.surroundings.kek
        # Use has ended; that this could not be recorded must not undo it.
        with contextlib.suppress(KMSError):
            await self._live.uses.note("kek.refuse", provider=kek.provider, key=kek.key_id, code=reason.code)

    def _block(self) -> None:
        for ring in self._live.rings():
            ring.block()
