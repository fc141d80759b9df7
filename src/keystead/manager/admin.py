"""What an administrator does with keys, the same for the command line, the REST interface and the console.

Functions over an initialised ``KeyManager``. None of them shows a key's bytes.
"""

from __future__ import annotations

import heapq
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from keystead.errors import InvalidInputError, KeyNotFoundError, KeyStateError
from keystead.lifecycle.creation import get_keyring
from keystead.lifecycle.destruction import DEFAULT_WAIT
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.rewrap import RewrapReport
from keystead.manager.handle import KeyringHandle
from keystead.manager.manager import STREAM_ALGORITHM, KeyManager
from keystead.model import (
    Act,
    Action,
    DataKeyInfo,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    is_of_transit,
)
from keystead.model.patterns import is_pattern
from keystead.ports import AuditEvent, Detail, KeyUse
from keystead.providers.local.kek_file import create_kek_file

PAGE: Final = 1000
MAX_VERSION: Final = 2**63 - 1
MESSAGE_ALGORITHM: Final = "AES-256-GCM"
_PROVING: Final = (KeyringPurpose.MAC, KeyringPurpose.SIGN)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """The first keys of a listing, by keyring and version, and how many there are in all."""

    keys: list[DataKeyInfo]
    total: int


@dataclass(frozen=True, slots=True)
class KekUse:
    """How many WRAP keys a version of a KEK wraps, in the words of the service."""

    provider: str
    key_id: str
    version: str | None
    wrap_keys: int


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The state of a whole store; ``keks`` are every KEK that is still needed to open it.

    ``missing_wraps`` tells how many WRAP keys lack the wrap of a KEK, where several wrap them.
    """

    store_id: str
    epoch: int
    is_restored: bool
    keyrings: int
    nodes: int
    keys: Mapping[str, int]
    keks: list[KekUse]
    next_rotation: datetime | None = None
    pending_destroy: list[DataKeyInfo] = field(default_factory=list)
    missing_wraps: Mapping[str, int] = field(default_factory=dict)


def create_local_kek(path: str | os.PathLike[str]) -> None:
    """Make a KEK file with one version, mode 0600; never overwrites one.

    Raises:
        ConfigurationError: the file exists, or cannot be made.
    """
    create_kek_file(path)


async def list_keys(
    km: KeyManager,
    *,
    keyring: str | None = None,
    states: Collection[DataKeyState] | None = None,
    limit: int | None = None,
) -> KeyPage:
    """Return data keys by keyring and version, at most ``limit`` of them, and their number in all.

    Raises:
        KeyNotFoundError: there is no such keyring.
    """
    session = await km.session()
    total = 0
    kept: list[KeyRecord] = []
    async with session.surroundings.store.reading() as work:
        if keyring is not None:
            await get_keyring(work, keyring)
        after = 0
        while True:
            page = await work.keys(keyring=keyring, states=states, after_id=after, limit=PAGE)
            total += len(page)
            kept += page
            if limit is not None and len(kept) > limit:
                kept = heapq.nsmallest(limit, kept, key=_place)
            if len(page) < PAGE:
                break
            after = page[-1].id
    return KeyPage([DataKeyInfo.from_record(row) for row in sorted(kept, key=_place)], total)


async def find_key(km: KeyManager, reference: str) -> DataKeyInfo:
    """Return the data key that ``reference`` names: its id, or ``keyring/version``.

    Raises:
        InvalidInputError: it reads like neither.
        KeyNotFoundError: there is none.
    """
    session = await km.session()
    keyring, slash, version = reference.rpartition("/")
    if not reference.isdecimal() and not (slash and keyring and version.isdecimal()):
        raise InvalidInputError(f"a data key is named by its id, or as keyring/version: {reference!r} is neither")
    async with session.surroundings.store.reading() as work:
        if slash:
            await get_keyring(work, keyring)
            after = min(int(version), MAX_VERSION) - 1
            rows = await work.versions(keyring, after=after, limit=1)
            row = next((each for each in rows if each.version == int(version)), None)
        else:
            row = await work.find_key(int(reference)) if int(reference) < 2**63 else None
    if row is None:
        raise KeyNotFoundError(f"no data key {reference} in this store; `keystead key list` shows them")
    return DataKeyInfo.from_record(row)


async def create_keyring(km: KeyManager, name: str, *, is_for_files: bool = False) -> DataKeyInfo:
    """Make a keyring with a first version, and return that.

    Raises:
        KeyStateError: it exists already.
        InvalidInputError: the name is not allowed.
    """
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        if await work.find_keyring(name) is not None:
            raise KeyStateError(
                f"keyring {name!r} exists; `keystead key rotate {shlex.quote(name)}` gives it a new version"
            )
    handle = await km.keyring(name, algorithm=STREAM_ALGORITHM if is_for_files else MESSAGE_ALGORITHM)
    return (await handle.versions())[-1]


async def open_keyring(km: KeyManager, name: str) -> KeyringHandle:
    """Return an existing keyring of any algorithm that encrypts.

    Raises:
        KeyNotFoundError: there is none of that name.
        KeyStateError: its keys are Keystead's own.
    """
    return await _open(km, await _keyring(km, name))


async def _keyring(km: KeyManager, name: str) -> KeyringRecord:
    async with (await km.session()).surroundings.store.reading() as work:
        return await get_keyring(work, name)


async def _open(km: KeyManager, record: KeyringRecord) -> KeyringHandle:
    name = record.name
    if record.purpose is not KeyringPurpose.ENCRYPT:
        verb = "rewrap" if record.purpose is KeyringPurpose.WRAP else "rotate-index"
        raise KeyStateError(
            f"keyring {name!r} is of purpose {record.purpose} and encrypts no data; `keystead key {verb}` replaces "
            "its keys"
        )
    return await km.keyring(name, algorithm=record.algorithm, create=False)


async def rotate_keyring(
    km: KeyManager,
    name: str,
    *,
    promote: str = "auto",
    min_age: timedelta | None = None,
    may_prove: bool = False,
) -> DataKeyInfo:
    """Give a keyring a new version; see ``KeyManager.rotate_data_key``.

    Args:
        may_prove: also one whose keys make codes or signatures; those before go on to check.

    Raises:
        KeyNotFoundError: there is none of that name.
        KeyStateError: it wraps keys, its keys hash what is looked for, or it is that of a Transit key; the message
            names the command.
    """
    record = await _keyring(km, name)
    if is_of_transit(name):
        raise KeyStateError(
            f"keyring {name!r} holds the versions of a Transit key, which has rules of its own: `keystead transit "
            "rotate` adds a version"
        )
    if may_prove and record.purpose in _PROVING:
        session = await km.session()
        return await session.rotate(name, await session.live.load(name), promote=promote, min_age=min_age)
    return await (await _open(km, record)).rotate(promote=promote, min_age=min_age)


async def rotate_index_key(km: KeyManager, name: str) -> tuple[DataKeyInfo, list[str]]:
    """Begin to replace an index key; return its new version, and the ids of the fields that it waits for."""
    key = await km.rotate_index_key(name)
    fields = [field for field in await km.fields() if field.index_keyring == name]
    return key, [field.id for field in fields if (field.indexed_version or 0) < key.version]


async def abandon_index_rotation(km: KeyManager, name: str) -> DataKeyInfo:
    """Give up a rotation of an index key, and return the version that is not used after all.

    Raises:
        KeyStateError: no rotation of it has begun.
    """
    row = await (await km.session()).lifecycle.index_rotation.abandon(name)
    if row is None:
        raise KeyStateError(f"keyring {name!r} is not being rotated; there is nothing to abandon")
    return DataKeyInfo.from_record(row)


async def rewrap(km: KeyManager, *, new_kek_version: bool = False, new_wrap_key: bool = True) -> RewrapReport:
    """Wrap the WRAP keys under the KEK of now and every data key under the newest of them; see ``Rewrap.run``."""
    session = await km.session()
    return await session.lifecycle.rewrap.run(new_kek_version=new_kek_version, new_wrap_version=new_wrap_key)


async def disable_key(km: KeyManager, key_id: int) -> DataKeyInfo:
    """Stop a decrypt-only version from decrypting, until it is enabled."""
    return DataKeyInfo.from_record(await (await km.session()).lifecycle.destruction.disable(key_id))


async def enable_key(km: KeyManager, key_id: int) -> DataKeyInfo:
    """Let a disabled version decrypt again."""
    return DataKeyInfo.from_record(await (await km.session()).lifecycle.destruction.enable(key_id))


async def schedule_destroy(
    km: KeyManager, key_id: int, *, wait: timedelta = DEFAULT_WAIT, without_sources: bool = False
) -> DataKeyInfo:
    """Schedule a version's destruction once no declared source needs it; see ``Destruction.schedule``."""
    session = await km.session()
    key = await find_key(km, str(key_id))
    how: dict[str, int | bool] = {"wait_s": int(wait.total_seconds()), "without_sources": without_sources}
    async with session.consent.given(Act(Action.KEY_DESTROY, f"{key.keyring}/{key.version}", how)):
        row = await session.lifecycle.destruction.schedule(key_id, wait=wait, without_sources=without_sources)
    return DataKeyInfo.from_record(row)


