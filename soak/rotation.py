"""Four processes encrypt, and decrypt each other's ciphertexts without I/O, while a fifth rotates."""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keystead.errors import DataKeyNotLoadedError
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, fork, in_child, results, sleep_until
from soak.places import Place

WORKERS: Final = 4
BATCH: Final = 8
PAUSE_S: Final = 0.02
RECORD: Final = struct.Struct(">QQ")
SIZE: Final = RECORD.size + 54
POLL_S: Final = 0.05
NODE_S: Final = 5.0
"""A node's own poll interval. Polls come far more often, by ``run_due``; its heartbeat, which holds for two intervals,
must not run out when this machine has no processor to spare."""
TIMEOUT_S: Final = 3600.0


class Rotation:
    """See the module."""

    name = "rotation"
    claim = "Processes encrypt while another rotates, and every ciphertext decrypts in every process and after restart."

    def run(self, setting: Setting) -> list[Figure]:
        """Rotate by the rule, then by force, on each database."""
        figures = Figures()
        rotations = setting.choose(short=50, full=1000)
        forced = setting.choose(short=20, full=1000)
        for place in setting.databases.each(setting.folder / "auto"):
            _measure(figures, place, rotations, promote="auto")
        for place in setting.databases.each(setting.folder / "now"):
            _measure(figures, place, forced, promote="now")
        return figures.rows


@dataclass(slots=True)
class Seen:
    """What one worker saw."""

    encrypted: int = 0
    decrypted: int = 0
    not_loaded: int = 0
    keys: set[int] = field(default_factory=set)


def _measure(figures: Figures, place: Place, rotations: int, *, promote: str) -> None:
    where = f"{place.kind}, promote={promote}"
    in_child(_touch, place)
    files = [place.folder / f"ciphertexts-{index}" for index in range(WORKERS)]
    workers = [fork(_work, place, index, files) for index in range(WORKERS)]
    rotator = fork(_rotate, place, files, rotations, promote)
    started = time.monotonic()
    try:
        rotated = rotator.result(TIMEOUT_S)
    finally:
        (place.folder / "stop").touch()
    seen = results(workers, TIMEOUT_S)
    total = sum(worker.encrypted for worker in seen)
    figures.equal(where, "rotations", rotated, rotations)
    figures.tell(where, "seconds a rotation", (time.monotonic() - started) / rotations)
    figures.equal(
        where,
        "decrypted by other processes, sync path first",
        sum(worker.decrypted for worker in seen),
        total * (WORKERS - 1),
    )
    not_loaded = sum(worker.not_loaded for worker in seen)
    if promote == "auto":
        figures.equal(where, "ids unknown to the sync path", not_loaded, 0)
    else:
        figures.tell(where, "ids unknown to the sync path, then fetched", not_loaded)
    figures.tell(where, "versions that were encrypted under", len(set().union(*(worker.keys for worker in seen))))
    decrypted, versions, active = in_child(_read_again, place, files)
    figures.equal(where, "decrypted after restart, sync path only", decrypted, total)
    figures.equal(where, "versions are 1, 2, 3...", versions == list(range(1, rotations + 2)), True)
    figures.equal(where, "active versions", active, 1)


def _touch(place: Place) -> None:
    async def main() -> None:
        async with place.manager():
            pass

    asyncio.run(main())


def _rotate(place: Place, files: list[Path], rotations: int, promote: str) -> int:
    async def main() -> int:
        deadline = time.monotonic() + TIMEOUT_S
        await sleep_until(lambda: all(path.exists() and path.stat().st_size for path in files), 60, "the workers")
        done, version = 0, 1
        async with place.manager() as km:
            while done < rotations:
                info = await km.rotate_data_key(promote=promote)
                while info.state is DataKeyState.PRE_ACTIVE:
                    await asyncio.sleep(POLL_S / 2)
                    info = await km.default.promote() or await km.get_active_data_key()
                    if time.monotonic() > deadline:
                        raise ChildFailedError("a version was not promoted")
                # A node that promoted first leaves this process behind; its next call then only catches up.
                done += info.version > version
                version = info.version
        return done

    return asyncio.run(main())


def _work(place: Place, index: int, files: list[Path]) -> Seen:
    async def main() -> Seen:
        seen = Seen()
        offsets = dict.fromkeys((i for i in range(WORKERS) if i != index), 0)
        stop = place.folder / "stop"
        async with place.manager(background=True, epoch_max_age_s=NODE_S) as km:
            polled = time.monotonic()
            with files[index].open("wb", buffering=0) as own:
                while not stop.exists():
                    batch = [
                        km.local_encrypt(RECORD.pack(index, number))
                        for number in range(seen.encrypted, seen.encrypted + BATCH)
                    ]
                    own.write(b"".join(batch))
                    seen.encrypted += BATCH
                    seen.keys.add(km.default.data_key_id(batch[-1]))
                    await _read_others(km, files, offsets, seen)
                    await asyncio.sleep(PAUSE_S)
                    if time.monotonic() - polled > POLL_S:
                        await km.run_due()
                        polled = time.monotonic()
            (place.folder / f"done-{index}").touch()
            others = [place.folder / f"done-{i}" for i in range(WORKERS)]
            await sleep_until(lambda: all(path.exists() for path in others), 60, "the other workers")
            while await _read_others(km, files, offsets, seen):
                pass
        return seen

    return asyncio.run(main())


async def _read_others(km: KeyManager, files: list[Path], offsets: dict[int, int], seen: Seen) -> int:
    """Decrypt what the other processes have written since the last call; return how many."""
    found = 0
    for other, offset in offsets.items():
        if not files[other].exists():
            continue
        with files[other].open("rb") as file:
            file.seek(offset)
            data = file.read(SIZE * BATCH * 16)
        whole = len(data) // SIZE
        for at in range(whole):
            blob = data[at * SIZE : (at + 1) * SIZE]
            try:
                plaintext = km.local_decrypt(blob)
            except DataKeyNotLoadedError:
                seen.not_loaded += 1
                plaintext = await km.decrypt_local(blob)
            if plaintext != RECORD.pack(other, offset // SIZE + at):
                raise ChildFailedError("a ciphertext decrypted to another plaintext")
        offsets[other] += whole * SIZE
        found += whole
    seen.decrypted += found
    return found


def _read_again(place: Place, files: list[Path]) -> tuple[int, list[int], int]:
    async def main() -> tuple[int, list[int], int]:
        decrypted = 0
        async with place.manager() as km:
            for index, path in enumerate(files):
                with path.open("rb") as file:
                    number = 0
                    while blob := file.read(SIZE):
                        if km.local_decrypt(blob) != RECORD.pack(index, number):
                            raise ChildFailedError("a ciphertext decrypted to another plaintext")
                        number += 1
                decrypted += number
            versions = await km.default.versions()
        return decrypted, [info.version for info in versions], sum(info.is_active for info in versions)

    return asyncio.run(main())
