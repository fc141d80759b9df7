"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from keystead.model.counts import counted


@pytest.mark.parametrize(
    ("number", "nouns", "text"),
    [
        (0, ("line",), "0 lines"),
        (1, ("line",), "1 line"),
        (2, ("line",), "2 lines"),
        (1, ("entry", "entries"), "1 entry"),
        (3, ("entry", "entries"), "3 entries"),
    ],
)
def test_a_number_has_its_noun_in_the_right_form(number: int, nouns: tuple[str, ...], text: str) -> None:
    assert counted(number, *nouns) == text