async def cancel_destroy(km: KeyManager, key_id: int) -> DataKeyInfo:
    """Call a scheduled destruction off; the version is disabled afterwards."""
    return DataKeyInfo.from_record(await (await km.session()).lifecycle.destruction.cancel(key_id))


async def declare_use(km: KeyManager, keyring: str, name: str, locator: str) -> KeyUse:
    """Declare where ciphertexts of a keyring lie, so that a destroy looks there. Relative paths become absolute.

    ``people-{tenant}`` declares it for the keyring of every tenant, those to come included.

    Raises:
        InvalidInputError: the locator is of another form, or carries a password, which would be stored in clear.
        KeyNotFoundError: there is no such keyring.
    """
    if not re.fullmatch(r"[\w.:@ -]{1,100}", name):
        raise InvalidInputError("a source's name has 1 to 100 letters, digits, spaces and . : @ _ -")
    use = KeyUse(name, keyring, _lasting_locator(locator))
    session = await km.session()
    async with session.surroundings.store.transaction() as work:
        if not is_pattern(keyring):
            await get_keyring(work, keyring)
        details: dict[str, Detail] = {"name": name, "locator": use.locator}
        await session.surroundings.audit.record(work, AuditEvent("use.declare", keyring, details=details))
        await work.declare_use(use)
    return use


