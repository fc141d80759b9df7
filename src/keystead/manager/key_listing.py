"""Keyrings and data keys, a page at a time, for whoever administers them from elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from keystead.lifecycle.creation import get_keyring
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyInfo, DataKeyState, KeyringRecord


@dataclass(frozen=True, slots=True)
class KeyringStanding:
    """A keyring, its active version, and how many versions are in each state, where they were counted."""

    keyring: KeyringRecord
    active: DataKeyInfo | None
    states: Mapping[DataKeyState, int]


async def keyrings_after(km: KeyManager, name: str, *, limit: int) -> list[KeyringRecord]:
    """Return keyrings by name, those of the store's own among them."""
    async with (await km.session()).surroundings.store.reading() as work:
        return await work.keyrings(after=name, limit=limit)


async def keyring_standing(km: KeyManager, name: str, *, counts: bool = True) -> KeyringStanding:
    """Return how a keyring stands.

    Args:
        counts: whether its versions are counted, of which there may be many.

    Raises:
        KeyNotFoundError: there is none of that name.
    """
    async with (await km.session()).surroundings.store.reading() as work:
        keyring, active = await get_keyring(work, name), await work.find_active(name)
        states = await work.count_keys(name) if counts else {}
    return KeyringStanding(keyring, None if active is None else DataKeyInfo.from_record(active), states)


async def keys_after(
    km: KeyManager, key_id: int, *, states: Collection[DataKeyState] | None = None, limit: int
) -> list[DataKeyInfo]:
    """Return data keys of every keyring by id, which tells nothing about their age."""
    async with (await km.session()).surroundings.store.reading() as work:
        rows = await work.keys(states=states, after_id=key_id, limit=limit)
    return [DataKeyInfo.from_record(row) for row in rows]


async def versions_after(
    km: KeyManager, keyring: str, version: int, *, states: Collection[DataKeyState] | None = None, limit: int
) -> list[DataKeyInfo]:
    """Return versions of a keyring, the oldest first.

    Raises:
        KeyNotFoundError: there is none of that name.
    """
    async with (await km.session()).surroundings.store.reading() as work:
        await get_keyring(work, keyring)
        rows = await work.versions(keyring, after=version, states=states, limit=limit)
    return [DataKeyInfo.from_record(row) for row in rows]


async def newest_versions(km: KeyManager, keyring: str, *, limit: int) -> list[DataKeyInfo]:
    """Return the newest versions of a keyring, the oldest of them first; none where there is no such keyring."""
    async with (await km.session()).surroundings.store.reading() as work:
        rows = await work.versions(keyring, newest_first=True, limit=limit)
    return [DataKeyInfo.from_record(row) for row in reversed(rows)]


async def active_by_date(km: KeyManager, days: Sequence[int], *, limit: int) -> list[int]:
    """Return how many active keys are due up to so many days from now, rising, then later, then never by age.

    Of those that are due the first ``limit`` are counted, of the others as many.
    """
    s = (await km.session()).surroundings
    now = s.clock.now()
    async with s.store.reading() as work:
        return await work.rotation_counts([now + timedelta(days=each) for each in days], limit=limit)
