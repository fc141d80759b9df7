"""Run the code blocks of one page as a reader would: in order, in one folder, in one Python session."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

from tests.docs.blocks import ROOT, Block

COMMAND_TIMEOUT_S = 120


class PageRunner:
    """The folder, the Python namespace and the event loop that the blocks of a page share."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._module = types.ModuleType("__main__")
        self._loop = asyncio.Runner()
        self._left_running: list[int] = []

    def close(self) -> None:
        """End the event loop and whatever still runs on it, and what commands have left running."""
        for group in self._left_running:
            _signal(group, signal.SIGTERM)
        self._loop.close()

    def run(self, block: Block) -> None:
        """Run one block; raise what it raises, or ``AssertionError`` for a command that fails."""
        if block.language == "python":
            self._run_python(block)
        elif block.language == "console":
            self._run_console(block)
        else:
            self._run_command(block.text, block.line)

    def _run_python(self, block: Block) -> None:
        tree = ast.parse(block.text, str(self._page))
        ast.increment_lineno(tree, block.line - 1)
        code = compile(tree, str(self._page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        outcome = eval(code, self._module.__dict__)
        if inspect.iscoroutine(outcome):
            self._loop.run(outcome)

    def _run_console(self, block: Block) -> None:
        for line, command, expected in console_session(block):
            output = self._run_command(command, line)
            if "exact" in block.options:
                assert output.rstrip() == expected.rstrip(), f"{self._place(line)}: `{command}` prints something else"

    def _run_command(self, command: str, line: int) -> str:
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._folder,
            env=command_environment(self._folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as shell:
            try:
                output, _ = shell.communicate(timeout=COMMAND_TIMEOUT_S)
            except BaseException:
                _signal(shell.pid, signal.SIGKILL)
                raise
        if _signal(shell.pid, 0):
            self._left_running.append(shell.pid)
        assert shell.returncode == 0, f"{self._place(line)}: `{command}` exits {shell.returncode}:\n{output}"
        return output

    def _place(self, line: int) -> str:
        return f"{self._page.name}:{line}"


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group, 0 for none; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def command_environment(home: Path) -> dict[str, str]:
    """Return the environment of a reader's shell: this interpreter's commands first, none of our own variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSTEAD_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment["PYTHONPATH"] = str(ROOT / "src")
    environment["HOME"] = str(home)
    return environment


def console_session(block: Block) -> list[tuple[int, str, str]]:
    """Return (line, command, output shown) for each ``$ `` line; a trailing backslash continues the command."""
    session: list[tuple[int, str, str]] = []
    continues = False
    for number, text in enumerate(block.text.splitlines(), start=block.line):
        if text.startswith("$ "):
            session.append((number, text.removeprefix("$ "), ""))
        elif not session:
            raise ValueError(f"line {number}: a console block begins with a line that starts with '$ '")
        elif continues:
            line, command, output = session[-1]
            session[-1] = (line, f"{command}\n{text}", output)
        else:
            line, command, output = session[-1]
            session[-1] = (line, command, f"{output}{text}\n")
            continue
        continues = text.endswith("\\")
    return session
