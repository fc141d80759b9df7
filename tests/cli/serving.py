"""A service as a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import PROGRAM, environment


@contextmanager
def serving(folder: Path, *args: str, port: int = 0, log: Path | None = None) -> Iterator[str]:
    """Serve, on any free port unless one is named; give the URL when it is open, and see that an interrupt ends it."""
    log = log or folder / "serve.log"
    with started(folder, *args, port=port, log=log) as (url, process):
        until = time.monotonic() + 60
        while log.read_text().count("the service is open") < _workers(args):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield url


@contextmanager
def started(
    folder: Path, *args: str, port: int = 0, log: Path | None = None, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve as ``serving``, and give the URL and the process as soon as it listens."""
    log = log or folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", str(port), *args],
            cwd=folder,
            env=environment() | {"KEYSTEAD_CLIENT_KEYS_READY": "0", **variables},
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
            if found := re.search(r"running on (https?://[0-9.:]+)", log.read_text()):
                url = found[1]
        yield url, process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _workers(args: tuple[str, ...]) -> int:
    return int(args[args.index("--workers") + 1]) if "--workers" in args else 1


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
