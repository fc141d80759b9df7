"""What the pages of key services quote as messages are messages of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGES = sorted((ROOT / "docs" / "kms").glob("*.md"))
QUOTED = re.compile(r"`(?:\w+(?:Error|Warning)): ([^`]+)`")
VALUE = "\0"
"""Stands in a text of the code for what is formatted in."""


@cache
def texts() -> tuple[str, ...]:
    """Return the texts in the code of the providers."""
    return tuple(
        text
        for path in sorted((ROOT / "src" / "keystead" / "providers").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (text := text_of(node))
    )


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w+\}", VALUE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or VALUE for part in node.values)
    return ""


def is_said(part: str) -> bool:
    """Whether a message can hold ``part``, perhaps with a value as its last word."""
    but_the_last = f"{part.rpartition(' ')[0]} {VALUE}"
    return any(part in text or (" " in part and but_the_last in text) for text in texts())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_the_page_quotes_what_is_said(page: Path) -> None:
    quoted = QUOTED.findall(page.read_text(encoding="utf-8"))
    parts = [part.strip() for message in quoted for part in message.split("...")]
    assert [part for part in parts if not is_said(part)] == []
