"""The page of errors is the error tree."""

from __future__ import annotations

from keystead.server.error_page import error_classes, page
from scripts.gen_error_docs import TARGET


def test_the_page_of_errors_is_what_the_source_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run scripts/gen_error_docs.py"


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))
