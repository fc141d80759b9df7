"""Every code block of the README and the documentation runs as it is printed.

A block is left out by the comment ``<!-- not executed: reason -->`` on the line above it. The store URL that pages use
for PostgreSQL is replaced by that of a database made for the test.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.components import missing
from tests.docs.blocks import EXECUTED, NOT_EXECUTED, ROOT, Block, pages, read_blocks
from tests.docs.page_runner import PageRunner, command_environment

POSTGRES_IN_PAGES = "postgresql://keystead@db.example.org/keys"


def executed_blocks(page: Path) -> list[Block]:
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    return [block for block in blocks if block.language in EXECUTED and block.skip_reason is None]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in pages() if executed_blocks(page)], ids=name_of)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    if POSTGRES_IN_PAGES in text:
        text = text.replace(POSTGRES_IN_PAGES, request.getfixturevalue("postgres_url"))
    blocks = [b for b in read_blocks(text) if b.language in EXECUTED and b.skip_reason is None]
    path = command_environment(tmp_path)["PATH"]
    if any(block.language != "python" for block in blocks) and not shutil.which("keystead", path=path):
        missing(
            "keystead", "the command line is not installed beside this Python: make test, or pip install -e '.[cli]'"
        )
    for variable in [name for name in os.environ if name.startswith("KEYSTEAD_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    runner = PageRunner(page, tmp_path)
    try:
        for block in blocks:
            runner.run(block)
    finally:
        runner.close()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_names_a_language_that_is_either_executed_or_known_not_to_be(page: Path) -> None:
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    assert {block.language for block in blocks} <= EXECUTED | NOT_EXECUTED
