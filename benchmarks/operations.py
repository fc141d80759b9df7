"""What happens less often than a message: lookups, hashes, streams, start, import, rotation."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from benchmarks.timing import loop, measure
from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider
from keystead.crypto.keyring import DERIVED_LIMIT, Keyring
from keystead.crypto.stream import READ_SIZE

STREAM_SIZE: Final = 64 * 1024 * 1024
IMPORT_BAR_MS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: what was measured, and the figure with its unit."""

    what: str
    figure: str


@dataclass(frozen=True, slots=True)
class Operations:
    """All lines, and the one figure a bar is set for."""

    lookups: list[Line]
    streams: list[Line]
    start: list[Line]
    import_ms: float


def run(manager: KeyManager, folder: Path, runner: asyncio.Runner, *, rounds: int, cell_ms: float) -> Operations:
    """Measure everything of this module; ``manager`` is open, ``folder`` is its own and empty enough to write in."""
    bare, imported, door = import_times(min(rounds, 15))
    return Operations(
        lookups=lookups(manager, rounds=rounds, cell_ms=cell_ms),
        streams=streams(manager, runner),
        start=[
            *starts(folder, runner, min(rounds, 15)),
            Line("`import keystead`, a fresh interpreter", f"{imported:.1f} ms"),
            Line("`from keystead import KeyManager`, a fresh interpreter", f"{door:.0f} ms"),
            Line("the interpreter alone, from start to exit", f"{bare:.0f} ms"),
        ],
        import_ms=imported,
    )


def lookups(manager: KeyManager, *, rounds: int, cell_ms: float) -> list[Line]:
    """Time decryption of other processes' ciphertexts, and the keyed hash."""
    other = Keyring("default")
    other.load(manager.default.ring.snapshot)
    foreign = []
    for _ in range(DERIVED_LIMIT + 1000):
        foreign.append(other.local_encrypt(b"x" * 64))
        other.renew()
    mine = Keyring("default")
    mine.load(manager.default.ring.snapshot)
    thrashing = Keyring("default")
    thrashing.load(manager.default.ring.snapshot)
    few, many = cycle(foreign[:1000]), cycle(foreign)

    def known() -> bytes:
        return mine.local_decrypt(next(few))

    def unknown() -> bytes:
        return thrashing.local_decrypt(next(many))

    names = {
        "decrypt 64 B, the salts of 1 000 other processes in turn, all seen before": loop(known),
        f"decrypt 64 B, a salt not seen before or forgotten ({len(foreign)} in turn): derives the cipher": loop(
            unknown
        ),
        "`hash_field` of a mail address": loop(manager.hash_field, "ada@example.org"),
        "`needs_reencrypt`": loop(manager.needs_reencrypt, foreign[0]),
    }
    for _ in foreign[:1000]:
        known()
    (samples,) = measure([names], rounds=rounds, cell_ms=cell_ms)
    return [Line(name, f"{samples[name].median_ns / 1000:.2f} µs") for name in names]


def streams(manager: KeyManager, runner: asyncio.Runner) -> list[Line]:
    """Time 64 MiB through the stream suite, and through its cipher alone."""
    plaintext = os.urandom(STREAM_SIZE)
    sealed, key = io.BytesIO(), os.urandom(32)
    runner.run(manager.encrypt_stream(io.BytesIO(plaintext), sealed))

    def floor_encrypt() -> Iterator[bytes]:
        encryptor = Cobblestone256Encryptor(key, b"")
        for i in range(0, STREAM_SIZE, READ_SIZE):
            yield encryptor.update(plaintext[i : i + READ_SIZE])
        yield encryptor.finalize()

    bare = b"".join(floor_encrypt())

    def floor_decrypt() -> None:
        decryptor = Cobblestone256Decryptor(key, b"")
        for i in range(0, len(bare), READ_SIZE):
            decryptor.update(bare[i : i + READ_SIZE])
        decryptor.finalize()

    steps: dict[str, Callable[[], object]] = {
        "`encrypt_stream`": lambda: runner.run(manager.encrypt_stream(io.BytesIO(plaintext), _Nowhere())),
        "`decrypt_stream`": lambda: runner.run(manager.decrypt_stream(io.BytesIO(sealed.getvalue()), _Nowhere())),
        "its cipher alone, encrypt": lambda: deque(floor_encrypt(), maxlen=0),
        "its cipher alone, decrypt": floor_decrypt,
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(5):
        for name, step in steps.items():
            taken[name].append(_seconds(step))
    return [Line(name, f"{STREAM_SIZE / median(times) / 1e6:.0f} MB/s") for name, times in taken.items()]


class _Nowhere(io.BytesIO):
    """A target that keeps nothing."""

    def write(self, data: Any, /) -> int:
        return len(data)


def starts(folder: Path, runner: asyncio.Runner, times: int) -> list[Line]:
    """Time ``initialize`` on a new store and on one that exists, and a rotation."""
    taken: dict[str, list[float]] = {"new": [], "existing": [], "rotate": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            for kind in ("new", "existing"):
                manager = open_manager(Path(place))
                taken[kind].append(_seconds_of(runner, manager.initialize()))
                if kind == "existing":
                    taken["rotate"].append(_seconds_of(runner, manager.rotate_data_key()))
                runner.run(manager.close())
    return [
        Line("`initialize()`, new SQLite store: schema, KEK, WRAP key, data keys", _ms(taken["new"])),
        Line("`initialize()`, existing store: one KMS call", _ms(taken["existing"])),
        Line("`rotate_data_key()`, SQLite, one node", _ms(taken["rotate"])),
    ]


def import_times(times: int) -> tuple[float, float, float]:
    """Return milliseconds of a bare interpreter, and of two imports within fresh ones."""
    clocked = "import time; start = time.perf_counter(); {}; print((time.perf_counter() - start) * 1000)"
    bare, package, door = [], [], []
    for _ in range(times):
        bare.append(_seconds(lambda: _python("pass")) * 1000)
        package.append(float(_python(clocked.format("import keystead"))))
        door.append(float(_python(clocked.format("from keystead import KeyManager"))))
    return median(bare), median(package), median(door)


def open_manager(folder: Path) -> KeyManager:
    """Return a manager over a KEK file and an SQLite store in ``folder``, not initialised, without background task."""
    kek = LocalKMSProvider(LocalKMSConfig(path=str(folder / "keystead.kek"), create=True))
    return KeyManager({"local": kek}, store=f"sqlite:///{folder}/keys.db", background=False)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _seconds(step: Callable[[], object]) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


def _seconds_of(runner: asyncio.Runner, step: Coroutine[Any, Any, object]) -> float:
    return _seconds(lambda: runner.run(step))


def _ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.1f} ms"