async def list_uses(km: KeyManager, keyring: str | None = None) -> list[KeyUse]:
    """Return the declared sources of a keyring, those of a pattern that names it included, or of all of them."""
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        if keyring is not None and not is_pattern(keyring):
            await get_keyring(work, keyring)
        return await work.key_uses(keyring)


async def drop_use(km: KeyManager, keyring: str, name: str) -> None:
    """Take a declaration back: of a keyring, or of a pattern.

    Raises:
        KeyNotFoundError: there is none of that name.
    """
    session = await km.session()
    async with session.surroundings.store.transaction() as work:
        await session.surroundings.audit.record(work, AuditEvent("use.drop", keyring, details={"name": name}))
        if not await work.drop_use(keyring, name):
            for use in await work.key_uses(keyring):
                if use.name == name:
                    raise KeyNotFoundError(
                        f"data source {name!r} is declared for every keyring {use.keyring!r}; take it back for those"
                    )
            raise KeyNotFoundError(
                f"keyring {keyring!r} has no data source {name!r}; `keystead key uses list` shows them"
            )


async def store_status(km: KeyManager, *, lists_leaving: bool = True, at_most: int | None = None) -> StoreStatus:
    """Return the state of the whole store, read in one transaction.

    Args:
        at_most: up to how many keyrings, and keys in a state, are counted.
        lists_leaving: whether ``pending_destroy`` has the keys, of which there may be many; they are counted anyhow.
    """
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        state = await work.state()
        nodes = await work.live_nodes()
        keyrings = await work.count_keyrings(at_most=at_most)
        counts = await work.count_states(at_most=at_most)
        wraps = await work.wrap_keys()
        next_rotation = await work.next_rotation()
        pending = await all_keys(work, states={DataKeyState.PENDING_DESTROY}) if lists_leaving else []
    keks = Counter((row.kek_provider or "", row.kek_key_id or "", row.kek_version) for row in wraps)
    return StoreStatus(
        store_id=state.store_id,
        epoch=state.epoch,
        is_restored=state.restored,
        keyrings=keyrings,
        nodes=len(nodes),
        keys={member.value: counts[member] for member in DataKeyState if member in counts},
        keks=[KekUse(*kek, number) for kek, number in sorted(keks.items(), key=lambda item: str(item[0]))],
        next_rotation=next_rotation,
        pending_destroy=[DataKeyInfo.from_record(row) for row in sorted(pending, key=_place)],
        missing_wraps=Counter(name for row in wraps for name in session.surroundings.wrapper.missing_wraps(row)),
    )


def _lasting_locator(locator: str) -> str:
    kind, _, place = locator.partition(":")
    if not place or kind not in ("file", "sql", "app"):
        raise InvalidInputError("a source is file:<glob>, sql:<url>#<table>.<column> or app:<name>")
    if kind == "file":
        return "file:" + os.path.abspath(os.path.expanduser(place))
    if kind == "sql":
        url, sign, target = place.rpartition("#")
        if not sign or not re.fullmatch(r"[^.]+\.[^.]+(\.[^.]+)?", target):
            raise InvalidInputError("an SQL source reads sql:<url>#<table>.<column>")
        if urlsplit(url).password is not None:
            raise InvalidInputError(
                "a source's URL is kept in clear: leave the password out, and give it by PGPASSFILE or PGPASSWORD"
            )
        if url.startswith("sqlite:///"):
            url = "sqlite:///" + os.path.abspath(url.removeprefix("sqlite:///"))
        return f"sql:{url}#{target}"
    return locator


def _place(row: KeyRecord) -> tuple[str, int]:
    return row.keyring, row.version
