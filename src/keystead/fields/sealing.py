"""What must become of rows that were read: the cryptography of re-encryption, without a database.

A row is brought to its target: its ciphertext under the active version of its keyring, its index columns and token rows
exactly those of the live index keys. What is there already is not made again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import NoneType
from typing import Final, Protocol
from uuid import UUID

from keystead.crypto.batch import open_all, open_one, seal_all
from keystead.crypto.codec import ValueType, decode_value, encode_value
from keystead.crypto.envelope import MAGIC, SUITE_AES_256_GCM
from keystead.crypto.keyring import Keyring
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KeyStateError
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.importing.looks import require_clear
from keystead.fields.importing.rows import ForeignValues
from keystead.fields.indexes import version_marks
from keystead.fields.plaintext import from_column, from_json
from keystead.ports.rows import Row, RowChange, RowKey, RowLayout

_START: Final = bytes((MAGIC, SUITE_AES_256_GCM))
_Indexes = tuple[bytes | None, ...]

YIELD_ROWS: Final = 256
"""After so many rows other threads get a turn."""
YIELD_S: Final = 0.000_05


class Loads(Protocol):
    """Loads what rows need, in a thread that may wait."""

    def data_key(self, ciphertext: bytes) -> bool:
        """Load the data key a ciphertext names; False where the store has none."""

    def tenants(self, names: set[str]) -> None:
        """Load the keyrings of tenants."""


@dataclass(slots=True)
class Work:
    """What a batch needs: rows to write, rows that cannot be read with the reason's code, and how many need nothing."""

    changes: list[RowChange] = field(default_factory=list)
    failures: list[tuple[RowKey, str]] = field(default_factory=list)
    skipped: int = 0


@dataclass(slots=True)
class _Tenant:
    """One tenant's keyring in the batch at hand: what its current ciphertexts begin with, and what opens the others."""

    name: str | None
    ring: Keyring
    current: bytes
    context: Callable[[object], bytes]
    rings: dict[bytes, Keyring] = field(default_factory=dict)
    waiting: list[tuple[RowChange, bytes, bytes]] = field(default_factory=list)


