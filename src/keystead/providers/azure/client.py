"""One event loop's connection to Azure: a session, a credential, and the SDK's clients over both."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keystead.errors import (
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    SystemShutdownError,
)
from keystead.ports import Clock
from keystead.providers.azure.config import AzureKeyId, AzureKMSConfig
from keystead.providers.azure.credentials import make_credential
from keystead.providers.azure.errors import Asked, is_token_refused, translate
from keystead.providers.azure.keys import FoundKey, read_key
from keystead.providers.azure.session import AzureSession
from keystead.runtime import fork
from keystead.runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.keyvault.keys import KeyVaultKey
    from azure.keyvault.keys.aio import KeyClient
    from azure.keyvault.keys.crypto.aio import CryptographyClient

T = TypeVar("T")

KEPT: Final = 256
"""Key versions that are remembered, and clients for them and for their vaults: records may name any number."""
RENEW_EVERY_S: Final = 5.0
"""How often a credential is thrown away because a vault does not take its token: a new one may not help either."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The SDK's clients under one credential."""

    credential: AsyncTokenCredential
    transport: Any
    config: AzureKMSConfig
    key_clients: OrderedDict[str, KeyClient] = field(default_factory=OrderedDict)
    crypto_clients: OrderedDict[str, tuple[FoundKey | None, CryptographyClient]] = field(default_factory=OrderedDict)

    def keys(self, key_id: AzureKeyId) -> KeyClient:
        """Return the client of the key's vault."""
        from azure.keyvault.keys.aio import KeyClient

        if (found := self.key_clients.get(key_id.host)) is None:
            found = KeyClient(key_id.vault_url, self.credential, **self._options(key_id.host))
            self.key_clients[key_id.host] = found
            _bound(self.key_clients)
        return found

    def crypto(self, key_id: AzureKeyId, found: FoundKey | None) -> CryptographyClient:
        """Return the client that computes with a version; by its id alone, it reads the key itself if it may."""
        from azure.keyvault.keys.crypto.aio import CryptographyClient

        known = self.crypto_clients.get(str(key_id))
        if known is None or known[0] is not found:
            key = str(key_id) if found is None else found.sdk_key
            known = (found, CryptographyClient(key, self.credential, **self._options(key_id.host)))
            self.crypto_clients[str(key_id)] = known
            _bound(self.crypto_clients)
        return known[1]

    def _options(self, host: str) -> dict[str, Any]:
        return {
            "transport": self.transport,
            # The guard repeats calls; a vault redirects none, and a token goes nowhere else.
            "retry_total": 0,
            "permit_redirects": False,
            "verify_challenge_resource": not self.config.is_listed(host),
        }


