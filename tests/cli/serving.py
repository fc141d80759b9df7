"""A service as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import PROGRAM, environment


@contextmanager
def serving(folder: Path, *args: str, variables: dict[str, str] | None = None) -> Iterator[str]:
    """Serve on any free port; give the URL, and see that an interrupt ends it."""
    log = folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", *args],
            cwd=folder,
            env=environment() | {"KEYSTEAD_CLIENT_KEYS_READY": "0"} | (variables or {}),
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
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    finally:
        process.kill()
        process.wait()
