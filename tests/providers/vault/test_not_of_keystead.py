"""The table of what Keystead's own server does not have names tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.providers.vault.not_of_keystead import NOT_OF_KEYSTEAD


def test_every_test_that_is_left_out_is_there_and_says_why() -> None:
    defined = {
        node.name
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert set(NOT_OF_KEYSTEAD) <= defined
    assert all(NOT_OF_KEYSTEAD.values())
