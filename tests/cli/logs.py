"""Sealed logs of processes, and witnesses that are processes, for the tests of ``keystead log``."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from keystead.errors import StorageOperationError
from keystead.ledger import TrustPolicy, Verifier, VerifyReport
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ledger.reading.following import LogFollower
from keystead.ledger.reading.lines import LogFile
from tests.cli.conftest import start

SEAL = ["log", "seal", "app.log", "--stream", "example.org/app", "--policy", "policy.json"]


def copied(made: Path, folder: Path) -> Path:
    """Copy a folder with a log into another; the policy names the KEK by its place, and now by that of the copy."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    policy = (made / "policy.json").read_text()
    assert str(made) in policy
    (folder / "policy.json").write_text(policy.replace(str(made), str(folder)))
    return folder


def verified(folder: Path, **how: Any) -> VerifyReport:
    return Verifier(TrustPolicy.load(folder / "policy.json")).verify(folder / "app.log", **how)


def payloads(path: Path) -> list[Any]:
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = parse_line(line)
        except MalformedRecordError:
            continue
        if record.kind is None:
            found.append(json.loads(record.payload))
    return found


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1500):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to be so")


def has(path: Path, content: bytes) -> bool:
    return path.exists() and content in path.read_bytes()


def everything(folder: Path) -> bytes:
    """Return what is in all files of the log, which may be compressed while they are read."""
    found = b""
    for path in LogFollower(folder / "app.log").files():
        with contextlib.suppress(StorageOperationError):
            found += b"".join(line for _, line in LogFile(path).lines_from(0))
    return found


def pipe_in(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def hears_signals() -> None:
    """Undo what a shell does to programs that it starts in the background: those take no notice of Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


class WitnessProcess:
    """A witness in a process of its own."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.process = start(["log", "witness", "--listen", "127.0.0.1:0", *args], folder, stdin=subprocess.DEVNULL)
        assert self.process.stderr is not None
        self.said = b""
        while not (found := re.search(rb"at (http://127\.0\.0\.1:(\d+))\n", self.said)):
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.url, self.port = found[1].decode(), int(found[2])
        self.vkeys = re.findall(r"vkey: (.*)\n", self.said.decode())

    def post(self, body: bytes) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/add-checkpoint", body)
        answer = connection.getresponse()
        told = answer.status, answer.read().decode()
        connection.close()
        return told

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode
