"""Under which keyring the rows of a batch belong, and which opens what they hold: a tenant's, or each subject's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Protocol
from uuid import UUID

from keystead.crypto.batch import seal_all
from keystead.crypto.envelope import MAGIC, SUITE_AES_256_GCM, parse_header
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, InvalidCiphertextError, InvalidInputError
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.model import DataKeyState, is_of_subject
from keystead.ports.rows import Row, RowChange, RowKey, RowLayout

_START: Final = bytes((MAGIC, SUITE_AES_256_GCM))


class Loads(Protocol):
    """Loads what rows need, in a thread that may wait."""

    def data_key(self, ciphertext: bytes) -> bool:
        """Load the data key a ciphertext names; False where the store has none."""

    def tenants(self, names: set[str]) -> None:
        """Load the keyrings of tenants."""

    def holders(self, key_ids: Collection[int]) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; those that the store has not are left out."""

    def subjects(self, names: Collection[str], *, create: bool) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects by their names, loaded; those there are none of are made or left out."""


@dataclass(slots=True)
class Owner:
    """Whose values are under one keyring in the batch at hand: a tenant's, or those of a subject of one.

    Current ciphertexts begin with ``current``. ``rings`` opens the others, by the ids of their data keys. ``waiting``
    are changes that lack their ciphertext, each with plaintext and context. ``ring`` is None for rows that hold
    nothing, which have no subject.
    """

    tenant: str | None
    ring: Keyring | None
    context: Callable[[object], bytes]
    rings: dict[bytes, Keyring] = field(default_factory=dict)
    waiting: list[tuple[RowChange, bytes, bytes]] = field(default_factory=list)
    current: bytes = field(init=False)

    def __post_init__(self) -> None:
        active = None if self.ring is None else self.ring.snapshot.active
        self.current = _START + (active or 0).to_bytes(8, "big")

    def seal(self, messages: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        """Return an envelope for each plaintext and context, under the keyring of now."""
        return [] if self.ring is None else seal_all(self.ring, messages)


class Owners:
    """Finds the owners of rows, where each tenant's or all are under one keyring.

    Args:
        is_foreign: tells whether what stands in the column of ciphertexts is of another system.
    """

    def __init__(
        self, cipher: FieldCipher, layout: RowLayout, loads: Loads, is_foreign: Callable[[object], bool]
    ) -> None:
        self.record_of = _record_reader(cipher.field, layout)
        self._cipher = cipher
        self._field = cipher.field
        self._at = layout
        self._loads = loads
        self._is_foreign = is_foreign
        self._absent: set[bytes] = set()
        self._found: dict[object, Owner | str] = {}

    def begin(self, rows: Sequence[Row]) -> None:
        """Load what a batch needs; its owners are new ones."""
        self._found = {}
        if self._field.has_keyring_per_tenant and self._at.tenant is not None:
            names = {name for row in rows if (name := self._name_of(row[self._at.tenant])) is not None}
            missing = {name for name in names if self._cipher.keyrings.find(self._field.keyring_of(name)) is None}
            if missing:
                self._loads.tenants(missing)

    def all(self) -> list[Owner]:
        """Return the owners found so far in this batch."""
        return [each for each in self._found.values() if isinstance(each, Owner)]

    def of(self, row: Row) -> Owner | str:
        """Return the row's owner, or the code of why it has none."""
        given = self._given(row)
        return self._found.get(given) or self._make(given, given, self._cipher.ring)

    def ring_of(self, blob: bytes, owner: Owner) -> Keyring:
        """Return the keyring a ciphertext is under; of one that none of them holds, the data key is loaded first."""
        name = blob[2:10]
        ring = owner.rings.get(name)
        if ring is None:
            ring = self._cipher.ring_of(blob, owner.tenant)
            if int.from_bytes(name, "big") not in ring.snapshot.keys and name not in self._absent:
                if not self._loads.data_key(blob):
                    self._absent.add(name)
                ring = self._cipher.ring_of(blob, owner.tenant)
            owner.rings[name] = ring
        return ring

    def _given(self, row: Row) -> object:
        """Return what a row's tenant column holds; None where there is no such column."""
        return None if self._at.tenant is None else row[self._at.tenant]

    def _make(self, key: object, given: object, ring_of: Callable[[str | None], Keyring | None]) -> Owner | str:
        """Return the owner of rows with a tenant, and remember it under ``key``; the code of why there is none."""
        made: Owner | str
        try:
            tenant = self._tenant_of(given)
            made = Owner(tenant, ring_of(tenant), self._cipher.contexts_of(tenant))
        except InvalidInputError as exc:
            made = exc.code
        self._found[key] = made
        return made

    def _tenant_of(self, given: object) -> str | None:
        name = self._name_of(given)
        if self._at.tenant is not None and name is None:
            raise InvalidInputError("the row names no tenant")
        return name

    def _name_of(self, given: object) -> str | None:
        """Return the tenant that a column's value names; None for none, and for what names none."""
        with contextlib.suppress(InvalidInputError, UnicodeEncodeError):
            name = self._field.read_tenant(given)
            if name is not None:
                name.encode()  # SQLite holds text that is none, which names no keyring
            return name
        return None


