"""Who is at the command line, where a store asks for two people: whoever shows a token in the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

from keystead.access.approvals import Approvals, Asker, asked_by, asker_of
from keystead.config.sources import TOKEN_VARIABLE
from keystead.errors import ForbiddenError
from keystead.manager import access
from keystead.manager.consent import account, approvals_of_empty
from keystead.manager.manager import KeyManager


@asynccontextmanager
async def asking(km: KeyManager) -> AsyncIterator[None]:
    """Let the block ask for what takes a second person's approval, where the store asks for that.

    Raises:
        UnauthenticatedError: the token in the environment is not good.
    """
    who = await _shown(km) if await km.require_session().consent.holds() else None
    with nullcontext() if who is None else asked_by(who):
        yield


async def who_asks(km: KeyManager) -> str:
    """Return who is at the command line: whose token is in the environment, or else the account on this machine.

    Raises:
        UnauthenticatedError: the token in the environment is not good.
    """
    who = await _shown(km)
    return account() if who is None else who.user


@dataclass(frozen=True, slots=True)
class Desk:
    """Approvals of a store, which are read like the rest of it: without a token."""

    approvals: Approvals
    _km: KeyManager
    _is_empty: bool

    async def answering(self) -> Asker:
        """Return who approves or refuses.

        Raises:
            ForbiddenError: nobody has said who it is.
            UnauthenticatedError: the token in the environment is not good.
        """
        who = Asker(account()) if self._is_empty else await _shown(self._km)
        if who is None:
            raise ForbiddenError(f"who answers is not known: have a token of your own in {TOKEN_VARIABLE}")
        return who


async def desk(km: KeyManager) -> Desk:
    """Return the approvals of a store, which need not be opened: one without keys knows people by their accounts."""
    s = km.surroundings()
    await s.store.open()
    async with s.store.reading() as work:
        is_empty = not await work.keyrings(limit=1)
    if is_empty:
        return Desk(approvals_of_empty(s), km, is_empty)
    await km.initialize()
    return Desk(await km.require_session().consent.approvals(), km, is_empty)


async def _shown(km: KeyManager) -> Asker | None:
    """Return whose token is in the environment; None where there is none."""
    text = os.environ.get(TOKEN_VARIABLE)
    if not text:
        return None
    caller = await (await access.tokens(km)).authenticate(text.strip())
    return asker_of(caller)
