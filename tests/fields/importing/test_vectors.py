"""Each form's vectors, which are computed from primitives, are read."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from keystead.fields import importer
from tests.crypto.vectors import load

VECTORS = load("imported-forms.json")


@pytest.mark.parametrize("case", VECTORS["tests"], ids=lambda case: f"{case['format']} {case['options'].get('engine')}")
def test_each_vector_is_read(case: dict[str, Any]) -> None:
    options = dict(case["options"])
    if "raw_key" in options:
        options["keys"] = bytes.fromhex(options.pop("raw_key"))
    reading = importer(case["format"], until=date(2099, 12, 31), **options)
    stored = bytes.fromhex(case["stored_hex"]) if "stored_hex" in case else case["stored"]
    assert reading.recognises(stored)
    assert reading.read(stored) == VECTORS["plaintext"]
    if reading.finds_equal:
        assert reading.form_of(VECTORS["plaintext"]) == stored
