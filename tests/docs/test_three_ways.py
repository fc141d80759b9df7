"""Each page and each deed of the console has its twins by REST and on the command line, or says why it has none."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from keystead.cli.main import build_app
from keystead.server.console.pages import Deed, Page
from keystead.server.console.router import DEEDS, PAGES
from keystead.server.rest.openapi import document
from keystead.server.rest.router import new_router
from keystead.server.vault.request import Verb
from keystead.server.vault.router import PATHS
from scripts.gen_cli_help import paths
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "reference" / "three-ways.md"
NONE = re.compile(r"none: \S.{20,}")
_CODE = re.compile(r"`([^`]+)`")
_OF_VERBS = {"GET": Verb.READ, "POST": Verb.WRITE, "LIST": Verb.LIST, "DELETE": Verb.DELETE}


@dataclass(frozen=True)
class Row:
    """A row of the page: a path of the console, and its twins, none where it says why."""

    path: str
    rest: tuple[str, ...]
    commands: tuple[str, ...]


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1].startswith("`/"):
            found.append(Row(cells[1].strip("`"), twins(cells[2]), twins(cells[3])))
    return found


def twins(cell: str) -> tuple[str, ...]:
    if NONE.fullmatch(cell):
        return ()
    named = tuple(_CODE.findall(cell))
    assert named, f"neither a twin nor a reason: {cell}"
    return named


def plain(path: str) -> str:
    """Return a path without the kinds of what is in it."""
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


ROWS = rows()
_EVERY: list[Page | Deed] = [*PAGES, *DEEDS]
EVERY = {plain(each.path): each for each in _EVERY}
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, of_path in document(new_router())["paths"].items()
    for method, operation in of_path.items()
}
OF_MACHINES = {
    f"{word} /v1{plain(path.template)}" for path in PATHS for word, verb in _OF_VERBS.items() if path.way(verb)
}


def test_every_page_and_every_deed_of_the_console_has_one_row() -> None:
    assert sorted(row.path for row in ROWS) == sorted(EVERY)


def test_the_twins_are_there() -> None:
    commands = {f"keystead {' '.join(words)}" for words in paths(build_app())}
    told = {(row.path, name) for row in ROWS for name in (*row.rest, *row.commands)}
    there = OPERATIONS.keys() | OF_MACHINES | commands
    assert {each for each in told if each[1] not in there} == set()


@pytest.mark.parametrize("row", [row for row in ROWS if row.rest], ids=lambda row: row.path)
def test_a_twin_by_rest_takes_the_same_scope(row: Row) -> None:
    scope = EVERY[row.path].scope
    if scope is not None:
        assert {OPERATIONS[name]["security"][0]["token"][0] for name in row.rest} == {str(scope)}
