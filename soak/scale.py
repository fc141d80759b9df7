"""Many keyrings, threads, processes, messages and readers: how much does each cost?"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, Final

from keystead.lifecycle.wrapping import WRAP_KEY_SIZE, seal_key
from keystead.manager.manager import KeyManager
from keystead.manager.session import Session
from keystead.model import WRAP_KEYRING
from keystead.ports import KeyStore
from keystead.stores import open_store
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, in_child, results
from soak.places import SQLITE, Place

THREADS: Final = 8
PROCESSES: Final = 4
READERS: Final = 1000
HELD: Final = 200
CHUNK: Final = 1000
MESSAGE: Final = bytes(64)
IMPORT_MS: Final = 60.0
MB: Final = 1024 * 1024
FORBIDDEN: Final = ("sqlalchemy", "alembic", "aiosqlite", "psycopg", "boto3", "google", "azure", "hvac", "cryptography")


class Scale:
    """See the module."""

    name = "scale"
    claim = "Keyrings, threads, processes and readers cost what they should, and a KMS is called once a process."

    def run(self, setting: Setting) -> list[Figure]:
        """Measure each in a process of its own."""
        figures = Figures()
        for place in setting.databases.each(setting.folder / "common"):
            figures.rows += in_child(_cold_readers, place)
        place = setting.databases.place(SQLITE, setting.folder / "scale")
        messages = setting.choose(short=100_000, full=1_000_000)
        figures.rows += in_child(lambda: _one_process(place, messages, is_full=setting.is_full))
        _processes(figures, place, messages // 4)
        keyrings = setting.choose(short=1_200, full=100_000)
        figures.rows += fork(_keyrings, place, keyrings).result(3600)
        _import_time(figures, is_full=setting.is_full)
        return figures.rows


class CountingStore:
    """A key store that counts its read-only transactions."""

    is_durable = True

    def __init__(self, inner: KeyStore) -> None:
        self._inner = inner
        self.reads = 0
        self.open = inner.open
        self.transaction = inner.transaction
        self.aclose = inner.aclose

    def reading(self, *, once: bool = False) -> Any:
        """Begin a read-only transaction, and count it."""
        self.reads += 1
        return self._inner.reading(once=once)


def _cold_readers(place: Place) -> list[Figure]:
    """Ask a thousand times at once for a key that another process made."""

    async def main() -> list[Figure]:
        figures = Figures()
        store = CountingStore(open_store(place.url))
        async with place.manager(store=store) as reader:
            async with place.manager() as writer:
                await writer.rotate_data_key(promote="now")
                blob = writer.local_encrypt(b"cold")
            before = store.reads
            answers = await asyncio.gather(*(reader.decrypt_local(blob) for _ in range(READERS)))
            what = f"store reads for {READERS} concurrent decrypts under one unknown key"
            figures.equal(place.kind, what, store.reads - before, 1)
            figures.equal(place.kind, "of them answered", answers.count(b"cold"), READERS)
        await store.aclose()
        return figures.rows

    return asyncio.run(main())


def _one_process(place: Place, messages: int, *, is_full: bool) -> list[Figure]:
    """Encrypt in one thread, then in eight; count the calls of the KMS over all of it."""
    figures = Figures()
    in_child(_touch, place)
    providers = place.counting_providers()
    km = place.manager(providers=providers)
    asyncio.run(km.initialize())
    alone = _ns_a_call(lambda: _encrypt(km, messages), messages)
    threads = [threading.Thread(target=_encrypt, args=(km, messages // THREADS)) for _ in range(THREADS)]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    shared = _ns_a_call(together, messages)
    figures.tell("one thread", "ns of processor a call, encrypt and decrypt 64 B", alone)
    figures.tell(f"{THREADS} threads", "ns of processor a call", shared)
    if is_full:
        figures.at_most(f"{THREADS} threads", "times one thread", shared / alone, 1.5)
    else:
        # Too short on a machine that does other things beside it.
        figures.tell(f"{THREADS} threads", "times one thread", shared / alone)
    figures.equal("one process", f"KMS calls over {2 * messages} local encryptions", providers["local"].calls, 1)
    return figures.rows


def _touch(place: Place) -> None:
    async def main() -> None:
        async with place.manager():
            pass

    asyncio.run(main())


def _encrypt(km: KeyManager, messages: int) -> None:
    encrypt, decrypt = km.local_encrypt, km.local_decrypt
    for _ in range(messages):
        decrypt(encrypt(MESSAGE))


def _ns_a_call(action: Callable[[], None], calls: int) -> float:
    started = time.process_time()
    action()
    return (time.process_time() - started) * 1e9 / calls


def _processes(figures: Figures, place: Place, messages: int) -> None:
    """Encrypt in four processes at once, each with a manager of its own over the one store."""
    answers = results([fork(_process, place, messages) for _ in range(PROCESSES)])
    figures.tell(f"{PROCESSES} processes", "ns of processor a call", statistics.median(ns for ns, _ in answers))
    figures.equal(f"{PROCESSES} processes", "KMS calls of each", sorted({calls for _, calls in answers}), [1])


def _process(place: Place, messages: int) -> tuple[float, int]:
    providers = place.counting_providers()
    km = place.manager(providers=providers)
    asyncio.run(km.initialize())
    return _ns_a_call(lambda: _encrypt(km, messages), messages), providers["local"].calls


def _keyrings(place: Place, wanted: int) -> list[Figure]:
    """Make keyrings in bulk, then open every one in another manager and encrypt with it."""
    names = [f"tenant-{number:06}" for number in range(wanted)]

    async def make() -> None:
        async with place.manager() as km:
            session = await km.session()
            for at in range(0, wanted, CHUNK):
                await _add(session, names[at : at + CHUNK])

    async def open_all() -> list[Figure]:
        figures = Figures()
        providers = place.counting_providers()
        async with place.manager(providers=providers) as km:
            before = _resident_bytes()
            started = time.monotonic()
            blobs = []
            for name in names:
                blobs.append((await km.keyring(name, create=False)).local_encrypt(b""))
            took = time.monotonic() - started
            grown = (_resident_bytes() - before) / MB
            where = f"{wanted} keyrings"
            figures.equal(where, "KMS calls to open all", providers["local"].calls, 1)
            figures.tell(where, "ms to open one", took * 1000 / wanted)
            figures.tell(where, "MB resident before", before / MB)
            figures.at_most(where, "MB grown, the cache of 1 024 keyrings and the journal included", grown, 100)
            held = [await km.keyring(name, create=False) for name in names[:HELD]]
            figures.equal(where, f"KMS calls with {len(held)} held as well", providers["local"].calls, 1)
            step = max(1, wanted // 100)
            opened = [
                (await km.keyring(name)).local_decrypt(blob)
                for name, blob in list(zip(names, blobs, strict=True))[::step]
            ]
            figures.equal(where, "of a hundred, decrypted again", opened.count(b""), len(opened))
        return figures.rows

    asyncio.run(make())
    return asyncio.run(open_all())


async def _add(session: Session, names: list[str]) -> None:
    """Add keyrings with an active version each, in one transaction."""
    s = session.surroundings
    ring = await session.live.wrap_ring(WRAP_KEYRING)
    keys: dict[int, tuple[str, int]] = {}
    async with s.store.transaction() as work:
        epoch = await work.bump_epoch()
        for name in names:
            keyring = s.new_keyring(name)
            await work.add_keyring(keyring)
            row = s.new_row(keyring, await work.take_version(name))
            row = seal_key(ring, session.live.store_id, row, s.random(WRAP_KEY_SIZE))
            await work.add_key(s.activation(keyring).of(replace(row, published_epoch=epoch)))
            keys[row.id] = (name, row.version)
    s.journal.append(session.live.store_id, keys=keys)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _import_time(figures: Figures, *, is_full: bool) -> None:
    """Compare Python with and without ``import keystead``, by processor time."""
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import keystead, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    figures.equal("import keystead", "of SDKs, SQLAlchemy and drivers loaded", sorted({*loaded} & {*FORBIDDEN}), [])
    bare = [_start_ms("pass") for _ in range(9)]
    full = [_start_ms("import keystead") for _ in range(9)]
    took = statistics.median(full) - statistics.median(bare)
    what = "ms over bare Python, median of 9"
    if is_full:
        figures.at_most("import keystead", what, took, IMPORT_MS)
    else:
        figures.tell("import keystead", what, took)


def _start_ms(code: str) -> float:
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