class RowSealer:
    """Decides and does the cryptography for rows of one field, one thread at a time.

    Args:
        cipher: the field's.
        layout: where the columns stand.
        loads: what may be loaded in between.
        verify: compute every index instead of trusting one that looks complete.
        foreign: opens values that another system wrote, in the plaintext column or, without one, among the ciphertexts.
    """

    def __init__(
        self,
        cipher: FieldCipher,
        layout: RowLayout,
        loads: Loads,
        *,
        verify: bool,
        foreign: ForeignValues | None = None,
    ) -> None:
        self._cipher = cipher
        self._field = cipher.field
        self._at = layout
        self._loads = loads
        self._verify = verify
        self._foreign = foreign
        self._absent: set[bytes] = set()
        indexes = [index for index in self._field.indexes if not index.many]
        self._sized = [(parity, index.stored_size) for index in indexes for parity in (0, 1)]
        self._tokens = self._field.token_index
        self._record_of = _record_reader(self._field, layout)
        self._is_plain = not (
            self._sized or self._tokens or layout.plaintext is not None or self._field.encrypt_null or foreign
        )

    @property
    def has_tokens(self) -> bool:
        """Whether the rows have token rows, which ``work_on`` wants to see."""
        return self._tokens is not None

    def work_on(self, rows: Sequence[Row], tokens: Mapping[object, set[bytes]] | None = None) -> Work:
        """Return what the rows need. ``tokens`` are their token rows by record.

        Raises:
            KMSError: what concerns no single row: keys that cannot be used now, or a view that is too old.
        """
        work = Work()
        tenants: dict[object, _Tenant | str] = {}
        self._load_tenants(rows)
        if self._foreign is not None:
            self._foreign.open(rows, self._at)
        step = self._ciphertexts if self._is_plain else self._rows
        for at in range(0, len(rows), YIELD_ROWS):
            step(rows[at : at + YIELD_ROWS], tenants, tokens, work)
            # The threads that write and record the batch before need the interpreter for moments, and would wait
            # milliseconds for each: it changes hands at once only where somebody really sleeps.
            time.sleep(YIELD_S)
        if not self._is_plain or len(tenants) > 1:
            order = {row[: self._at.key]: place for place, row in enumerate(rows)}
            work.changes.sort(key=lambda change: order[change.key])
        return work

    def _ciphertexts(
        self,
        rows: Sequence[Row],
        tenants: dict[object, _Tenant | str],
        tokens: Mapping[object, set[bytes]] | None,
        work: Work,
    ) -> None:
        """Do what ``_rows`` does, for a field that has nothing but its ciphertext."""
        place = self._at.tenant
        alike: dict[object, list[Row]] = {}
        if place is None:
            alike[None] = [*rows]
        else:
            for row in rows:
                alike.setdefault(row[place], []).append(row)
        for given, members in alike.items():
            tenant = tenants.get(given) or self._tenant_of(members[0], tenants)
            if isinstance(tenant, str):
                work.failures += [(row[: self._at.key], tenant) for row in members]
            elif not self._resealed(members, tenant, work):
                self._reseal_each(members, tenant, work)

    def _resealed(self, rows: Sequence[Row], tenant: _Tenant, work: Work) -> bool:
        """Bring rows of a tenant to its current data key, and return whether it was done: all of them can be read.

        Most of the time is spent here, and half of it would go into looking at each row by itself.
        """
        column, width, current = self._at.ciphertext, self._at.key, tenant.current
        if {row[column].__class__ for row in rows} - {bytes, NoneType}:
            return False
        stale = [row for row in rows if (blob := row[column]) is not None and blob[:10] != current]
        blobs = [row[column] for row in stale]
        if not blobs:
            work.skipped += len(rows)
            return True
        try:
            rings = {self._ring_of(blob, tenant) for blob in {blob[2:10]: blob for blob in blobs}.values()}
            if len(rings) > 1:
                return False
            contexts = [*map(tenant.context, map(self._record_of, stale))]
            plaintexts = open_all(rings.pop(), zip(blobs, contexts, strict=True))
        except (DecryptionError, InvalidInputError, KeyStateError):
            return False
        sealed = seal_all(tenant.ring, zip(plaintexts, contexts, strict=True))
        work.changes += map(RowChange, [row[:width] for row in stale], blobs, sealed)
        work.skipped += len(rows) - len(stale)
        return True

    def _reseal_each(self, rows: Sequence[Row], tenant: _Tenant, work: Work) -> None:
        """Do the same one row at a time: one that cannot be read fails by itself."""
        column, width = self._at.ciphertext, self._at.key
        rewritten: list[tuple[RowKey, bytes]] = []
        messages: list[tuple[bytes, bytes]] = []
        for row in rows:
            blob = row[column]
            try:
                if blob is not None:
                    blob = _binary(blob)
                if blob is None or blob[:10] == tenant.current:
                    work.skipped += 1
                    continue
                context = tenant.context(self._record_of(row))
                plaintext = open_one(self._ring_of(blob, tenant), blob, context)
            except (DecryptionError, InvalidInputError, KeyStateError) as exc:
                work.failures.append((row[:width], exc.code))
                continue
            rewritten.append((row[:width], blob))
            messages.append((plaintext, context))
        sealed = seal_all(tenant.ring, messages)
        work.changes += [RowChange(key, blob, new) for (key, blob), new in zip(rewritten, sealed, strict=True)]

    def _rows(
        self,
        rows: Sequence[Row],
        tenants: dict[object, _Tenant | str],
        tokens: Mapping[object, set[bytes]] | None,
        work: Work,
    ) -> None:
        """Add to ``work`` what rows need that have indexes or a plaintext."""
        place, width = self._at.tenant, self._at.key
        live = version_marks(self._cipher.index_versions)
        for row in rows:
            tenant = tenants.get(None if place is None else row[place]) or self._tenant_of(row, tenants)
            try:
                if isinstance(tenant, str):
                    work.failures.append((row[:width], tenant))
                else:
                    self._row(row, tenant, live, tokens, work)
            except (DecryptionError, InvalidInputError, KeyStateError) as exc:
                work.failures.append((row[:width], exc.code))
        for each in tenants.values():
            if isinstance(each, _Tenant) and each.waiting:
                sealed = seal_all(each.ring, ((plaintext, context) for _, plaintext, context in each.waiting))
                work.changes += [
                    change._replace(new=new) for (change, _, _), new in zip(each.waiting, sealed, strict=True)
                ]
                each.waiting.clear()

    def _row(
        self,
        row: Row,
        tenant: _Tenant,
        live: Mapping[int, bytes],
        tokens: Mapping[object, set[bytes]] | None,
        work: Work,
    ) -> None:
        at = self._at
        key, blob = row[: at.key], row[at.ciphertext]
        is_foreign = self._foreign is not None and self._foreign.holds(blob)
        if blob is not None and not is_foreign:
            blob = _binary(blob)
        guard = None if at.guard is None else row[at.guard]
        is_new = is_foreign or (blob is None and (guard is not None or self._field.encrypt_null))
        is_stale = not is_new and blob is not None and blob[:10] != tenant.current
        found: _Indexes = row[at.indexes]
        suspects = (self._sized or self._tokens) and (is_new or not self._is_indexed(blob, found, live))
        if not (is_new or is_stale or suspects or guard is not None):
            work.skipped += 1
            return
        plaintext, context = b"", b""
        if is_new or blob is not None:
            context = tenant.context(self._record_of(row))
        if is_new:
            plaintext = self._plaintext_of(row)
        elif blob is not None:
            plaintext = open_one(self._ring_of(blob, tenant), blob, context)
            if guard is not None and self._plaintext_of(row) != plaintext:
                raise InvalidInputError(
                    "a row has a ciphertext and another value in clear, and either may be the newer"
                )
        indexes: _Indexes | None = None
        marks: Sequence[bytes] | None = None
        record = None
        if suspects:
            indexes, marks = self._indexes_of(plaintext, tenant.name)
            record = row[at.record[0]]
            if indexes == found:
                indexes = None
            if marks is not None and tokens is not None and set(marks) == tokens.get(record, set()):
                marks = None
        bound = tuple(row[place] for place in at.bound) if is_new else ()
        is_imported = is_foreign or (is_new and guard is not None and self._foreign is not None)
        change = RowChange(key, blob, blob, indexes, guard, record, marks, bound, is_imported)
        if is_new or is_stale:
            tenant.waiting.append((change, plaintext, context))
        elif indexes is not None or marks is not None or guard is not None:
            work.changes.append(change)
        else:
            work.skipped += 1

    def _plaintext_of(self, row: Row) -> bytes:
        """Return the typed plaintext of a value that stands in clear, or of none."""
        kind, at = self._field.value_type, self._at
        if self._foreign is not None:
            stands = row[at.ciphertext if at.plaintext is None else at.plaintext]
            value = None if stands is None else self._foreign.value_of(stands)
        elif at.guard is None or row[at.guard] is None:
            return self._cipher.typed(None)
        else:
            if not self._field.allow_envelopes:
                require_clear(row[at.plaintext or 0])
            value = from_json(row[at.guard]) if kind is ValueType.JSON else from_column(row[at.plaintext or 0], kind)
        # None is what stands for nothing in JSON.
        return encode_value(None, kind) if value is None else self._cipher.typed(value)

    def _is_indexed(self, blob: bytes | None, found: _Indexes, live: Mapping[int, bytes]) -> bool:
        """Return whether the indexes look complete: a hash of each live version of the right size, nothing else."""
        if self._verify or self._tokens is not None:
            return False
        if blob is None:
            return not any(found)
        return all(
            (isinstance(value, bytes) and len(value) == size and value.startswith(live[parity]))
            if parity in live
            else value is None
            for value, (parity, size) in zip(found, self._sized, strict=True)
        )

    def _indexes_of(self, plaintext: bytes, tenant: str | None) -> tuple[_Indexes, Sequence[bytes] | None]:
        value: object = None
        if plaintext:
            expected = None if self._field.encrypt_null else self._field.value_type
            value = decode_value(plaintext, expected)
        indexes = tuple(self._cipher.index_values(value, tenant=tenant).values())
        if self._tokens is None:
            return indexes, None
        return indexes, sorted(set(self._cipher.token_values(self._tokens, value, tenant=tenant)))

    def _ring_of(self, blob: bytes, tenant: _Tenant) -> Keyring:
        """Return the keyring a ciphertext is under; of one that none of them holds, the data key is loaded first."""
        name = blob[2:10]
        ring = tenant.rings.get(name)
        if ring is None:
            ring = self._cipher.ring_of(blob, tenant.name)
            if int.from_bytes(name, "big") not in ring.snapshot.keys and name not in self._absent:
                if not self._loads.data_key(blob):
                    self._absent.add(name)
                ring = self._cipher.ring_of(blob, tenant.name)
            tenant.rings[name] = ring
        return ring

    def _load_tenants(self, rows: Sequence[Row]) -> None:
        if self._field.has_keyring_per_tenant and self._at.tenant is not None:
            names = {name for row in rows if (name := self._name_of(row[self._at.tenant])) is not None}
            missing = {name for name in names if self._cipher.keyrings.find(self._field.keyring_of(name)) is None}
            if missing:
                self._loads.tenants(missing)

    def _name_of(self, given: object) -> str | None:
        """Return the tenant that a column's value names; None for none, and for what names none."""
        with contextlib.suppress(InvalidInputError, UnicodeEncodeError):
            name = self._field.read_tenant(given)
            if name is not None:
                name.encode()  # SQLite holds text that is none, which names no keyring
            return name
        return None

    def _tenant_of(self, row: Row, tenants: dict[object, _Tenant | str]) -> _Tenant | str:
        """Return the row's tenant, or the code of why it has none."""
        given = row[self._at.tenant] if self._at.tenant is not None else None
        made: _Tenant | str
        try:
            name = self._name_of(given)
            if self._at.tenant is not None and name is None:
                raise InvalidInputError("the row names no tenant")
            ring = self._cipher.ring(name)
            active = ring.snapshot.active
            made = _Tenant(name, ring, _START + (active or 0).to_bytes(8, "big"), self._cipher.contexts_of(name))
        except InvalidInputError as exc:
            made = exc.code
        tenants[given] = made
        return made


def _record_reader(field: Field, layout: RowLayout) -> Callable[[Row], object]:
    """Return what gives the record of a row, in the types that the field declares for it."""
    places = layout.record
    if UUID not in field.record_types:
        return itemgetter(*places)
    return lambda row: field.read_record(tuple(row[place] for place in places))


def _binary(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidCiphertextError("a field's column is of bytes, and this one holds something else")
