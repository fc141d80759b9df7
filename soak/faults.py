"""What goes wrong around a store: the KEK, the server, the disk, the permissions, the schema."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from keystead.errors import KMSError
from keystead.manager.manager import KeyManager
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores import schema
from soak.disk import fill_file, refusal, small_disk
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, in_child, sleep_until, wait_for
from soak.places import NEWER_KEK, POSTGRESQL, SQLITE, Databases, Place, execute, own_server, rows
from tests.fakes.postgres import PostgresServer

CONTENTS: Final = "SELECT id, version, state FROM data_keys ORDER BY id"
PATIENCE_S: Final = 40.0
FULL: Final = "disk full: rotate, encrypt, free space, rotate"


class Faults:
    """See the module."""

    name = "faults"
    claim = (
        "Every fault is a clear typed error, loses nothing, and is recovered from without a restart where it can be."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Meet each fault on each database it can strike."""
        figures = Figures()
        for place in setting.databases.each(setting.folder / "common"):
            before = in_child(_begin, place)
            _equal(figures, place, "another KEK at start", in_child(_wrong_kek, place), "KeyDecryptionFailError")
            newer = in_child(_other_schema, place, "9999", "9999")
            _equal(figures, place, "a newer schema", newer, "SchemaVersionError: upgrade")
            usable = in_child(_other_schema, place, "9999", "0001")
            _equal(figures, place, "a newer schema that this release may still use", usable, "opened")
            _equal(figures, place, "an older schema", in_child(_older_schema, place), "SchemaVersionError: migrate")
            _equal(figures, place, "read only: decrypt, then rotate", _read_only(place), _read_only_bar(place))
            figures.equal(place.kind, "after all of it: decrypts, rotates", in_child(_still_works, place, before), True)
        _file_cannot_grow(figures, setting)
        with own_server() as server:
            _server_full(figures, server, setting.folder / "small")
            _server_down(figures, server, setting.folder / "down")
        return figures.rows


def _equal(figures: Figures, place: Place, what: str, answer: tuple[str, bool], bar: str) -> None:
    told, is_unchanged = answer
    figures.equal(place.kind, what, told if is_unchanged else f"{told}, and rows changed", bar)


def _begin(place: Place) -> list[bytes]:
    async def main() -> list[bytes]:
        async with place.manager() as km:
            first = km.local_encrypt(b"before")
            await km.rotate_data_key()
            return [first, km.local_encrypt(b"before")]

    return asyncio.run(main())


def _wrong_kek(place: Place) -> tuple[str, bool]:
    providers = {"local": LocalKMSProvider(LocalKMSConfig(master_key=NEWER_KEK))}
    return _opened(place, lambda: place.manager(providers=providers))


def _opened(place: Place, make: Callable[[], KeyManager]) -> tuple[str, bool]:
    """Open a manager and return the error's class, or ``opened``, and whether the rows are as before."""

    async def main() -> str:
        km = make()
        try:
            await km.initialize()
        except KMSError as exc:
            cure = next((f": {word}" for word in ("migrate", "upgrade") if word in str(exc)), "")
            return type(exc).__name__ + cure
        finally:
            await km.close()
        return "opened"

    before = rows(place, CONTENTS)
    return asyncio.run(main()), rows(place, CONTENTS) == before


def _other_schema(place: Place, revision: str, usable_from: str) -> tuple[str, bool]:
    """Open the store while it claims to be of another revision."""
    (kept,) = rows(place, "SELECT usable_from FROM store_state")
    (head,) = rows(place, "SELECT version_num FROM keystead_version")
    _change(place, f"UPDATE keystead_version SET version_num = '{revision}'")
    _change(place, f"UPDATE store_state SET usable_from = '{usable_from}'")
    try:
        return _opened(place, place.manager)
    finally:
        _change(place, f"UPDATE keystead_version SET version_num = '{head[0]}'")
        _change(place, f"UPDATE store_state SET usable_from = '{kept[0]}'")


def _older_schema(place: Place) -> tuple[str, bool]:
    """Open the store with a release that knows one revision more. Runs in a child, which ends with the change."""
    for name, value in {"REVISIONS": (*schema.REVISIONS, "9999"), "HEAD": "9999"}.items():
        setattr(schema, name, value)
    return _opened(place, place.manager)


def _change(place: Place, statement: str) -> None:
    if place.kind == POSTGRESQL:
        execute(place.url, statement)
        return
    with contextlib.closing(sqlite3.connect(place.path)) as handle, handle:
        handle.execute(statement)


def _read_only_bar(place: Place) -> str:
    # A role without the right to write is told so; a server in read-only mode, and a file, are read only.
    return "decrypted, StorageOperationError" if place.kind == POSTGRESQL else "decrypted, StoreReadOnlyError"


