"""A pickle is read as far as it holds a plain value, and nothing in it is run."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.errors import DecryptionError, InvalidInputError
from keystead.fields import importer
from keystead.fields.importing.plain_pickle import PlainPickle
from tests.fields.importing.write_django import VALUES

UNTIL = date(2099, 12, 31)
PLAIN: list[object] = [
    *VALUES.values(),
    None,
    True,
    2**70,
    -(2**70),
    2.5,
    b"\xff" * 300,
    "é" * 70_000,
    Decimal("1.50"),
    UUID(int=5),
    datetime(2026, 2, 1, tzinfo=timezone(timedelta(hours=2))),
    {"a": [1, None, (1, 2, 3, 4), {"b": []}], "c": ()},
]


class Runs:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 3",)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [4, 5])
def test_plain_values_are_read(value: object, protocol: int) -> None:
    assert PlainPickle.value_of(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("value", [Runs(), OrderedDict(a=1), {1, 2}, Exception("x"), len, UTC.__class__, object()])
def test_anything_else_is_refused_before_it_is_made(value: object) -> None:
    with pytest.raises(ValueError, match="more than a plain value"):
        PlainPickle.value_of(pickle.dumps(value))


def test_a_value_that_is_larger_than_it_looks_is_refused() -> None:
    shared: list[Any] = [1]
    for _ in range(60):
        shared = [shared, shared]
    itself: list[Any] = []
    itself.append(itself)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    for value in (shared, itself, deep, [UTC.__class__]):
        with pytest.raises(ValueError, match="more than a plain value"):
            PlainPickle.value_of(pickle.dumps(value))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_are_anything_but_a_value_or_an_error(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        PlainPickle.value_of(b"\x80\x04" + content)


@given(st.lists(st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes]), max_size=30))
@settings(max_examples=500, deadline=None)
def test_no_instructions_are_anything_but_a_value_or_an_error(codes: list[bytes]) -> None:
    for tail in (b".", b"\x00\x00\x00\x00."):
        with contextlib.suppress(ValueError):
            PlainPickle.value_of(b"\x80\x04" + b"".join(codes) + tail)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"keys": "a", "field_keys": b"short"}, "16, 24 or 32"),
        ({"keys": "a", "field_keys": bytes(32), "encryption_keys": "b"}, "encryption_keys= or field_keys="),
        ({}, "needs keys="),
    ],
)
def test_options_that_cannot_be_are_refused(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        importer("django-cryptography", until=UNTIL, **given_)


def test_what_is_no_value_of_django_cryptography_is_refused() -> None:
    reading = importer("django-cryptography", keys="a", until=UNTIL)
    for value in (b"", b"\x80", b"\x80" + bytes(72), b"\x80" + bytes(8 + 16 + 16 + 32)):
        with pytest.raises(DecryptionError):
            reading.read(value)
