"""The entry: one command waits for its own modules alone, and the line behaves as if all were there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_group

from keystead.cli.frame import new_app
from keystead.cli.main import MODULES, build_app, modules_for
from tests.cli.conftest import run_process


@pytest.mark.parametrize("module", MODULES)
def test_a_module_adds_the_commands_it_is_listed_with(module: str) -> None:
    app = new_app()
    import_module(f"keystead.cli.{module}").register(app)
    assert tuple(get_group(app).commands) == MODULES[module]


def test_no_command_is_in_two_modules() -> None:
    words = [word for each in MODULES.values() for word in each]
    assert len(set(words)) == len(words) == len(get_group(build_app()).commands)


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("key rotate payments", ("key",)),
        ("--debug user forget ada", ("device",)),
        ("encrypt --version", ("data",)),
        ("--version", ()),
        ("--help", tuple(MODULES)),
        ("", tuple(MODULES)),
        ("kez rotate", tuple(MODULES)),
    ],
)
def test_a_line_needs_the_modules_of_its_first_word(line: str, modules: tuple[str, ...]) -> None:
    assert modules_for(line.split()) == modules


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--version", 0, b"keystead "),
        ("kez rotate", 2, b"No such command 'kez'"),
        ("key rotat", 2, b"No such command 'rotat'"),
        ("key --help", 0, b"cancel-destroy"),
    ],
)
def test_the_line_answers_as_if_all_were_there(line: str, code: int, said: bytes, tmp_path: Path) -> None:
    done = run_process(tmp_path, *line.split())
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done
