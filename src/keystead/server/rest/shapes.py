"""What the resources' shapes share: how members are named, how lists are paged, which texts are taken."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from keystead.access.callers import MAX_SUBJECT, checked_subject
from keystead.errors import InvalidInputError
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.ports.access import Made

T = TypeVar("T")


M = TypeVar("M", bound=Made)

SHORT_ID: Final = r"^[0-9a-f]{16}$"
"""The form of the id of a token, a secret id, a session or an approval."""
LIMIT: Final = 100
MOST: Final = 500
"""How many items an answer has at most."""
_NAME: Final = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$"
"""Printable characters."""
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Told(BaseModel):
    """What is answered."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, from_attributes=True, coerce_numbers_to_str=True
    )


class Given(BaseModel):
    """What is sent: nothing is taken that is not known."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Page(Told, Generic[T]):
    """A part of a list."""

    items: list[T] = Field(max_length=MOST)
    next_cursor: str | None = Field(
        description="Sent as `cursor`, it asks for the items behind these; null where there are none."
    )


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is not within the years 1 to 9999") from None


def _subject(text: str) -> str:
    try:
        return checked_subject(text)
    except InvalidInputError as exc:
        raise ValueError(str(exc)) from None


def _rfc3339(given: object) -> object:
    if isinstance(given, str) and not _MOMENT.fullmatch(given):
        raise ValueError("it is no time such as 2030-01-31T00:00:00Z")
    return given


def whole(given: object) -> object:
    """Refuse what is no number in a body; 60 and 60.0 are one, as JSON has them, and a text is none."""
    if isinstance(given, bool | str):
        raise ValueError("it is no whole number")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_utc)]
"""A time, with its zone."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NAME)]
"""The name of a keyring, or of what belongs to one."""
Subject = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_SUBJECT, pattern=_NAME),
    AfterValidator(_subject),
]
"""The name of a user or tenant."""
KeyId = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,19}$",
        description="A data key's id: a number of up to 63 bits, as text, since many readers of JSON have 53.",
        examples=["4611686018427387904"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many items are answered at most.")]
Cursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=2048,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="`nextCursor` of the page before; without it the list begins. What is in it may change.",
    ),
]
KeyringPath = Annotated[
    str,
    Path(
        alias="keyring",
        min_length=1,
        max_length=200,
        pattern=_NAME,
        description="The keyring's name.",
        examples=["default"],
    ),
]


def cursor_of(*place: str | int) -> str:
    """Return the text that stands for a place in a list."""
    given = json.dumps(place, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(given.encode()).decode("ascii").rstrip("=")


def place_of(cursor: str | None, *kinds: type[str] | type[int]) -> Any:
    """Return the members of the place that a cursor stands for; None where there is no cursor.

    Raises:
        InvalidInputError: it was not given out for a list like this one.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        place = None
    if not isinstance(place, list) or [type(each) for each in place] != list(kinds) or not all(map(_is_kept, place)):
        raise InvalidInputError("this is no cursor of this list; begin without one")
    return place


def newest_after(cursor: str | None) -> tuple[str, str] | None:
    """Return the place behind which a list goes on that is told the newest first; errors as ``place_of``."""
    place = place_of(cursor, str, str)
    return None if place is None else (place[0], place[1])


def newest_of(rows: Sequence[M], limit: int) -> tuple[Sequence[M], str | None]:
    """Return the rows of a page of such a list, and the cursor of those behind it."""
    return page_of(rows, limit, lambda each: (each.created_at, each.id))


def part_of(items: Sequence[T], after: int, limit: int) -> tuple[Sequence[T], str | None]:
    """Return items of a list that is whole, from a number on, and the cursor of those behind them."""
    shown = items[after : after + limit]
    return shown, cursor_of(after + limit) if len(items) > after + limit else None


def page_of(
    found: Sequence[T], limit: int, place: Callable[[T], tuple[str | int, ...]]
) -> tuple[Sequence[T], str | None]:
    """Return up to ``limit`` items of what was looked up, one more if there is one, and the cursor of those behind."""
    shown = found[:limit]
    return shown, cursor_of(*place(shown[-1])) if len(found) > limit else None


def _is_kept(value: str | int) -> bool:
    """Whether a store takes it."""
    if isinstance(value, int):
        return 0 <= value <= MAX_KEY_ID
    return not any(sign == "\x00" or "\ud800" <= sign <= "\udfff" for sign in value)
