"""Data keys that are given out in clear: recorded before whoever asked gets them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from keystead.errors import KMSError, NotInitializedError
from keystead.model import DataKeyPair

if TYPE_CHECKING:
    from keystead.manager.core import ManagerCore


async def giving_out(manager: ManagerCore, action: str, call: Callable[[], Awaitable[DataKeyPair]]) -> DataKeyPair:
    """Make a call that gives a data key out, and record it, however it ends.

    Raises:
        NotInitializedError: an audit trail was asked for, and nothing can be recorded before ``initialize``.
        KMSError: whatever the call raises; or it cannot be recorded, and nobody gets the key.
    """
    if not manager.is_initialized:
        if manager.wants_audit:
            raise NotInitializedError("with audit=True data keys are given out once the manager is initialized")
        return await call()
    session = manager.require_session()
    uses = session.live.uses
    if session.auditing is not None:
        # A trail that was begun meanwhile is joined before the KMS is asked.
        await session.auditing.trail.ensure()
    try:
        pair = await call()
    except KMSError as exc:
        with contextlib.suppress(KMSError):
            await uses.note(action, outcome=exc.code)
        raise
    reference = pair.key_reference
    await uses.note(action, outcome="ok", provider=reference.provider, key=reference.key_id)
    return pair
