"""Reading values of another system, for a time, and counting them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

from keystead import telemetry
from keystead.crypto.codec import ValueType
from keystead.crypto.envelope import is_envelope
from keystead.errors import (
    DecryptionError,
    ImportEndedError,
    InvalidCiphertextError,
    InvalidInputError,
    KMSError,
)
from keystead.fields.field import Field
from keystead.fields.importing.form import FindsEqual, Format, OpensHere, OpensThere, not_of
from keystead.fields.importing.registry import made
from keystead.fields.importing.values import value_of
from keystead.ports import Clock
from keystead.runtime.clock import SystemClock
from keystead.runtime.loop import background_loop

log = logging.getLogger("keystead.fields")

MOST_BYTES: Final = 16 << 20
"""A longer value is refused before anything is made of it."""

Foreign = bytes | bytearray | memoryview | str | Mapping[str, object]
"""A value as a column gives it: bytes, text, or the object of a JSON column."""


def importer(
    format: str,
    *,
    until: datetime | date,
    type: type | ValueType | str = str,
    clock: Clock | None = None,
    **options: object,
) -> Importer:
    """Return what reads one form of another system, until an end.

    Args:
        format: a name in ``FORMATS``: ``fernet``, ``sqlalchemy-utils``, ``vault`` and so on.
        until: when it ends: an aware time, or a day, whose end it is in UTC. Every read after it is an error.
        type: of the values, as in ``Field``. Where a field reads through it, the field's own type is taken.
        options: keys and what else the format takes; docs/guides/coming-over.md has them by format.

    Raises:
        InvalidInputError: an unknown format, or an option, key or end that cannot be; the message names the cure.
        MissingDependencyError: the format needs a library that an extra brings.
    """
    kind = Field("imported", "value", type=type).value_type
    return Importer(format, made(format, options), until=_end_of(until), kind=kind, clock=clock or SystemClock())


class Importer:
    """Reads values of one form of another system. Thread-safe; made by ``importer``.

    It never writes that form, and never tries it on what has not its looks.
    """

    def __init__(self, name: str, form: Format, *, until: datetime, kind: ValueType, clock: Clock) -> None:
        self.name = name
        self.until = until
        self._form = form
        self._kind = kind
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Importer of {self.name} until {self.until:%Y-%m-%d %H:%M}Z, {self.count} read>"

    @property
    def count(self) -> int:
        """How many values were read through it in this process."""
        return self._count

    @property
    def is_remote(self) -> bool:
        """Whether a value takes a call to somebody who has to be waited for."""
        return isinstance(self._form, OpensThere)

    @property
    def finds_equal(self) -> bool:
        """Whether equal values have equal forms, so that old values can be looked for by ``form_of``."""
        return isinstance(self._form, FindsEqual)

    def form_of(self, value: object) -> str:
        """Return the one form of a text, to compare stored values with; only where ``finds_equal``.

        Raises:
            InvalidInputError: the value is no text, or the form differs each time.
            ImportEndedError: the end has come.
        """
        self.require_open()
        if not isinstance(self._form, FindsEqual) or not isinstance(value, str):
            raise InvalidInputError(
                f"values in the form {self.name} cannot be looked for by {type(value).__name__}; re-encrypt them, and "
                "search by an index"
            )
        return self._form.form_of(value)

    def recognises(self, value: object) -> bool:
        """Return whether a value has this form, as far as its bytes tell. An envelope of Keystead's never has.

        No key is used and nothing is counted. docs/guides/coming-over.md says for which formats bytes tell little.
        """
        try:
            raw = as_stored(value)
        except KMSError:
            return False
        return not is_envelope(raw) and self._form.recognises(raw)

    def require_open(self) -> None:
        """Raise ``ImportEndedError`` where the end has come."""
        if self._clock.now() >= self.until:
            raise ImportEndedError(
                f"values in the form {self.name} were read until {self.until:%Y-%m-%d %H:%M} UTC, and are not any "
                "more. If some are left, make the importer with a later until=, re-encrypt them, and take it away"
            )

    def read(self, value: Foreign, *, record: object = None) -> object:
        """Return the value; blocks where ``is_remote``.

        Args:
            value: as its column gives it.
            record: whose it is, for the error's message: nothing in the old form tells.

        Raises:
            DecryptionError: it does not open: another key, altered bytes, or not of this form.
            InvalidInputError: what was opened is not of the type.
            ImportEndedError: the end has come.
            KMSError: a remote service cannot be asked.
        """
        [found] = self.read_many([value])
        if isinstance(found, KMSError):
            if record is not None and found.args:
                found.args = (f"{found.args[0]} (record {record!r})", *found.args[1:])
            raise found
        return found

    def read_many(self, values: Sequence[Foreign], *, kind: ValueType | None = None) -> list[object | KMSError]:
        """Return for each value what ``read`` returns or raises of it; blocks where ``is_remote``.

        Raises:
            ImportEndedError: the end has come.
            KMSError: what concerns no single value.
        """
        if self.is_remote:
            return background_loop.run(self.fetch_many(values, kind=kind))
        self.require_open()
        form = cast(OpensHere, self._form)
        return self._values([_open_here(form, self.name, value) for value in values], kind)

    async def fetch_many(self, values: Sequence[Foreign], *, kind: ValueType | None = None) -> list[object | KMSError]:
        """Do what ``read_many`` does, without blocking; a service is asked for many at once where it can."""
        if not isinstance(self._form, OpensThere):
            return self.read_many(values, kind=kind)
        self.require_open()
        results: list[object | KMSError] = []
        asked: list[bytes] = []
        for value in values:
            try:
                raw = as_stored(value)
                if is_envelope(raw) or not self._form.recognises(raw):
                    raise not_of(self.name)
                results.append(None)
                asked.append(raw)
            except KMSError as exc:
                results.append(exc)
        opened = iter(await self._form.open_many(asked)) if asked else iter(())
        return self._values([each if isinstance(each, KMSError) else next(opened) for each in results], kind)

    def _values(self, opened: Iterable[object | KMSError], kind: ValueType | None) -> list[object | KMSError]:
        results: list[object | KMSError] = []
        read = 0
        for each in opened:
            try:
                if isinstance(each, KMSError):
                    results.append(each)
                else:
                    results.append(value_of(each, self._kind if kind is None else kind))
                    read += 1
            except InvalidInputError as exc:
                results.append(exc)
        if read:
            with self._lock:
                is_first, self._count = self._count == 0, self._count + read
            if is_first:
                log.warning(
                    "values of another library are read; re-encrypt what holds them",
                    extra={"format": self.name, "until": self.until.isoformat()},
                )
            telemetry.legacy_read(self.name, read)
        return results


def as_stored(value: object) -> bytes:
    """Return a value as bytes, however its column gives it.

    Raises:
        InvalidCiphertextError: too long, or text that no UTF-8 encodes.
        InvalidInputError: neither bytes, nor text, nor the object of a JSON column.
    """
    if isinstance(value, Mapping):
        try:
            value = json.dumps(dict(value), separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise InvalidCiphertextError("the object of a JSON column holds what is no JSON") from None
    if isinstance(value, memoryview):
        size = value.nbytes
    elif isinstance(value, str | bytes | bytearray):
        size = len(value)
    else:
        raise InvalidInputError(f"an imported value is bytes, text or the object of it, not {type(value).__name__}")
    if size > MOST_BYTES:
        raise InvalidCiphertextError(f"an imported value has at most {MOST_BYTES} bytes")
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        raise InvalidCiphertextError("an imported text is not UTF-8") from None


def _open_here(form: OpensHere, name: str, value: Foreign) -> object | KMSError:
    try:
        raw = as_stored(value)
        if is_envelope(raw) or not cast(Format, form).recognises(raw):
            return not_of(name)
        return form.open(raw)
    except (DecryptionError, InvalidInputError) as exc:
        return exc


def _end_of(until: datetime | date) -> datetime:
    if isinstance(until, datetime):
        if until.utcoffset() is None:
            raise InvalidInputError("until= is a time with a zone, as datetime(2027, 3, 31, tzinfo=UTC), or a date")
        return until.astimezone(UTC)
    if isinstance(until, date):
        return datetime(until.year, until.month, until.day, tzinfo=UTC) + timedelta(days=1)
    raise InvalidInputError("until= is an aware datetime or a date: when values of the old form are no longer read")
