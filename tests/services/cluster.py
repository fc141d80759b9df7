"""Kubernetes' own code as the other side of a KMS plugin: two programs in Go, built once of pinned modules.

``plain`` calls the plugin by the published stubs; ``apiserver`` is the part of an API server that reads an
EncryptionConfiguration and encrypts by it.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.components import missing
from tests.services.install import ENVIRONMENTS, program

SOURCES: Final = Path(__file__).resolve().parents[1] / "server" / "kubernetes" / "cluster"
_BUILT: Final = ENVIRONMENTS / "cluster"
_LONGEST_ANSWER: Final = 2**24


def built(name: str) -> Path:
    """Return a program, built if its sources have changed since it was; skips the test where Go is not installed."""
    go = program("go", "go") or shutil.which("go")
    if go is None:
        missing("go", "install Go 1.26, or python -m tests.services.install go")
    wanted = hashlib.sha256()
    for path in sorted(each for each in SOURCES.rglob("*") if each.is_file()):
        wanted.update(path.read_bytes())
    _BUILT.mkdir(parents=True, exist_ok=True)
    with (_BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = _BUILT / "built"
        if not stamp.exists() or stamp.read_text() != wanted.hexdigest():
            environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}
            subprocess.run([str(go), "build", "-o", f"{_BUILT}/", "./..."], cwd=SOURCES, env=environment, check=True)
            stamp.write_text(wanted.hexdigest())
    return _BUILT / name


class Program:
    """A running program, which answers one request after the other. Bytes go in and come out as bytes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._one = asyncio.Lock()

    async def ask(self, call: str, **given: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        asked = {"call": call} | {name: _sent(value) for name, value in given.items()}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._one:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            answered = await asyncio.wait_for(self._process.stdout.readline(), 60)
        answer: dict[str, Any] = json.loads(answered)
        for name in ("plaintext", "ciphertext", "data"):
            if name in answer:
                answer[name] = base64.b64decode(answer[name] or "")
        kept = answer.get("annotations") or {}
        return answer | {"annotations": {name: base64.b64decode(value) for name, value in kept.items()}}


def _sent(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _sent(each) for name, each in value.items()}
    return value


@asynccontextmanager
async def running(path: Path, *arguments: str) -> AsyncIterator[Program]:
    """Run a program while the block runs."""
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=_LONGEST_ANSWER
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
