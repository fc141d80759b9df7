"""What the routes of the service work with, opened with the application and closed with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from keystead.access.callers import EVERY_OPERATION, EVERY_SCOPE, Caller
from keystead.access.token_text import PREFIX
from keystead.access.tokens import Tokens
from keystead.config.settings import Settings
from keystead.devices.assembly import Devices
from keystead.devices.identity import Identity
from keystead.devices.policy import SecretPolicy
from keystead.devices.secrets import SecretRules
from keystead.errors import KMSError, StoreUnavailableError, UnauthenticatedError
from keystead.jobs.runner import Job
from keystead.manager.access import Access, access, issuer, provider_logins
from keystead.manager.devices import devices, identity, maintain, policy_of
from keystead.manager.manager import KeyManager
from keystead.manager.transit import TransitEngine, transit
from keystead.model import Principal
from keystead.ports import UnitOfWork
from keystead.server.causes import Cause, cause_of
from keystead.server.examinations import Examinations

if TYPE_CHECKING:
    from keystead.access.issuers import Issuer
    from keystead.access.provider_logins import ProviderLogins
    from keystead.config.sources import LoadedSettings

log = logging.getLogger("keystead.server")

FLUSH_S: Final = 5.0
"""How long uses of keys stay in the process alone."""
LAST_FLUSH_S: Final = 10.0
"""How long the end of the service waits until they are written."""
UPKEEP_S: Final = 3600.0
CHECK_S: Final = 2.0
"""How long the database may take to answer whether it is there."""
DEVELOPMENT: Final = Caller(Principal("dev"), EVERY_SCOPE, "development", EVERY_OPERATION)
"""Who everybody is under ``--dev``."""


@dataclass(frozen=True, slots=True)
class Service:
    """An open service."""

    loaded: LoadedSettings
    is_development: bool
    manager: KeyManager
    devices: Devices
    identity: Identity
    access: Access
    issuer: Issuer | None
    logins: ProviderLogins | None
    transit: TransitEngine
    examinations: Examinations = field(default_factory=Examinations)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def tokens(self) -> Tokens:
        """The API tokens."""
        return self.access.tokens

    async def caller(self, authorization: str | None, user: str | None) -> Caller:
        """Return who calls, by the headers ``Authorization`` and ``X-Keystead-User``.

        Raises:
            UnauthenticatedError: nobody shows a token, or not a good one.
            IssuerUnavailableError: it is one of the issuer, and whether it is good could not be found out.
            ForbiddenError: another user is named, and the token may not act for others.
        """
        if authorization is None and self.is_development:
            return DEVELOPMENT
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            raise UnauthenticatedError
        shown = text.strip()
        room: Tokens | Issuer = self.tokens if self.issuer is None or shown.startswith(PREFIX) else self.issuer
        caller = await room.authenticate(shown)
        return caller if user is None else caller.acting_as(user)

    def now(self) -> datetime:
        """Return the time."""
        return self.manager.require_session().surroundings.clock.now()

    def reading(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a reading transaction of the store."""
        return self.manager.require_session().surroundings.store.reading()

    async def causes(self) -> list[Cause]:
        """Return what stands in the way of serving: the database, or the KMS for longer than keys are used without."""
        found: list[Cause] = []
        try:
            async with asyncio.timeout(CHECK_S), self.reading() as work:
                await work.state()
        except TimeoutError:
            found.append(cause_of(StoreUnavailableError()))
        except Exception as exc:
            found.append(cause_of(exc))
        try:
            self.devices.secrets.check()
        except KMSError as exc:
            found.append(cause_of(exc))
        return found

    async def _fill(self) -> None:
        """Keep pairs ready, until the task is cancelled."""
        kind, ready = self.devices.policy.kind, self.settings.client_keys.ready
        while True:
            await _tried(partial(self.devices.upkeep.fill, kind, ready))
            await asyncio.sleep(FLUSH_S)

    async def _flush(self, ending: asyncio.Event) -> None:
        """Write what is counted, until it is said that this ends; never cancelled, and so written once and whole."""
        while not ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), FLUSH_S)
            of_transit = partial(self.transit.uses.flush, everything=ending.is_set())
            for step in (self.devices.uses.flush, self.devices.metrics.flush, of_transit):
                await _tried(step)


async def _tried(step: Callable[[], Awaitable[object]]) -> None:
    """Do what is done again in a moment; nothing is lost if it fails."""
    try:
        await step()
    except Exception as exc:
        log.warning("what is done in the background failed: %s", getattr(exc, "code", "unexpected"))


@asynccontextmanager
async def opened(km: KeyManager, loaded: LoadedSettings, *, is_development: bool) -> AsyncIterator[Service]:
    """Open the service over a manager that is initialised; at the end everything that was counted is written."""
    settings = loaded.settings
    rules = SecretRules(policy=SecretPolicy(refuses_trivial=not is_development), hashes=settings.server.hashes)
    room = await devices(km, policy=policy_of(settings), rules=rules, max_size=settings.client_keys.max_size)
    tokens_of = await issuer(km, settings)
    who_may = await access(km), tokens_of, await provider_logins(km, settings, tokens_of)
    engine = await transit(km)
    service = Service(loaded, is_development, km, room, await identity(km), *who_may, engine)
    # Due at once: what was to be done while no node ran is done now.
    jobs = (await km.session()).jobs
    jobs.add(Job("keystead.client_keys", UPKEEP_S, lambda lease: maintain(km, room.policy)))
    jobs.add(Job("keystead.access", UPKEEP_S, lambda lease: service.access.upkeep()))
    jobs.add(Job("keystead.transit", UPKEEP_S, lambda lease: engine.administration.rotate_due()))
    ending = asyncio.Event()
    filling = asyncio.create_task(service._fill(), name="keystead-fill")
    flushing = asyncio.create_task(service._flush(ending), name="keystead-flush")
    try:
        if service.issuer is not None:
            service.issuer.start()
        yield service
    finally:
        ending.set()
        filling.cancel()
        _, late = await asyncio.wait({filling, flushing}, timeout=LAST_FLUSH_S)
        for task in late:
            log.error("the database takes too long, and what was counted last may be lost")
            task.cancel()
        if service.issuer is not None:
            await service.issuer.aclose()
