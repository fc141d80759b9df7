"""The register of encrypted fields: which there are, under which keyrings, and where their columns lie."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError, KeyNotFoundError
from keystead.fields import Field
from keystead.fields.places import locate, registration_of
from keystead.model.patterns import is_pattern
from keystead.ports import AuditEvent, FieldRecord, KeyUse, UnitOfWork

if TYPE_CHECKING:
    from keystead.manager.fields import ManagerKeyrings
    from keystead.manager.session import Session

LONGEST_ID: Final = 200
_REGISTERING: Final = "keystead.fields"


async def register(session: Session, keyrings: ManagerKeyrings, field: Field, source: str) -> FieldRecord:
    """Register ``field``; see ``KeyManager.register_field``."""
    if len(field.id) > LONGEST_ID:
        raise InvalidInputError(f"a field that is registered has an id of at most {LONGEST_ID} characters")
    locator = locate(field, source)
    if not is_pattern(field.keyring):
        await keyrings.load(field.keyring)
    async with session.surroundings.store.reading() as work:
        wanted = await _wanted(work, field, locator)
        if await _is_registered(work, wanted, field):
            return await _merged(work, wanted)
    async with session.surroundings.store.transaction() as work:
        # Not for the lease, but for its row: two places that are registered at once must not take one id.
        await work.claim_lease(_REGISTERING, "registering", 1)
        wanted = await _wanted(work, field, locator)
        if wanted.index_keyring is not None:
            # A rotation that ends at this moment either waits for this field or has ended before.
            await work.find_keyring(wanted.index_keyring, lock=True)
        merged = await _merged(work, wanted)
        await work.put_field(merged)
        for use in await _uses(work, wanted, field):
            await work.declare_use(use)
        details = {"field": wanted.id, "index_keyring": wanted.index_keyring, "locator": locator}
        await session.surroundings.audit.record(work, AuditEvent("field.register", wanted.keyring, details=details))
    return merged


async def registered(session: Session) -> list[FieldRecord]:
    """Return the registered fields by id."""
    async with session.surroundings.store.reading() as work:
        return await work.fields()


async def forget(session: Session, field_id: str) -> None:
    """Remove a registration and its key uses; see ``KeyManager.forget_field``."""
    async with session.surroundings.store.transaction() as work:
        record = await work.find_field(field_id)
        if record is None:
            raise KeyNotFoundError(f"no field {field_id!r} is registered; `keystead field list` shows them")
        await work.drop_field(field_id)
        name = use_name(field_id)
        for use in await work.key_uses():
            if use.name == name:
                await work.drop_use(use.keyring, name)
        details = {"field": field_id, "locator": record.locator}
        await session.surroundings.audit.record(work, AuditEvent("field.forget", record.keyring, details=details))


def use_name(field_id: str) -> str:
    """Return the name of the key uses of a field."""
    return f"field:{field_id}"


async def _wanted(work: UnitOfWork, field: Field, locator: str) -> FieldRecord:
    registered = await registration_of(work, field.id, locator)
    index_keyring = field.index_keyring if field.indexes else None
    record = None if field.token_index is None else field.record_columns[0]
    return FieldRecord(registered, field.keyring, index_keyring, locator, record=record)


async def _is_registered(work: UnitOfWork, wanted: FieldRecord, field: Field) -> bool:
    known = await work.find_field(wanted.id)
    declared = await work.key_uses()
    return known == await _merged(work, wanted) and all(use in declared for use in await _uses(work, wanted, field))


async def _merged(work: UnitOfWork, wanted: FieldRecord) -> FieldRecord:
    """Return ``wanted`` with what is known of its rows, if they are still the same rows under the same index keys."""
    known = await work.find_field(wanted.id)
    if known is None or known.index_keyring != wanted.index_keyring:
        return wanted
    return replace(wanted, indexed_version=known.indexed_version)


async def _uses(work: UnitOfWork, wanted: FieldRecord, field: Field) -> list[KeyUse]:
    names = [field.keyring]
    for name in field.former_keyrings:
        if is_pattern(name) or await work.find_keyring(name) is not None:
            names.append(name)
    return [KeyUse(use_name(wanted.id), name, wanted.locator) for name in names]
