"""Transit keys as a person at the command line sees them, with errors that name the command that helps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from keystead.errors import InvalidInputError, KeyNotFoundError, KeyStateError
from keystead.lifecycle.key_pages import all_keys
from keystead.manager.manager import KeyManager
from keystead.manager.transit import TransitEngine, transit
from keystead.model import DataKeyState, TransitType
from keystead.ports import TransitKeyRecord
from keystead.transit.administration import NewTransitKey
from keystead.transit.kinds import SMALLEST_HMAC_KEY
from keystead.transit.opened import OpenKey
from keystead.transit.public_keys import public_text

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version of a key.

    Attributes:
        state: of its data key.
        public_key: of a key pair: PEM, or of Ed25519 its bytes in base64; of a derived one empty.
    """

    version: int
    id: int
    state: DataKeyState
    created: datetime
    public_key: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key, and its versions that are not destroyed, oldest first."""

    key: TransitKeyRecord
    latest: int
    versions: list[VersionFacts]


async def facts(km: KeyManager, tenant: str, name: str) -> KeyFacts:
    """Return what is told of a key: never what is secret of it; errors as ``get``."""
    engine = await transit(km)
    key = await get(engine, tenant, name)
    async with engine.keys.live.surroundings.store.reading() as work:
        rows = await all_keys(work, keyring=key.record.keyring)
    return KeyFacts(
        key.record,
        key.latest,
        [
            VersionFacts(row.version, row.id, row.state, row.created_at, public_key(key, row.version))
            for row in sorted(rows, key=lambda row: row.version)
            if row.state is not DataKeyState.DESTROYED
        ],
    )


async def all_of(km: KeyManager, tenant: str) -> list[KeyFacts]:
    """Return a tenant's keys by name, without their versions."""
    found: list[KeyFacts] = []
    while page := await keys_after(km, tenant, found[-1].key.name if found else "", limit=_PAGE):
        found += page
    return found


async def keys_after(km: KeyManager, tenant: str, name: str, *, limit: int) -> list[KeyFacts]:
    """Return a page of a tenant's keys by name, without their versions."""
    found: list[KeyFacts] = []
    async with (await km.session()).surroundings.store.reading() as work:
        for record in await work.transit_keys(tenant, after=name, limit=limit):
            active = await work.find_active(record.keyring)
            found.append(KeyFacts(record, 0 if active is None else active.version, []))
    return found


async def get(engine: TransitEngine, tenant: str, name: str) -> OpenKey:
    """Return a key.

    Raises:
        KeyNotFoundError: the tenant has none of that name.
    """
    key = await engine.keys.find(tenant, name)
    if key is None:
        whose = f" of tenant {tenant!r}" if tenant else ""
        raise KeyNotFoundError(
            f"there is no Transit key {name!r}{whose}; `keystead transit list` shows those there are"
        )
    return key


async def create(km: KeyManager, tenant: str, name: str, wanted: NewTransitKey) -> OpenKey:
    """Make a key; one of HMAC has the smallest size where none is wanted.

    Raises:
        KeyStateError: there is one of that name.
        InvalidInputError: a name or options that cannot be.
    """
    engine = await transit(km)
    if await engine.keys.find(tenant, name) is not None:
        raise KeyStateError(
            f"there is a Transit key {name!r} already, and it stays as it is; `keystead transit rotate "
            f"{shlex.quote(name)}` adds a version"
        )
    if wanted.type is TransitType.HMAC and not wanted.key_size:
        wanted = replace(wanted, key_size=SMALLEST_HMAC_KEY)
    return await engine.administration.create(tenant, name, wanted)


@contextmanager
def curing(refused: str, cure: str) -> Iterator[None]:
    """Say what helps where the engine refuses something in the words that clients of Vault know."""
    try:
        yield
    except InvalidInputError as exc:
        if refused not in str(exc):
            raise
        raise KeyStateError(f"{exc}; {cure}") from None


def public_key(key: OpenKey, version: int) -> str | None:
    """Return the public half of a version as ``VersionFacts`` has it; None of one that is not loaded."""
    loaded = key.versions.get(version)
    return public_text(key, loaded) if loaded is not None and key.record.type.is_pair else None
