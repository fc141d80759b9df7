"""Making a keyring with its first version, so that any number of processes starting at once end with one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from keystead.crypto.keyring import Keyring
from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, StoreRestoredError
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrapping import seal_key
from keystead.model import KeyRecord, KeyringPurpose, KeyringRecord
from keystead.ports import AuditEvent, UnitOfWork


@dataclass(frozen=True, slots=True)
class NewKey:
    """A data key that is about to be wrapped, and the pairs that are sealed with it."""

    key: bytes = field(repr=False)
    context: Mapping[str, str] = field(default_factory=dict)


async def create_wrap_keyring(s: Surroundings, store_id: str, keyring: KeyringRecord) -> tuple[KeyRecord, bytes | None]:
    """Return the active WRAP version, made if there is none, and its key if it was made here.

    The KMS call happens before the transaction, so that no database lock waits for a network.

    Raises:
        InvalidInputError: a keyring of that name exists and is another kind.
        StoreRestoredError: there is none, and the store must be recovered first.
    """
    async with s.store.reading() as work:
        known = await work.find_keyring(keyring.name)
        if known is not None and known.purpose is not KeyringPurpose.WRAP:
            raise InvalidInputError(f"keyring {keyring.name!r} exists and wraps no keys; use another name")
        if (active := await work.find_active(keyring.name)) is not None:
            return active, None
        await require_writable(work, lock=False)
    row, key = await s.wrapper.draw(store_id, s.new_row(keyring, known.next_version if known else 1), s.kek)
    async with s.store.transaction() as work:
        winner = await _claim(s, work, keyring)
        if winner is not None:
            return winner, None
        if await work.take_version(keyring.name) != row.version:
            raise ConflictError("another process made a WRAP version at the same moment; try again")
        return await add_active(s, work, keyring, row), key


async def create_keyring(s: Surroundings, store_id: str, keyring: KeyringRecord, wrap_ring: Keyring) -> None:
    """Make ``keyring`` with an active version unless it has one already."""
    key = await s.new_key(keyring)
    async with s.store.transaction() as work:
        await create_within(s, work, keyring, store_id=store_id, wrap_ring=wrap_ring, key=NewKey(key))


async def create_within(
    s: Surroundings, work: UnitOfWork, keyring: KeyringRecord, *, store_id: str, wrap_ring: Keyring, key: NewKey
) -> KeyRecord:
    """Return the active version of ``keyring`` in a transaction that has begun, made of ``key`` if there is none."""
    if (active := await _claim(s, work, keyring)) is not None:
        return active
    row = s.new_row(keyring, await work.take_version(keyring.name), key.context)
    return await add_active(s, work, keyring, seal_key(wrap_ring, store_id, row, key.key))


async def add_keyrings(
    s: Surroundings, work: UnitOfWork, store_id: str, keyrings: Sequence[KeyringRecord], wrap_ring: Keyring
) -> None:
    """Make keyrings whose names are new, each with an active version, in a transaction that has begun."""
    await require_writable(work)
    epoch, made = await work.bump_epoch(), []
    for keyring in keyrings:
        row = seal_key(wrap_ring, store_id, s.new_row(keyring, keyring.next_version), await s.new_key(keyring))
        row = s.activation(keyring).of(replace(row, published_epoch=epoch))
        made.append((replace(keyring, next_version=keyring.next_version + 1), row))
    for wrapped_by in {row.wrapped_by for _, row in made}:
        await require_usable_wrap(work, wrapped_by)
    for keyring, row in made:
        await s.audit.record(work, AuditEvent("keyring.create", keyring.name))
        await s.audit.record(work, AuditEvent("key.create", keyring.name, row.id, {"version": row.version}))
    await work.add_keyrings(made)


async def add_active(s: Surroundings, work: UnitOfWork, keyring: KeyringRecord, row: KeyRecord) -> KeyRecord:
    """Insert ``row`` as the keyring's active version and return it as stored."""
    row = s.activation(keyring).of(replace(row, published_epoch=await work.bump_epoch()))
    await require_usable_wrap(work, row.wrapped_by)
    await s.audit.record(work, AuditEvent("key.create", keyring.name, row.id, {"version": row.version}))
    await work.add_key(row)
    return row


async def get_keyring(work: UnitOfWork, name: str) -> KeyringRecord:
    """Return a keyring that has to be there.

    Raises:
        KeyNotFoundError: it is not.
    """
    keyring = await work.find_keyring(name)
    if keyring is None:
        raise no_keyring(name)
    return keyring


def no_keyring(name: str) -> KeyNotFoundError:
    """Return the error for a keyring that is not there."""
    if name.startswith("keystead."):
        return KeyNotFoundError(
            f"no keyring {name!r} in this store; it is one of Keystead's own, which are made by what uses them first"
        )
    return KeyNotFoundError(f"no keyring {name!r} in this store; `keystead key create {shlex.quote(name)}` makes it")


async def _claim(s: Surroundings, work: UnitOfWork, keyring: KeyringRecord) -> KeyRecord | None:
    """Insert the keyring if it is new and lock it; return its active version if another process made one."""
    if await work.add_keyring(keyring):
        await s.audit.record(work, AuditEvent("keyring.create", keyring.name))
    await work.find_keyring(keyring.name, lock=True)
    await require_writable(work)
    return await work.find_active(keyring.name)


async def require_writable(work: UnitOfWork, *, lock: bool = True) -> None:
    """Raise if the store is restored; with ``lock`` nobody marks it so before the transaction ends.

    Raises:
        StoreRestoredError: it must be recovered first.
    """
    if (await work.state(lock=lock)).restored:
        raise StoreRestoredError


async def require_usable_wrap(work: UnitOfWork, wrapped_by: int | None) -> None:
    """Raise if the WRAP version that a key was just wrapped by has gone out of use; None is a key that a KEK wraps.

    Ask once the transaction has counted the epoch up: until it ends nobody else takes the version out of use.

    Raises:
        ConflictError: it has; wrap the key by the version that is active now.
    """
    wrap = None if wrapped_by is None else await work.find_key(wrapped_by)
    if wrapped_by is not None and (wrap is None or not wrap.state.can_decrypt):
        raise ConflictError(f"WRAP key {wrapped_by} went out of use while a key was wrapped by it; try again")


def not_restored_error() -> InvalidInputError:
    """Return the error of a recovery where there is nothing to recover."""
    return InvalidInputError("this store is not restored, or was recovered meanwhile; there is nothing to recover")
