"""SIGKILL at every system call of a change: every version that was ever returned is still in the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from keystead.providers.local.kek_file import create_kek_file

# One process without threads forks a child for every system call, and the child dies at that call.
DRIVER = """
import fcntl, json, os, signal, sys
from datetime import UTC, datetime
from keystead.providers.local.kek_file import add_version, create_kek_file, read_kek_file

operation, path = sys.argv[1:]

def die_at(fatal):
    count = 0
    def deadly(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    for name in ("open", "write", "fsync", "close", "replace", "link", "unlink", "read"):
        setattr(os, name, deadly(getattr(os, name)))
    fcntl.flock = deadly(fcntl.flock)

def keys(versions):
    return {version.number: bytes(version.key).hex() for version in versions}

for fatal in range(1, 200):
    target = path if operation == "rotate" else path + str(fatal)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        tell = os.fdopen(send, "w")
        die_at(fatal)
        if operation == "rotate":
            done = add_version(target, random=os.urandom, now=datetime.now(UTC))
        else:
            done = create_kek_file(target)
        tell.write(json.dumps(keys(done)))
        tell.flush()
        os._exit(0)
    os.close(send)
    returned = os.fdopen(receive).read()
    _, status = os.waitpid(child, 0)
    found = keys(read_kek_file(target)) if os.path.exists(target) else {}
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    print(json.dumps([killed, status, json.loads(returned or "{}"), found]))
    if not killed:
        break
"""


@dataclass(frozen=True)
class Step:
    was_killed: bool
    status: int
    returned: dict[str, str]
    found: dict[str, str]


def run(operation: str, path: Path) -> list[Step]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, operation, str(path)], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Step(*json.loads(line)) for line in done.stdout.splitlines()]


def test_a_rotation_killed_at_any_system_call_loses_no_version(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    usable = {str(v.number): bytes(v.key).hex() for v in create_kek_file(path)}
    steps = run("rotate", path)
    for step in steps:
        usable.update(step.returned)
        assert usable.items() <= step.found.items()
        usable.update(step.found)
    assert len(steps) > 15
    assert (steps[-1].was_killed, steps[-1].status) == (False, 0)
    assert sorted(os.listdir(tmp_path)) == ["kek", "kek.lock"]


def test_a_creation_killed_at_any_system_call_leaves_no_file_or_a_whole_one(tmp_path: Path) -> None:
    steps = run("create", tmp_path / "kek")
    assert len(steps) > 10
    assert steps[-1].status == 0
    assert {tuple(step.found) for step in steps} == {(), ("1",)}
