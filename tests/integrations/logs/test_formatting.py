"""Records of the standard logging as JSON, whatever an application adds to them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from keystead.integrations.logging import JsonFormatter, is_json_object


def test_what_json_cannot_hold_stands_as_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "thing": {1, 2}, "name": "n"})
    assert json.loads(JsonFormatter().format(record))["extra"]["thing"] == "{1, 2}"


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ({("a", 1): {b"x"}}, {"('a', 1)": [{"base64": "eA=="}]}),
        (float("nan"), "nan"),
        ([float("inf"), 1.5], ["inf", 1.5]),
        ({"deep": [object]}, {"deep": ["<class 'object'>"]}),
    ],
)
def test_whatever_an_application_adds_becomes_json(value: object, held: object) -> None:
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "thing": value})
    text = JsonFormatter().format(record)
    assert (json.loads(text)["extra"]["thing"], is_json_object(text)) == (held, True)


def test_values_that_hold_one_another_are_each_written_once() -> None:
    parent: dict[str, Any] = {"children": []}
    parent["children"] += [{"name": name, "parent": parent} for name in "ab"]
    record = logging.makeLogRecord({"msg": "family", "parent": parent, "twice": [both := ["x"], both]})
    told = [{"name": name, "parent": "..."} for name in "ab"]
    assert json.loads(JsonFormatter().format(record))["extra"] == {
        "parent": {"children": told},
        "twice": [["x"], ["x"]],
    }


def test_a_value_that_says_nothing_of_itself_loses_no_record() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "thing": Mute()})
    assert json.loads(JsonFormatter().format(record))["extra"]["thing"] == "<Mute>"


def test_every_key_of_the_applications_own_stands_in_the_record() -> None:
    names = ["time", "level", "logger", "extra", "exception", "stack", "d", "n"]
    made = logging.getLogger("tests.keys").makeRecord(
        "n", logging.INFO, "f", 1, "m", (), None, extra={name: name.upper() for name in names}
    )
    entry = json.loads(JsonFormatter().format(made))
    assert entry["extra"] == {name: name.upper() for name in names}
    assert (entry["level"], entry["logger"], entry["message"]) == ("INFO", "n", "m")


def test_what_is_not_quite_json_is_taken_as_text() -> None:
    assert not any(map(is_json_object, ['{"a":NaN}', '{"a":Infinity}', '{"a":1', '{"a":1}\n', "[1]"]))
