"""People are forgotten while four processes read what is theirs; then store, table and log are put back, or cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from keystead.erasure.receipts import ErasureReceipt
from keystead.errors import KMSError
from keystead.fields import Exact, Field
from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import Child, fork, in_child, wait_for
from soak.places import SQLITE, Place

NODES: Final = 4
READ_S: Final = 120.0
PAUSED_S: Final = 6.0
"""How long a process is stopped: longer than one goes on without having looked."""
PERSON: Final = Field("people", "name", record="id", per_subject=True, indexes=(Exact(),))


@dataclass(frozen=True)
class Scene:
    """A store, its log of erasures outside it, an application's table of people, and what was encrypted, by person."""

    place: Place
    log: Path
    sealed: Mapping[str, bytes]
    keys: tuple[str, ...] = ()

    @property
    def table(self) -> Path:
        """The application's database."""
        return self.log.with_name("app.db")

    def manager(self, *, is_node: bool = False, has_state: bool = True) -> KeyManager:
        """Return a manager of the store."""
        state = {} if has_state else {"state_dir": None}
        return self.place.manager(erasures=self.log, background=is_node, **state)


class Erasure:
    """See the module."""

    name = "erasure"
    claim = (
        "What was encrypted under the keys of a person who was forgotten is read by no process afterwards and found by "
        "no search: not by one that wakes up, and not when the store is put back, or the log of erasures is cut off or "
        "removed."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Forget half of the subjects on each kind of database."""
        figures = Figures()
        subjects = setting.choose(short=12, full=200)
        for place in setting.databases.each(setting.folder / "erasure"):
            _run(figures, place, setting.folder / f"outside-{place.kind.lower()}", subjects)
        return figures.rows


def _run(figures: Figures, place: Place, outside: Path, subjects: int) -> None:
    where, scene = place.kind, in_child(_begin, Scene(place, outside / "erasures.log", {}), subjects)
    backup = _back_up(scene, outside / "backup")
    names = list(scene.sealed)
    forgotten = names[: len(names) // 2]
    nodes = [fork(_read, scene, number) for number in range(NODES)]
    for number in range(NODES):
        wait_for((place.folder / f"node-{number}").exists, READ_S, "a node to read")
    receipts, ended = _forget(scene, forgotten, nodes[0])
    (place.folder / "done").touch()
    last = [node.result(READ_S) for node in nodes]
    late = [name for name in forgotten for each in last if each.get(name, 0.0) > ended[name]]
    figures.equal(where, "subjects forgotten, of twice as many", len(ended), len(forgotten))
    figures.equal(where, f"subjects that one of {NODES} processes read after they were forgotten", len(late), 0)
    figures.equal(where, "receipts that verify without the store", _verified(receipts, scene.keys), len(forgotten))
    figures.equal(where, "receipts that say that every index was emptied", _emptied(receipts), len(forgotten))
    _search(figures, where, scene, forgotten)
    waits = sorted(each.nodes_unseen for each in receipts)
    figures.tell(where, "processes that had not acknowledged within 5 s, at most", waits[-1])
    kept = [name for name in names if name not in forgotten]
    read = sum(all(name in each for each in last) for name in kept)
    figures.equal(where, "others that every process read", read, len(kept))
    _put_back(figures, scene, backup, forgotten)


def _begin(scene: Scene, subjects: int) -> Scene:
    async def main() -> Scene:
        async with scene.manager() as km:
            names = [f"person {number}" for number in range(subjects)]
            await km.load_fields(PERSON, subjects=names)
            cipher, sealed = km.field(PERSON), {}
            columns = ", ".join(PERSON.index_columns)
            with contextlib.closing(sqlite3.connect(scene.table)) as table:
                table.execute(f"CREATE TABLE people (id TEXT PRIMARY KEY, name BLOB, {columns})")
                for name in names:
                    sealed[name] = cipher.encrypt(name, record=name) or b""
                    hashes = cipher.index_values(name).values()
                    table.execute("INSERT INTO people VALUES (?, ?, ?, ?)", (name, sealed[name], *hashes))
                table.commit()
            await km.register_field(PERSON, f"sqlite:///{scene.table}")
            return replace(scene, sealed=sealed, keys=tuple(await km.receipt_keys()))

    return asyncio.run(main())


def _forget(
    scene: Scene, names: Sequence[str], paused: Child[dict[str, float]]
) -> tuple[list[ErasureReceipt], dict[str, float]]:
    """Forget subjects, a few of them while one process is stopped; return receipts, and when each call returned."""
    half = len(names) // 2
    first = in_child(_forget_all, scene, names[:half])
    os.kill(paused.pid, signal.SIGSTOP)
    try:
        second = in_child(_forget_all, scene, names[half : half + 2])
        time.sleep(PAUSED_S)
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    third = in_child(_forget_all, scene, names[half + 2 :])
    parts = (first, second, third)
    return [each for part in parts for each in part[0]], {name: at for part in parts for name, at in part[1].items()}


def _forget_all(scene: Scene, names: Sequence[str]) -> tuple[list[ErasureReceipt], dict[str, float]]:
    async def main() -> tuple[list[ErasureReceipt], dict[str, float]]:
        receipts, ended = [], {}
        async with scene.manager() as km:
            for name in names:
                receipts.append(await km.forget(PERSON.subject_of(name)))
                ended[name] = time.monotonic()
        return receipts, ended

    return asyncio.run(main())


def _read(scene: Scene, number: int) -> dict[str, float]:
    """Read all there is until the end, as a node; return when what was last read of each subject was asked for."""

    async def main() -> dict[str, float]:
        asked: dict[str, float] = {}
        done = scene.place.folder / "done"
        async with scene.manager(is_node=True) as km:
            await km.load_fields(PERSON, subjects=scene.sealed)
            cipher = km.field(PERSON)
            is_last = False
            while not is_last:
                is_last = done.exists()
                for name, ciphertext in scene.sealed.items():
                    at = time.monotonic()
                    with contextlib.suppress(KMSError):
                        # By what it has in memory, which is what a process that wakes up has.
                        if cipher.decrypt(ciphertext, record=name) == name:
                            asked[name] = at
                (scene.place.folder / f"node-{number}").touch()
                await asyncio.sleep(0.01)
        return asked

    return asyncio.run(main())


def _verified(receipts: Sequence[ErasureReceipt], keys: Sequence[str]) -> int:
    good = 0
    for each in receipts:
        with contextlib.suppress(KMSError):
            ErasureReceipt.from_json(each.to_json()).verify(keys)
            good += 1
    return good


def _emptied(receipts: Sequence[ErasureReceipt]) -> int:
    return sum(each.indexes == "emptied" for each in receipts)


def _search(figures: Figures, where: str, scene: Scene, forgotten: Sequence[str]) -> None:
    """Look for everybody by a new process."""
    found = in_child(_found, scene)
    figures.equal(where, "forgotten people that a search finds", len(found.intersection(forgotten)), 0)
    others = len(scene.sealed) - len(forgotten)
    figures.equal(where, "others that a search finds", len(found.difference(forgotten)), others)


def _found(scene: Scene) -> set[str]:
    async def main() -> set[str]:
        async with scene.manager() as km:
            await km.load_fields(PERSON)
            cipher = km.field(PERSON)
            with contextlib.closing(sqlite3.connect(scene.table)) as table:
                hashes = {
                    digest
                    for row in table.execute(f"SELECT {', '.join(PERSON.index_columns)} FROM people")
                    for digest in row
                }
            return {name for name in scene.sealed if hashes & {*cipher.query_values(Exact(), name).values()}}

    return asyncio.run(main())


def _back_up(scene: Scene, folder: Path) -> Path:
    place = scene.place
    if place.kind == SQLITE:
        shutil.copytree(place.folder, folder)
    place.keep()
    shutil.copy(scene.table, folder.with_suffix(".app"))
    return folder


def _restored(scene: Scene, backup: Path) -> Scene:
    """Put the store back as it was before anybody was forgotten; its state folder stays as it is."""
    place = scene.place
    if place.kind == SQLITE:
        for file in place.folder.glob("keys.db*"):
            file.unlink()
        for file in backup.glob("keys.db*"):
            shutil.copy(file, place.folder / file.name)
        return scene
    copy = backup.with_name("again")
    shutil.rmtree(copy, ignore_errors=True)
    place.again(copy)
    return scene


def _put_back(figures: Figures, scene: Scene, backup: Path, forgotten: Sequence[str]) -> None:
    """Try each way to have back what was forgotten."""
    whole = scene.log.read_bytes()
    lines = whole.splitlines(keepends=True)
    edits: dict[str, Callable[[], object]] = {
        "the whole log": lambda: None,
        "no log": scene.log.unlink,
        "a log cut off to its first line": lambda: scene.log.write_bytes(lines[0]),
        "a log without its last line": lambda: scene.log.write_bytes(b"".join(lines[:-1])),
        "an empty log": lambda: scene.log.write_bytes(b""),
    }
    for is_restored in (False, True):
        for what, edit in edits.items():
            if is_restored:
                _restored(scene, backup)
            edit()
            opened = [each.result(READ_S) for each in [fork(_open_all, scene) for _ in range(NODES)]]
            where = f"{scene.place.kind}, the store {'put back' if is_restored else 'as it is'}, {what}"
            read = {name for each in opened for name in each}
            figures.equal(where, "forgotten subjects that are read", len(read.intersection(forgotten)), 0)
            others = len(scene.sealed) - len(forgotten) if what == "the whole log" else 0
            figures.equal(where, "others that are read", len(read.difference(forgotten)), others)
            scene.log.write_bytes(whole)
    shutil.copy(backup.with_suffix(".app"), scene.table)
    _restored(scene, backup)
    _search(figures, f"{scene.place.kind}, store and table put back", scene, forgotten)


def _open_all(scene: Scene) -> list[str]:
    """Return the subjects whose ciphertexts a new process opens."""

    async def main() -> list[str]:
        opened = []
        async with scene.manager() as km:
            for name, ciphertext in scene.sealed.items():
                with contextlib.suppress(KMSError):
                    await km.prefetch([ciphertext])
                context = km.field(PERSON).context(name, None)
                for ring in (await km.session()).live.rings():
                    with contextlib.suppress(KMSError):
                        if ring.open(ciphertext, context).endswith(name.encode()):
                            opened.append(name)
                            break
        return opened

    return asyncio.run(main())