def _read_only(place: Place) -> tuple[str, bool]:
    if place.kind == SQLITE:
        return in_child(_read_file, place)
    execute(place.server, "DROP ROLE IF EXISTS keystead_reader")
    execute(place.server, "CREATE ROLE keystead_reader LOGIN")
    execute(place.url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO keystead_reader")
    parts = urlsplit(place.url)
    address = parts.netloc.rpartition("@")[2]
    reader = Place(
        POSTGRESQL, urlunsplit(parts._replace(netloc=f"keystead_reader@{address}")), place.folder, place.server
    )
    try:
        return in_child(_decrypt_and_rotate, reader)
    finally:
        execute(place.url, "DROP OWNED BY keystead_reader")
        execute(place.server, "DROP ROLE keystead_reader")


def _read_file(place: Place) -> tuple[str, bool]:
    """Open the file as a user who may read it, in a folder where nothing may be made."""
    if os.geteuid() != 0:
        place.path.chmod(0o400)
        place.folder.chmod(0o500)
    else:
        # Whatever is imported at first use is imported while that is allowed.
        _opened(place, place.manager)
        for folder in [place.folder, *place.folder.parents][:4]:
            folder.chmod(folder.stat().st_mode | 0o055)
        for path in [place.path, *(place.folder / "state").rglob("*")]:
            path.chmod(0o444)
        (place.folder / "state").chmod(0o555)
        nobody = pwd.getpwnam("nobody")
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    try:
        return _decrypt_and_rotate(place)
    finally:
        if os.geteuid() == place.path.stat().st_uid:
            place.path.chmod(0o600)
            place.folder.chmod(0o700)


def _decrypt_and_rotate(place: Place) -> tuple[str, bool]:
    async def main() -> str:
        async with place.manager() as km:
            told = "decrypted" if km.local_decrypt(km.local_encrypt(b"here")) == b"here" else "nothing decrypted"
            return f"{told}, {await refusal(km.rotate_data_key)}"

    return asyncio.run(main()), True


def _still_works(place: Place, blobs: list[bytes]) -> bool:
    async def main() -> bool:
        async with place.manager() as km:
            await km.rotate_data_key()
            return all(km.local_decrypt(blob) == b"before" for blob in blobs)

    return asyncio.run(main())


def _file_cannot_grow(figures: Figures, setting: Setting) -> None:
    """Forbid the store's files to grow, and allow it again, under a running manager."""
    place = setting.databases.place(SQLITE, setting.folder / "full")
    before = in_child(_begin, place)
    figures.equal(SQLITE, FULL, in_child(fill_file, place), "StoreFullError, encrypted, done")
    figures.equal(SQLITE, "disk full, then restart: decrypts, rotates", in_child(_still_works, place, before), True)


def _server_full(figures: Figures, server: PostgresServer, folder: Path) -> None:
    """Fill the file system that the database lies on, and free it again under a running manager."""
    with small_disk(server, folder) as small:
        if small is None:
            figures.tell(POSTGRESQL, "disk full", "not tried: no small file system can be mounted here")
            return
        before = in_child(_begin, small.place)
        figures.equal(POSTGRESQL, FULL, in_child(small.fill), "StoreFullError, encrypted, done")
        works = in_child(_still_works, small.place, before)
        figures.equal(POSTGRESQL, "disk full, then restart: decrypts, rotates", works, True)


def _server_down(figures: Figures, server: PostgresServer, folder: Path) -> None:
    """Stop the server under a running manager, open another meanwhile, and start it again."""
    place = Databases(server.url()).place(POSTGRESQL, folder)
    before = in_child(_begin, place)
    running = fork(_through_an_outage, place, before)
    wait_for((place.folder / "running").exists, 60, "the running manager")
    server.stop(crash=True)
    (place.folder / "stopped").touch()
    told, _ = in_child(_opened_while_down, place)
    figures.equal(POSTGRESQL, "server down at start", told, "StoreUnavailableError")
    wait_for((place.folder / "seen").exists, 60, "the running manager to meet the outage")
    server.start()
    (place.folder / "started").touch()
    for what, answer, bar in running.result():
        figures.equal(POSTGRESQL, f"server down under a running manager: {what}", answer, bar)
    works = in_child(_still_works, place, before)
    figures.equal(POSTGRESQL, "server down, then restart: decrypts, rotates", works, True)


def _opened_while_down(place: Place) -> tuple[str, bool]:
    async def main() -> str:
        km = place.manager()
        answer = await refusal(km.initialize)
        await km.close()
        return answer

    return asyncio.run(main()), True


def _through_an_outage(place: Place, blobs: list[bytes]) -> list[tuple[str, object, object]]:
    async def main() -> list[tuple[str, object, object]]:
        seen: list[tuple[str, object, object]] = []
        async with place.manager(background=True, epoch_max_age_s=0.2) as km:
            (place.folder / "running").touch()
            await sleep_until((place.folder / "stopped").exists, PATIENCE_S, "the stop")
            opened = [km.local_decrypt(blob) for blob in [*blobs, km.local_encrypt(b"before")]]
            seen.append(("the hot path goes on", set(opened), {b"before"}))
            seen.append(("rotate", await refusal(km.rotate_data_key), "StoreUnavailableError"))
            seen.append(("get_status answers", (await km.get_status()).initialized, True))
            (place.folder / "seen").touch()
            await sleep_until((place.folder / "started").exists, PATIENCE_S, "the start")
            deadline = time.monotonic() + PATIENCE_S
            answer = "nothing"
            while time.monotonic() < deadline and answer != "done":
                answer = await refusal(km.rotate_data_key)
            seen.append(("rotate once it is up again, without restart", answer, "done"))
        return seen

    return asyncio.run(main())
