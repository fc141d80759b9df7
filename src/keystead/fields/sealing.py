"""What must become of rows that were read: the cryptography of re-encryption, without a database.

A row is brought to its target: its ciphertext under the active version of its keyring, its index columns and token rows
exactly those of the live index keys. What is there already is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Final, Protocol

from keystead.crypto.batch import open_all, open_one
from keystead.crypto.codec import ValueType, decode_value, encode_value
from keystead.errors import (
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyStateError,
    SubjectErasedError,
)
from keystead.fields.cipher import FieldCipher
from keystead.fields.importing.looks import require_clear
from keystead.fields.importing.rows import ForeignValues
from keystead.fields.indexes import version_marks
from keystead.fields.owners import Loads, Owner, Owners, SubjectOwners
from keystead.fields.plaintext import from_column, from_json
from keystead.ports.rows import Row, RowChange, RowKey, RowLayout

_Indexes = tuple[bytes | None, ...]

YIELD_ROWS: Final = 256
"""After so many rows other threads get a turn."""
YIELD_S: Final = 0.000_05


@dataclass(slots=True)
class Work:
    """What a batch needs: rows to write, rows that cannot be read with the reason's code, and how many need nothing.

    Of all of them, ``erased`` are rows whose subject was forgotten: changed where an index finds them still.
    """

    changes: list[RowChange] = field(default_factory=list)
    failures: list[tuple[RowKey, str]] = field(default_factory=list)
    skipped: int = 0
    erased: int = 0


class WorksOnRows(Protocol):
    """Decides what rows need, one thread at a time."""

    @property
    def has_tokens(self) -> bool:
        """Whether the rows have token rows, which ``work_on`` wants to see."""

    def work_on(self, rows: Sequence[Row], tokens: Mapping[object, set[bytes]] | None = None) -> Work:
        """Return what the rows need; errors are of what concerns no single row."""


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
        self._verify = verify
        self._foreign = foreign
        indexes = [index for index in self._field.indexes if not index.many]
        self._sized = [(parity, index.stored_size) for index in indexes for parity in (0, 1)]
        self._tokens = self._field.token_index
        of_whom = SubjectOwners if self._field.has_subjects else Owners
        self._owners = of_whom(cipher, layout, loads, self._is_foreign)
        self._record_of = self._owners.record_of
        has_more = self._sized or self._tokens or layout.plaintext is not None or self._field.encrypt_null
        self._is_plain = not (has_more or foreign or self._field.has_subjects)

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
        if self._foreign is not None:
            self._foreign.open(rows, self._at)
        self._owners.begin(rows)
        step = self._ciphertexts if self._is_plain else self._rows
        for at in range(0, len(rows), YIELD_ROWS):
            step(rows[at : at + YIELD_ROWS], tokens, work)
            # The threads that write and record the batch before need the interpreter for moments, and would wait
            # milliseconds for each: it changes hands at once only where somebody really sleeps.
            time.sleep(YIELD_S)
        if not self._is_plain or len(self._owners.all()) > 1:
            order = {row[: self._at.key]: place for place, row in enumerate(rows)}
            work.changes.sort(key=lambda change: order[change.key])
        return work

    def _ciphertexts(self, rows: Sequence[Row], tokens: Mapping[object, set[bytes]] | None, work: Work) -> None:
        """Do what ``_rows`` does, for a field that has nothing but its ciphertext."""
        place = self._at.tenant
        alike: dict[object, list[Row]] = {}
        if place is None:
            alike[None] = [*rows]
        else:
            for row in rows:
                alike.setdefault(row[place], []).append(row)
        for members in alike.values():
            owner = self._owners.of(members[0])
            if isinstance(owner, str):
                work.failures += [(row[: self._at.key], owner) for row in members]
            elif not self._resealed(members, owner, work):
                self._reseal_each(members, owner, work)

    def _resealed(self, rows: Sequence[Row], owner: Owner, work: Work) -> bool:
        """Bring rows of an owner to its current data key, and return whether it was done: all of them can be read.

        Most of the time is spent here, and half of it would go into looking at each row by itself.
        """
        column, width, current = self._at.ciphertext, self._at.key, owner.current
        if {row[column].__class__ for row in rows} - {bytes, NoneType}:
            return False
        stale = [row for row in rows if (blob := row[column]) is not None and blob[:10] != current]
        blobs = [row[column] for row in stale]
        if not blobs:
            work.skipped += len(rows)
            return True
        try:
            rings = {self._owners.ring_of(blob, owner) for blob in {blob[2:10]: blob for blob in blobs}.values()}
            if len(rings) > 1:
                return False
            contexts = [*map(owner.context, map(self._record_of, stale))]
            plaintexts = open_all(rings.pop(), zip(blobs, contexts, strict=True))
        except (DecryptionError, InvalidInputError, KeyStateError):
            return False
        sealed = owner.seal(zip(plaintexts, contexts, strict=True))
        work.changes += map(RowChange, [row[:width] for row in stale], blobs, sealed)
        work.skipped += len(rows) - len(stale)
        return True

    def _reseal_each(self, rows: Sequence[Row], owner: Owner, work: Work) -> None:
        """Do the same one row at a time: one that cannot be read fails by itself."""
        column, width = self._at.ciphertext, self._at.key
        rewritten: list[tuple[RowKey, bytes]] = []
        messages: list[tuple[bytes, bytes]] = []
        for row in rows:
            blob = row[column]
            try:
                if blob is not None:
                    blob = _binary(blob)
                if blob is None or blob[:10] == owner.current:
                    work.skipped += 1
                    continue
                context = owner.context(self._record_of(row))
                plaintext = open_one(self._owners.ring_of(blob, owner), blob, context)
            except (DecryptionError, InvalidInputError, KeyStateError) as exc:
                work.failures.append((row[:width], exc.code))
                continue
            rewritten.append((row[:width], blob))
            messages.append((plaintext, context))
        sealed = owner.seal(messages)
        work.changes += [RowChange(key, blob, new) for (key, blob), new in zip(rewritten, sealed, strict=True)]

    def _rows(self, rows: Sequence[Row], tokens: Mapping[object, set[bytes]] | None, work: Work) -> None:
        """Add to ``work`` what rows need that have indexes, a plaintext or subjects."""
        width = self._at.key
        live = version_marks(self._cipher.index_versions)
        for row in rows:
            owner = self._owners.of(row)
            try:
                if isinstance(owner, str):
                    work.failures.append((row[:width], owner))
                else:
                    self._row(row, owner, live, tokens, work)
            except SubjectErasedError as exc:
                self._empty(row, exc, tokens, work)
            except (DecryptionError, InvalidInputError, KeyStateError) as exc:
                work.failures.append((row[:width], exc.code))
        for each in self._owners.all():
            try:
                sealed = each.seal((plaintext, context) for _, plaintext, context in each.waiting)
            except SubjectErasedError:
                # At this moment: who erases it empties its indexes.
                work.erased += len(each.waiting)
                work.skipped += len(each.waiting)
            else:
                work.changes += [
                    change._replace(new=new) for (change, _, _), new in zip(each.waiting, sealed, strict=True)
                ]
            each.waiting.clear()

    def _row(
        self,
        row: Row,
        owner: Owner,
        live: Mapping[int, bytes],
        tokens: Mapping[object, set[bytes]] | None,
        work: Work,
    ) -> None:
        at = self._at
        key, blob = row[: at.key], row[at.ciphertext]
        is_foreign = self._is_foreign(blob)
        if blob is not None and not is_foreign:
            blob = _binary(blob)
        guard = None if at.guard is None else row[at.guard]
        is_new = is_foreign or (blob is None and (guard is not None or self._field.encrypt_null))
        is_stale = not is_new and blob is not None and blob[:10] != owner.current
        found: _Indexes = row[at.indexes]
        suspects = (self._sized or self._tokens) and (is_new or not self._is_indexed(blob, found, live))
        if not (is_new or is_stale or suspects or guard is not None):
            work.skipped += 1
            return
        plaintext, context = b"", b""
        if is_new or blob is not None:
            context = owner.context(self._record_of(row))
        if is_new:
            plaintext = self._plaintext_of(row)
        elif blob is not None:
            plaintext = open_one(self._owners.ring_of(blob, owner), blob, context)
            if guard is not None and self._plaintext_of(row) != plaintext:
                raise InvalidInputError(
                    "a row has a ciphertext and another value in clear, and either may be the newer"
                )
        indexes: _Indexes | None = None
        marks: Sequence[bytes] | None = None
        record = None
        if suspects:
            indexes, marks = self._indexes_of(plaintext, owner.tenant)
            record = row[at.record[0]]
            if indexes == found:
                indexes = None
            if marks is not None and tokens is not None and set(marks) == tokens.get(record, set()):
                marks = None
        bound = tuple(row[place] for place in at.bound) if is_new else ()
        is_imported = is_foreign or (is_new and guard is not None and self._foreign is not None)
        change = RowChange(key, blob, blob, indexes, guard, record, marks, bound, is_imported)
        if is_new or is_stale:
            owner.waiting.append((change, plaintext, context))
        elif indexes is not None or marks is not None or guard is not None:
            work.changes.append(change)
        else:
            work.skipped += 1

    def _empty(
        self, row: Row, reason: SubjectErasedError, tokens: Mapping[object, set[bytes]] | None, work: Work
    ) -> None:
        """Let a row whose subject was forgotten be found by nothing: what it holds tells nobody anything any more."""
        at = self._at
        key, record = row[: at.key], row[at.record[0]]
        if at.guard is not None and row[at.guard] is not None:
            # Its value stands in clear beside it, which is for the application to remove.
            work.failures.append((key, reason.code))
            return
        work.erased += 1
        indexes: _Indexes = row[at.indexes]
        has_marks = self._tokens is not None and (tokens is None or bool(tokens.get(record)))
        if any(each is not None for each in indexes) or has_marks:
            blob = _binary(row[at.ciphertext])
            emptied = (None,) * len(indexes)
            work.changes.append(RowChange(key, blob, blob, emptied, None, record, [] if has_marks else None))
        else:
            work.skipped += 1

    def _is_foreign(self, value: object) -> bool:
        """Return whether what stands in the column of ciphertexts is of another system."""
        return self._foreign is not None and self._foreign.holds(value)

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


def _binary(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidCiphertextError("a field's column is of bytes, and this one holds something else")
