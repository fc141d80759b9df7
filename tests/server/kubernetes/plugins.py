"""Plugins of one installation in this process, each a node with a socket, and the API server's side of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from keystead.config.service import load_service
from keystead.crypto.keyring import Keyring
from keystead.manager.manager import KeyManager
from keystead.server.kubernetes.names import keyring_of
from keystead.server.kubernetes.plugin import serve
from keystead.testing import FakeKMS
from tests.services.cluster import Program, built, running

KEY: Final = "cluster"
POLL_S: Final = 0.2
SECRET: Final = b"a seed of the API server, 32 byte"


@dataclass
class Plugin:
    """A running plugin: its socket, its manager, and a client."""

    path: Path
    manager: KeyManager
    client: Program
    stop: asyncio.Event

    async def status(self) -> dict[str, Any]:
        """Return the answer to Status."""
        return await self.client.ask("status")

    async def encrypt(self, plaintext: bytes = SECRET) -> dict[str, Any]:
        """Return the answer to Encrypt."""
        return await self.client.ask("encrypt", plaintext=plaintext, uid="1")

    async def decrypt(self, made: dict[str, Any], **changed: Any) -> dict[str, Any]:
        """Return the answer to Decrypt of what Encrypt has answered."""
        sent = {name: made[name] for name in ("ciphertext", "key_id", "annotations")} | changed
        return await self.client.ask("decrypt", uid="2", **sent)

    def ring(self) -> Keyring:
        """Return the keyring in its memory."""
        ring = self.manager.require_session().live.find(keyring_of(KEY))
        assert ring is not None
        return ring


@dataclass
class Installation:
    """A KMS and a store that plugins share, and a folder of their sockets."""

    store: str
    folder: Path
    kms: FakeKMS = field(default_factory=FakeKMS)
    options: dict[str, Any] = field(default_factory=dict)
    made: list[KeyManager] = field(default_factory=list)

    def manager(self, *given: Any, **options: Any) -> KeyManager:
        """Return a manager as a plugin's settings would describe it, but for its KMS."""
        times = {"epoch_max_age_s": POLL_S, "kek_recheck_s": 3600.0, "grace_s": 3600.0}
        chosen = {name: options[name] for name in ("clock", "background") if name in options}
        km = KeyManager(
            {"cloud": self.kms.provider("cloud")},
            default_key_id="app",
            store=self.store,
            initialization_timeout=2,
            **(times | self.options | chosen),
        )
        self.made.append(km)
        return km

    @asynccontextmanager
    async def starting(self, name: str = "one", key: str = KEY) -> AsyncIterator[tuple[Path, asyncio.Event, Program]]:
        """Start a plugin that may not be open yet; stop it at the end."""
        path, stop = self.folder / f"{name}.sock", asyncio.Event()
        settings = load_service(environ={"KEYSTEAD_STORE": self.store, "KEYSTEAD_KMS": "local:"})
        task = asyncio.create_task(serve(settings, path, key, stop=stop))
        async with AsyncExitStack() as stack:
            try:
                await until(lambda: _true(task.done() or path.exists()))
                if not task.done():
                    yield path, stop, await stack.enter_async_context(running(built("plain"), f"unix://{path}"))
            finally:
                stop.set()
                await task

    @asynccontextmanager
    async def plugin(self, name: str = "one", **options: Any) -> AsyncIterator[Plugin]:
        """Start a plugin, and wait until it is healthy."""
        before, self.options = self.options, self.options | options
        async with self.starting(name) as (path, stop, client):
            await until(lambda: healthy(client))
            self.options = before
            yield Plugin(path, self.made[-1], client, stop)

    async def rotate(self, *, promote: str = "auto") -> int:
        """Rotate the key, as a command of another process does; return the new version's data key id."""
        async with self.manager(background=False) as km:
            rotation = km.require_session().lifecycle.rotation
            return (await rotation.rotate(keyring_of(KEY), promote=promote)).id


async def _true(value: bool) -> bool:
    return value


async def healthy(client: Program) -> bool:
    """Whether all is well with a plugin."""
    return bool((await client.ask("status"))["healthz"] == "ok")


async def until(is_so: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await is_so():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail("it never came to that")
        await asyncio.sleep(0.02)


def named(data_key_id: int) -> str:
    """Return how a key id ends."""
    return f"/{data_key_id:016x}"


def private_folder(parent: Path) -> Path:
    """Return a folder in which a socket may be."""
    folder = parent / "run"
    folder.mkdir()
    os.chmod(folder, 0o700)
    return folder