class AzureConnection:
    """Makes calls in the event loop it was opened in, and remembers what keys look like."""

    def __init__(self, config: AzureKMSConfig, environ: Mapping[str, str], clock: Clock, session: AzureSession) -> None:
        self._config = config
        self._environ = environ
        self._clock = clock
        self._session = session
        self._transport = session.transport()
        self._turns = asyncio.Semaphore(config.max_connections)
        self._clients = self._new_clients()
        self._retired: Clients | None = None
        self._renewed_at: float | None = None
        self._is_closed = False
        self._known: OrderedDict[tuple[str, str, str], FoundKey] = OrderedDict()
        self._unreadable: OrderedDict[tuple[str, str, str], bool] = OrderedDict()
        self._flights: SingleFlight[FoundKey] = SingleFlight()
        self._readings: SingleFlight[None] = SingleFlight()

    @classmethod
    async def open(cls, config: AzureKMSConfig, environ: Mapping[str, str], clock: Clock) -> AzureConnection:
        """Return a connection of the running loop; nobody is called yet.

        Raises:
            MissingDependencyError, ConfigurationError: the SDK, the CA file or a part of the credentials is missing.
        """
        session = await AzureSession.open(config)
        try:
            return cls(config, environ, clock, session)
        except BaseException:
            await session.aclose()
            raise

    async def aclose(self) -> None:
        """Close credentials and connections; calls under way end with ``SystemShutdownError``."""
        self._is_closed = True
        for clients in (self._retired, self._clients):
            if clients is not None:
                with contextlib.suppress(Exception):
                    await clients.credential.close()
        await self._session.aclose()

    def abandon(self) -> None:
        """Keep a parent's connection for as long as this child of a fork lives: it shares sockets and selector with it.

        Freed, it would take its sockets out of the selector that the parent waits with.
        """
        fork.never_free(self)

    async def key(self, key_id: AzureKeyId) -> FoundKey:
        """Return a version, the newest where ``key_id`` names none, as it was up to ``key_max_age_s`` ago.

        Raises:
            KMSError: it is not there, or may not be read.
        """
        found = self._known.get(_slot(key_id))
        if found is not None and self._clock.monotonic() - found.read_at < self._config.key_max_age_s:
            return found
        return await self._flights.run(key_id, lambda: self.read(key_id))

    async def read(self, key_id: AzureKeyId) -> FoundKey:
        """Return a version as it is now; errors as ``key``."""
        read_at = self._clock.monotonic()
        theirs = await self.ask(
            Asked.KEY, key_id, lambda clients: clients.keys(key_id).get_key(key_id.name, key_id.version or "")
        )
        return self.remember(key_id, theirs, read_at)

    def remember(self, key_id: AzureKeyId, theirs: Any, read_at: float) -> FoundKey:
        """Return the SDK's key as ours, and keep it as what ``key_id`` names, and as its version."""
        found = read_key(key_id, theirs, read_at)
        for slot in (_slot(key_id), _slot(found.id)):
            self._known[slot] = found
            self._known.move_to_end(slot)
        _bound(self._known)
        return found

    def require_usable(self, found: FoundKey, operation: str) -> None:
        """Return if a key may do ``operation`` now, as far as is known here.

        Raises:
            KeyStateError: it is disabled, not valid yet, or expired.
            InvalidInputError: it was made for something else.
        """
        try:
            found.require_usable(operation, self._clock.now())
        except KMSError:
            # Whoever puts it right wants to see it work.
            self.forget(found.id)
            raise

    def forget(self, key_id: AzureKeyId) -> None:
        """Ask the service about a version, and which one is the newest, again at their next use."""
        for slot in (_slot(key_id), _slot(replace(key_id, version=None))):
            self._known.pop(slot, None)
            self._unreadable.pop(slot, None)

    async def compute_here(
        self, asked: Asked, found: FoundKey, call: Callable[[CryptographyClient], Awaitable[T]]
    ) -> T:
        """Return what ``call`` gets from the client of a version by the public half alone: it waits for no turn."""
        return await self._ask(asked, found.id, lambda clients: call(clients.crypto(found.id, found)))

    async def compute(self, asked: Asked, found: FoundKey, call: Callable[[CryptographyClient], Awaitable[T]]) -> T:
        """Return what ``call`` gets from the client of a version."""
        return await self.ask(asked, found.id, lambda clients: call(clients.crypto(found.id, found)))

    async def compute_by_id(
        self, asked: Asked, key_id: AzureKeyId, call: Callable[[CryptographyClient], Awaitable[T]]
    ) -> T:
        """Return what ``call`` gets from the client of a version, whether or not this identity may read the key."""
        found = self._known.get(_slot(key_id))
        if found is None and _slot(key_id) not in self._unreadable:
            await self._readings.run(key_id, lambda: self._try_to_read(key_id))
            found = self._known.get(_slot(key_id))
        return await self.ask(asked, key_id, lambda clients: call(clients.crypto(key_id, found)))

    async def _try_to_read(self, key_id: AzureKeyId) -> None:
        """Read a version, or note that its vault denies that."""
        from azure.core.exceptions import HttpResponseError

        async def read(clients: Clients) -> KeyVaultKey | None:
            try:
                return await clients.keys(key_id).get_key(key_id.name, key_id.version or "")
            except HttpResponseError as exc:
                if exc.status_code != HTTPStatus.FORBIDDEN:
                    raise
            return None

        read_at = self._clock.monotonic()
        theirs = await self.ask(Asked.KEY, key_id, read)
        if theirs is not None:
            self.remember(key_id, theirs, read_at)
        else:
            self._unreadable[_slot(key_id)] = True
            _bound(self._unreadable)

    async def ask(self, asked: Asked, key_id: AzureKeyId, call: Callable[[Clients], Awaitable[T]]) -> T:
        """Return what ``call`` returns, once it is its turn.

        Where a token was not accepted, it is called once more with one that was got anew.

        Raises:
            KMSError: what the SDK raised, translated.
        """
        async with self._turns:
            return await self._ask(asked, key_id, call)

    async def _ask(self, asked: Asked, key_id: AzureKeyId, call: Callable[[Clients], Awaitable[T]]) -> T:
        for is_last in (False, True):
            clients = self._clients
            try:
                return await call(clients)
            except Exception as exc:
                error = translate(asked, exc, key_id)
                may_help = not is_last and is_token_refused(exc, key_id.host)
            # Outside the except block: what is the SDK's must not travel on as the context of ours.
            if self._is_closed:
                raise SystemShutdownError("the Azure provider was closed")
            if not (may_help and await self._renew(clients)):
                break
        if isinstance(error, KeyStateError | KeyNotFoundError | ProviderAuthError):
            self.forget(key_id)
        raise error

    async def service_time(self, url: str) -> datetime | None:
        """Return a vault's time, if it tells it."""
        return await self._session.service_time(url)

    async def _renew(self, seen: Clients) -> bool:
        """Replace the credential that gave ``seen`` its token; False where that was done a moment ago already."""
        if self._clients is not seen:
            return True
        now = self._clock.monotonic()
        if self._renewed_at is not None and now - self._renewed_at < RENEW_EVERY_S:
            return False
        self._renewed_at = now
        # Calls under way still use the old one; the one before it can go.
        oldest, self._retired, self._clients = self._retired, seen, self._new_clients()
        if oldest is not None:
            with contextlib.suppress(Exception):
                await oldest.credential.close()
        return True

    def _new_clients(self) -> Clients:
        credential = make_credential(self._config, self._environ, self._transport)
        return Clients(credential, self._transport, self._config)


def _bound(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _slot(key_id: AzureKeyId) -> tuple[str, str, str]:
    """Return what a key is remembered by: the service does not tell case apart in names and versions."""
    return key_id.host, key_id.name.lower(), (key_id.version or "").lower()
