"""A service as a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import PROGRAM, environment


@contextmanager
def serving(folder: Path, *args: str, port: int = 0) -> Iterator[str]:
    """Serve, on any free port unless one is named; give the URL, and see that an interrupt ends it."""
    log = folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", str(port), *args],
            cwd=folder,
            env=environment() | {"KEYSTEAD_CLIENT_KEYS_READY": "0"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = None
        until = time.monotonic() + 60
        while url is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
            if found := re.search(r"running on (http://[0-9.:]+)", log.read_text()):
                url = found[1]
        while not _lives(url):
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    finally:
        process.kill()
        process.wait()


def _lives(url: str) -> bool:
    """Whether somebody answers: the first of several processes says that it serves before the others do."""
    try:
        with urllib.request.urlopen(f"{url}/livez", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
