"""Whatever an application logs is sealed: what JSON does not hold as well, which fapilog-tamper let go unsealed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fapilog
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystead.integrations.fapilog import SealedSink
from keystead.integrations.fapilog.payload import Encoder, fitting, loss_record
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES, require_payload
from tests.integrations.fapilog.apps import log_file, records, settings_for, verified

BASE = {"timestamp": "2026-01-02T03:04:05Z", "level": "INFO", "message": "m"}


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Subclass(str):
    pass


VALUES = [
    datetime(2026, 1, 2, tzinfo=UTC),
    b"bytes \xff",
    Decimal("1.50"),
    UUID(int=1),
    {1: "a", "b": 2, None: 3},
    "lone \ud800 surrogate",
    {"s\ud800": 1},
    float("nan"),
    float("inf"),
    {1, 2},
    2**80,
    10**5000,
    Unspeakable(),
    Subclass("x"),
    object,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_any_value_is_one_json_record_on_one_line(value: object) -> None:
    record = Encoder().of_entry({**BASE, "data": {"value": value}})
    require_payload(record)
    assert json.loads(record)["log"]["message"] == "m"


def test_what_cannot_be_serialized_is_sealed_by_the_real_pipeline(folder: Path) -> None:
    logger = fapilog.get_logger(settings=settings_for(folder), reuse=False)
    for value in VALUES[:8]:
        logger.info("odd", value=value)
    asyncio.run(logger.stop_and_drain())
    assert verified(log_file(folder), expect_closed=True).valid
    assert len(records(log_file(folder))) == 8


class Hostile(str):
    """Text that will not be told."""

    def __str__(self) -> str:
        raise ValueError("no")


class Refusing(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [Hostile("x"), Refusing(a=1)], ids=["text", "mapping"])
def test_a_value_that_raises_takes_nothing_else_of_its_record_with_it(value: object) -> None:
    made = Encoder().of_entry({**BASE, "data": {"value": [value, object()], "kept": 1}})
    found = json.loads(made)["log"]["data"]
    assert found["kept"] == 1
    assert found["value"][0] in ("<Hostile>", "<Refusing>")


def test_an_entry_that_refers_to_itself_is_sealed_as_far_as_it_goes() -> None:
    entry: dict[str, Any] = {**BASE}
    entry["data"] = {"self": entry}
    record = Encoder().of_entry(entry)
    require_payload(record)
    assert b'"..."' in record


def test_a_record_that_is_too_long_is_sealed_by_its_hash() -> None:
    whole = b'"' + b"x" * MAX_PAYLOAD_BYTES + b'"'
    record = fitting(whole)
    require_payload(record)
    told = json.loads(record)["log"]
    assert told["diagnostics"]["integrity"]["size"] == len(whole)
    assert told["data"]["begins"].startswith('"xxx')
    assert fitting(b"{}") == b"{}"


def test_a_loss_says_how_many_and_since_when() -> None:
    told = json.loads(loss_record(3, 1_767_323_045.5, "refuse"))["log"]
    assert told["diagnostics"]["integrity"] == {"unsealed": 3, "since": "2026-01-02T03:04:05.500Z"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), json_values))
def test_no_entry_whatever_raises(entry: dict[str, Any]) -> None:
    record = Encoder().of_entry(entry)
    require_payload(record)
    json.loads(record)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_no_view_whatever_raises(content: bytes) -> None:
    record = Encoder().of_view(content)
    require_payload(record)
    json.loads(record)


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r\n", b"\n", b" \n "])
@pytest.mark.parametrize("value", [b"null", b"true", b"false", b"1", b'"x"', b'{"a":1}', b"[]"])
def test_space_behind_a_value_is_no_part_of_it(value: bytes, space: bytes) -> None:
    record = Encoder().of_view(value + space)
    require_payload(record)
    assert record == value


def test_a_redacted_value_never_was_in_the_log(folder: Path) -> None:
    settings_ = settings_for(folder, core={"redactors": ["field_mask"]})
    settings_.redactor_config.field_mask.fields_to_mask = ["data.pin"]
    logger = fapilog.get_logger(settings=settings_, reuse=False)
    logger.info("entered", pin="4711")
    asyncio.run(logger.stop_and_drain())
    assert b"4711" not in log_file(folder).read_bytes()


async def test_a_record_without_what_an_envelope_needs_is_sealed_as_it_is(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    await sink.write({"only": 1})
    await sink.stop()
    assert b'"d":{"only":1},' in log_file(folder).read_bytes()
