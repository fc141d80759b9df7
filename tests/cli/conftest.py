"""A folder after ``keystead init``, and the command line in it: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import keystead
from keystead.cli.main import build_app

PROGRAM = [sys.executable, "-c", "from keystead.cli.main import main; main()"]


class Cli:
    """Runs commands in this process."""

    def __init__(self, app: typer.Typer) -> None:
        self._app = app

    def run(self, *args: str, given: bytes | str | None = None) -> Result:
        """Run a command and return how it ended."""
        return CliRunner().invoke(self._app, args, input=given, prog_name="keystead")

    def ok(self, *args: str, given: bytes | str | None = None) -> Result:
        """Run a command that has to succeed."""
        result = self.run(*args, given=given)
        assert result.exit_code == 0, result.stderr
        return result

    def json(self, *args: str, given: bytes | str | None = None) -> Any:
        """Run a command that has to succeed with --json and return its answer."""
        return json.loads(self.ok(*args, "--json", given=given).stdout)

    def fails(self, code: int, *args: str, given: bytes | str | None = None) -> str:
        """Run a command that has to fail with ``code`` and one line on stderr; return that line."""
        result = self.run(*args, given=given)
        assert result.exit_code == code, (result.stdout, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, result.stderr
        assert "Traceback" not in result.stderr
        return lines[0]


def environment() -> dict[str, str]:
    """Return an environment without settings of ours, in which a new process finds the package."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
    variables["PYTHONPATH"] = str(Path(keystead.__file__).parents[1])
    return variables


def start(args: Sequence[str], folder: Path, **how: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own."""
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.Popen([*PROGRAM, *args], cwd=folder, env=environment(), **how)


def run_process(folder: Path, *args: str, given: bytes = b"", **how: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own and return how it ended."""
    return subprocess.run(
        [*PROGRAM, *args],
        cwd=folder,
        env=environment(),
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
        **how,
    )


@pytest.fixture(scope="session", autouse=True)
def _commands_are_read_once() -> Iterator[None]:
    """Let Typer read the signatures of every command once, and not anew for each command that a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def app() -> typer.Typer:
    """The command line."""
    return build_app()


@pytest.fixture(scope="session")
def _made_folder(app: typer.Typer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init")
    Cli(app).ok("init", str(folder))
    return folder


@pytest.fixture(scope="session")
def _made_by(app: typer.Typer, _made_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def make(*commands: str) -> Path:
        made = tmp_path_factory.mktemp("made") / "work"
        shutil.copytree(_made_folder, made)
        with pytest.MonkeyPatch.context() as patch:
            without_settings(patch)
            patch.chdir(made)
            for command in commands:
                Cli(app).ok(*command.split())
        return made

    return make


def without_settings(patch: pytest.MonkeyPatch) -> None:
    """Remove every setting of ours from the environment."""
    for name in [name for name in os.environ if name.startswith("KEYSTEAD_")]:
        patch.delenv(name)
    patch.setenv("COLUMNS", "200")


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    without_settings(monkeypatch)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_settings: None) -> Path:
    """An empty folder, which is the working folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_settings: None, _made_folder: Path) -> Path:
    """A working folder in which `keystead init` has run."""
    target = tmp_path / "work"
    shutil.copytree(_made_folder, target)
    monkeypatch.chdir(target)
    return target


@pytest.fixture
def after(folder: Path, _made_by: Callable[..., Path]) -> Callable[..., Path]:
    """Bring the working folder to where some commands leave it, which run only for the first test that asks."""

    def bring(*commands: str) -> Path:
        shutil.copytree(_made_by(*commands), folder, dirs_exist_ok=True)
        return folder

    return bring


@pytest.fixture
def cli(app: typer.Typer) -> Cli:
    """The command line, in this process."""
    return Cli(app)
