"""The restore drill: backup, fifty rotations, the backup again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import stamina

from keystead.errors import DataKeyNotLoadedError, KMSError, StoreRestoredError
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from keystead.stores import schema
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, fork, in_child, sleep_until, wait_for
from soak.places import SQLITE, Place, execute, postgres_bin

ROTATIONS: Final = 50
POLL_S: Final = 0.1
RESTORE_ATTEMPTS: Final = 5


class Restore:
    """See the module."""

    name = "restore"
    claim = "After a restore nothing encrypts until `recover`, each id that is gone is named, no version comes twice."

    def run(self, setting: Setting) -> list[Figure]:
        """Drill with the database's own backup, then with a store export, a process running all the while."""
        figures = Figures()
        for place in setting.databases.each(setting.folder / "native"):
            _drill(figures, place, with_export=False)
        for place in setting.databases.each(setting.folder / "export"):
            _drill(figures, place, with_export=True)
        return figures.rows


@dataclass(slots=True)
class Written:
    """What was encrypted before and after the backup, and the versions that existed."""

    before: list[bytes] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)
    ids: dict[int, int] = field(default_factory=dict)
    export: str = ""


def _drill(figures: Figures, place: Place, *, with_export: bool) -> None:
    where = f"{place.kind}, {'store export' if with_export else 'its own backup'}"
    before = in_child(_begin, place)
    if not with_export:
        _back_up(place)
    after = in_child(_rotate, place)
    if with_export:
        _empty(place)
        in_child(_import, place, before.export)
        noticed = None
    else:
        running = fork(_keep_running, place)
        wait_for((place.folder / "running").exists, 60, "the running process")
        _restore(place)
        (place.folder / "restored").touch()
        noticed = running.result()
    figures.rows += in_child(_check, where, place, before, after)
    if noticed is not None:
        figures.equal(where, "a process that ran through the restore encrypts no more", noticed, True)


def _begin(place: Place) -> Written:
    async def main() -> Written:
        written = Written()
        async with place.manager() as km:
            for _ in range(3):
                written.before.append(km.local_encrypt(b"before"))
                await km.rotate_data_key()
            written.before.append(km.local_encrypt(b"before"))
            written.ids = {info.id: info.version for info in await km.default.versions()}
            written.export = await backup.export_text(km)
        return written

    return asyncio.run(main())


def _rotate(place: Place) -> Written:
    async def main() -> Written:
        written = Written()
        async with place.manager() as km:
            for _ in range(ROTATIONS):
                await km.rotate_data_key()
                written.after.append(km.local_encrypt(b"after"))
            written.ids = {info.id: info.version for info in await km.default.versions()}
        return written

    return asyncio.run(main())


def _keep_running(place: Place) -> bool:
    """Be a node through the restore, and tell whether encryption ended with it."""

    async def main() -> bool:
        km = place.manager(background=True, epoch_max_age_s=POLL_S)
        await km.initialize()
        km.local_encrypt(b"running")
        (place.folder / "running").touch()
        await sleep_until((place.folder / "restored").exists, 60, "the restore")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            try:
                km.local_encrypt(b"running")
            except StoreRestoredError:
                break
        else:
            return False
        await km.close()
        return True

    return asyncio.run(main())


def _import(place: Place, export: str) -> None:
    async def main() -> None:
        km = place.manager()
        await backup.import_export(km, backup.read_export(export))
        await km.close()

    asyncio.run(main())


def _check(where: str, place: Place, before: Written, after: Written) -> list[Figure]:
    async def main() -> list[Figure]:
        figures = Figures()
        gone = {key_id: version for key_id, version in after.ids.items() if key_id not in before.ids}
        async with place.manager() as km:
            figures.equal(where, "encryption before recover", _refusal(km), "StoreRestoredError")
            with contextlib.suppress(StoreRestoredError):
                await km.rotate_data_key()
                raise ChildFailedError("a restored store rotated")
            old = [km.local_decrypt(blob) for blob in before.before]
            figures.equal(where, "old ciphertexts decrypted before recover", len(old), len(before.before))
            named = 0
            for blob in after.after:
                named += await _names_its_key(km, blob)
            figures.equal(where, "newer ciphertexts refused by an error that names the id as gone", named, ROTATIONS)
            report = await backup.recover(km)
            told = {key_id: version for key_id, _, version in report.gone}
            figures.equal(where, "ids that recover names as gone", len(told.keys() & gone.keys()), len(gone))
            km.local_decrypt(km.local_encrypt(b"recovered"))
            await km.rotate_data_key()
            versions = await km.default.versions()
            new = {info.version for info in versions if info.id not in before.ids}
            figures.equal(where, "versions given a second time", len(new & set(after.ids.values())), 0)
            verified = await backup.verify(km)
            figures.equal(where, "keys that verify cannot unwrap", len(verified.failures), 0)
        async with place.manager() as km:
            again = [km.local_decrypt(blob) for blob in before.before]
            km.local_decrypt(km.local_encrypt(b"after a restart"))
            figures.equal(where, "old ciphertexts decrypted after a restart", len(again), len(before.before))
        return figures.rows

    return asyncio.run(main())


def _refusal(km: KeyManager) -> str:
    try:
        km.local_encrypt(b"too early")
    except KMSError as exc:
        return type(exc).__name__
    return "none"


async def _names_its_key(km: KeyManager, blob: bytes) -> bool:
    key_id = km.default.data_key_id(blob)
    try:
        await km.decrypt_local(blob)
    except DataKeyNotLoadedError as exc:
        return exc.data_key_id == key_id and str(key_id) in str(exc)
    return False


def _back_up(place: Place) -> None:
    target = place.folder / "backup"
    if place.kind == SQLITE:
        handle = sqlite3.connect(place.path)
        handle.execute("VACUUM INTO ?", (str(target),))
        handle.close()
        return
    _postgres("pg_dump", "--clean", "--if-exists", "--file", str(target), place.url)


def _restore(place: Place) -> None:
    """Put the backup in the place of the store, under the eyes of a running process."""
    source = place.folder / "backup"
    if place.kind == SQLITE:
        kept, store = sqlite3.connect(source), sqlite3.connect(place.path, timeout=30)
        kept.backup(store)
        kept.close()
        store.close()
        return
    execute(place.server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_name(place)}'")
    for attempt in stamina.retry_context(on=_is_deadlock, attempts=RESTORE_ATTEMPTS):
        with attempt:
            _postgres(
                "psql", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file", str(source), place.url
            )


def _is_deadlock(error: Exception) -> bool:
    """A restore takes its tables one by one, and so does who reads them: PostgreSQL may end the restore, whole."""
    return isinstance(error, ChildFailedError) and "deadlock detected" in str(error)


def _empty(place: Place) -> None:
    """Remove the store and leave its folder of state."""
    if place.kind == SQLITE:
        for path in place.folder.glob("keys.db*"):
            path.unlink()
        return

    execute(place.server, f'DROP DATABASE "{_name(place)}" WITH (FORCE)')
    execute(place.server, f'CREATE DATABASE "{_name(place)}"')
    schema.migrate(place.url)


def _postgres(program: str, *arguments: str) -> None:
    installed = postgres_bin() / program
    command = str(installed) if os.access(installed, os.X_OK) else shutil.which(program)
    if command is None:
        raise RuntimeError(f"no {program} here: install PostgreSQL's client programs")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailedError(f"{program}: {done.stderr}")


def _name(place: Place) -> str:
    return urlsplit(place.url).path.lstrip("/")