class SubjectOwners(Owners):
    """Finds the owners of rows, where each subject's are under a keyring of its own.

    What is under a subject's keyring stays there where the row's subject has none: it may have been forgotten this
    moment, and is not brought back under another keyring.
    """

    def begin(self, rows: Sequence[Row]) -> None:
        """Load what a batch needs, in few reads for all of its subjects."""
        self._found = {}
        self._targets: dict[RowKey, Keyring | str] = {}
        self._holders = self._loads.holders({self._key_id(row) for row in rows if self._has_ciphertext(row)})
        staying: dict[RowKey, tuple[str, Keyring]] = {}
        coming: dict[RowKey, str] = {}
        for row in rows:
            key, held = row[: self._at.key], self._held(row)
            is_of_one = held is not None and is_of_subject(held.name)
            if held is not None and is_of_one and (_is_erased(held) or self._names_nobody(row)):
                self._targets[key] = held
            elif held is not None or self._is_to_be_filled(row):
                try:
                    name = self._subject_of(row)
                except InvalidInputError as exc:
                    self._targets[key] = exc.code
                    continue
                if held is not None and is_of_one:
                    staying[key] = name, held
                else:
                    coming[key] = name
        rings = dict(self._loads.subjects({*coming.values()}, create=True))
        rings |= self._loads.subjects({name for name, _ in staying.values()} - rings.keys(), create=False)
        self._targets |= {key: rings[name] for key, name in coming.items()}
        self._targets |= {key: rings.get(name) or held for key, (name, held) in staying.items()}

    def of(self, row: Row) -> Owner | str:
        """Return the row's owner, or the code of why it has none."""
        target = self._targets.get(row[: self._at.key])
        if isinstance(target, str):
            return target
        given = self._given(row)
        return self._found.get((given, target)) or self._make((given, target), given, lambda tenant: target)

    def ring_of(self, blob: bytes, owner: Owner) -> Keyring:
        """Return the keyring a ciphertext is under."""
        key_id = parse_header(blob).key_id
        ring = self._holders.get(key_id)
        if ring is None:
            raise DataKeyNotLoadedError(key_id)
        if not is_of_subject(ring.name) and ring.name not in self._field.former_keyrings_of(owner.tenant):
            raise InvalidCiphertextError("a value is under a keyring that the field does not name")
        return ring

    def _has_ciphertext(self, row: Row) -> bool:
        value = row[self._at.ciphertext]
        return isinstance(value, bytes | bytearray | memoryview) and not self._is_foreign(value)

    def _key_id(self, row: Row) -> int:
        return int.from_bytes(row[self._at.ciphertext][2:10], "big")

    def _held(self, row: Row) -> Keyring | None:
        """Return the keyring that a row's value is under; None where it has none, or one that is not loaded."""
        return self._holders.get(self._key_id(row)) if self._has_ciphertext(row) else None

    def _names_nobody(self, row: Row) -> bool:
        return self._at.subject is not None and row[self._at.subject] is None

    def _is_to_be_filled(self, row: Row) -> bool:
        if (value := row[self._at.ciphertext]) is not None:
            return self._is_foreign(value)
        return self._field.encrypt_null or (self._at.guard is not None and row[self._at.guard] is not None)

    def _subject_of(self, row: Row) -> str:
        given = None if self._at.subject is None else self._field.read_subject(row[self._at.subject])
        return self._field.subject_name(self.record_of(row), given) or ""


def _is_erased(ring: Keyring) -> bool:
    """Whether every key of a keyring is destroyed."""
    held = ring.snapshot
    return not held.keys and all(state is DataKeyState.DESTROYED for state in held.withheld.values())


def _record_reader(field: Field, layout: RowLayout) -> Callable[[Row], object]:
    """Return what gives the record of a row, in the types that the field declares for it."""
    places = layout.record
    if UUID not in field.record_types:
        return itemgetter(*places)
    return lambda row: field.read_record(tuple(row[place] for place in places))
