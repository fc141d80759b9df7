"""Disks that are full, and then are not."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from keystead.errors import KMSError
from keystead.stores import schema
from soak.places import POSTGRESQL, Place, execute
from tests.fakes.postgres import PostgresServer

SMALL_BYTES: Final = 48 * 1024 * 1024
MOST_ROTATIONS: Final = 2000
DATABASE: Final = "keystead_soak_small"


def fill_file(place: Place) -> str:
    """Rotate until the store's files may not grow, go on encrypting, let them grow again, and rotate."""
    largest = max(path.stat().st_size for path in place.folder.glob("keys.db*"))

    def limit(size: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    return _fill(place, lambda: limit(largest + 16 * 1024), lambda: limit(resource.RLIM_INFINITY))


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A PostgreSQL store on a file system of its own, with little room."""

    place: Place
    folder: Path

    def fill(self) -> str:
        """As ``fill_file``, by a file that takes all the room there is."""
        ballast = self.folder / "ballast"

        def take_all() -> None:
            with ballast.open("wb", buffering=0) as file:
                block = bytes(4096)
                try:
                    while True:
                        file.write(block)
                except OSError:
                    pass

        return _fill(self.place, take_all, ballast.unlink)


@contextmanager
def small_disk(server: PostgresServer, folder: Path) -> Iterator[SmallDisk | None]:
    """Give a store on a small file system, or None where none can be mounted."""
    mounted = folder / "disk"
    mounted.mkdir(parents=True)
    if os.geteuid() != 0 or not _mount(mounted):
        yield None
        return
    try:
        nobody = pwd.getpwnam("nobody")
        for parent in [folder, *folder.parents][:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
        space = mounted / "space"
        space.mkdir()
        os.chown(space, nobody.pw_uid, nobody.pw_gid)
        execute(server.url(), f"CREATE TABLESPACE keystead_small LOCATION '{space}'")
        execute(server.url(), f"CREATE DATABASE {DATABASE} TABLESPACE keystead_small")
        url = urlunsplit(urlsplit(server.url())._replace(path=f"/{DATABASE}"))
        schema.migrate(url)
        yield SmallDisk(Place(POSTGRESQL, url, folder, server.url()), mounted)
        execute(server.url(), f"DROP DATABASE {DATABASE} WITH (FORCE)")
        execute(server.url(), "DROP TABLESPACE keystead_small")
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=False, capture_output=True)


def _mount(folder: Path) -> bool:
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES},mode=755", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _fill(place: Place, fill: Callable[[], None], free: Callable[[], None]) -> str:
    async def main() -> str:
        async with place.manager() as km:
            fill()
            answer = "never full"
            for _ in range(MOST_ROTATIONS):
                answer = await refusal(km.rotate_data_key)
                if answer != "done":
                    break
            encrypted = "encrypted" if km.local_decrypt(km.local_encrypt(b"full")) == b"full" else "not encrypted"
            free()
            return f"{answer}, {encrypted}, {await refusal(km.rotate_data_key)}"

    return asyncio.run(main())


async def refusal(action: Callable[[], Awaitable[object]]) -> str:
    """Return the class of the error that ``action`` ends in, or ``done``."""
    try:
        await action()
    except KMSError as exc:
        return type(exc).__name__
    return "done"
