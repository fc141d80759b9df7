"""SIGKILL at every SQL statement, commit and await of every operation that changes keys."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Final

from keystead.errors import KMSError
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from soak import crash_operations, crash_transit
from soak.crash_operations import Acknowledged, Operation, Stage, recover
from soak.crash_points import CrashPoints
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, fork, in_child, results
from soak.places import Databases, Place, rows

OPERATIONS: Final = (*crash_operations.OPERATIONS, *crash_transit.OPERATIONS)
SHORT_POINTS: Final = 6
"""Kills of an operation on one database in the short form: twelve on the two together."""
MOST_POINTS: Final = 5000
TIMEOUT_S: Final = 6 * 3600.0


class Crash:
    """See the module."""

    name = "crash"
    claim = (
        "Killed at any statement, commit or await, a restart decrypts everything ever given out, exactly one version "
        "is active, every key unwraps, and the operation can be done again."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Kill each operation on each database: at every point, or in the short form at points evenly spread."""
        lanes = [fork(_lane, setting, kind) for kind in setting.databases.kinds]
        return [figure for lane in results(lanes, TIMEOUT_S) for figure in lane]


def _lane(setting: Setting, kind: str) -> list[Figure]:
    """Kill every operation on one database; the databases have a process each."""
    figures = Figures()
    for operation in OPERATIONS:
        folder = setting.folder / f"{kind} {operation.name}".replace(" ", "-").lower()
        started = time.monotonic()
        kinds, kills, checked = _kill_everywhere(setting.databases, kind, operation, folder, is_full=setting.is_full)
        told = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
        where = f"{kind}: {operation.name}"
        figures.equal(where, f"kills survived, of {told}", checked, kills)
        figures.tell(where, "ms a kill, restart and check", (time.monotonic() - started) * 1000 / max(1, kills))
    return figures.rows


def _kill_everywhere(
    databases: Databases, kind: str, operation: Operation, folder: Path, *, is_full: bool
) -> tuple[Counter[str], int, int]:
    """Return how many points there are by kind, how often the process was killed, and how often all was well."""
    template = _template(databases, kind, operation, folder)
    template.keep()
    kinds = in_child(_act, template.again(folder / "dry"), operation, 0)
    total = kinds.total()
    points = range(1, MOST_POINTS) if is_full else _spread(total, SHORT_POINTS)
    kills = checked = 0
    for point in points:
        place = template.again(folder / str(point))
        was_killed = fork(_act, place, operation, point).was_killed()
        kills += was_killed
        try:
            in_child(_check, place, operation)
        except ChildFailedError as exc:
            raise ChildFailedError(f"{kind}, {operation.name}, killed at point {point} of {total}: {exc}") from None
        checked += was_killed
        shutil.rmtree(place.folder)
        if not was_killed and point > total:
            break
    template.drop()
    return kinds, kills, checked


def _spread(total: int, wanted: int) -> list[int]:
    """Return ``wanted`` of the points 1 to ``total``, evenly spread, the first and the last among them."""
    if total <= wanted:
        return list(range(1, total + 1))
    return sorted({1 + round(step * (total - 1) / (wanted - 1)) for step in range(wanted)})


def _template(databases: Databases, kind: str, operation: Operation, folder: Path) -> Place:
    """Return the store as it is before the operation, made once and copied for every kill."""
    place = databases.place(kind, folder / "template")
    if not operation.prepares:
        return place
    in_child(_prepare, place, operation)
    if not operation.repeat_first:
        return place
    # An import goes into an empty store; what goes with it are the export and the ciphertexts.
    empty = databases.place(kind, folder / "empty")
    for name in ("export.json", "acknowledged"):
        (place.folder / name).rename(empty.folder / name)
    place.drop()
    return empty


def _stage(place: Place, operation: Operation) -> Stage:
    return Stage(place, place.manager(**operation.options), Acknowledged(place.folder / "acknowledged"))


def _prepare(place: Place, operation: Operation) -> None:
    async def main() -> None:
        async with place.manager() as km:
            stage = Stage(place, km, Acknowledged(place.folder / "acknowledged"))
            stage.acknowledged.encrypt(km)
            await operation.prepare(stage)

    asyncio.run(main())


def _act(place: Place, operation: Operation, fatal: int) -> Counter[str]:
    """Do the operation and die at point ``fatal``; a ciphertext is given out at every point before it."""

    async def main() -> Counter[str]:
        stage = _stage(place, operation)
        points = CrashPoints(fatal, lambda: stage.acknowledged.encrypt(stage.km))
        if operation.opens:
            await stage.km.initialize()
        await points.armed(lambda: _awaited(operation, stage))
        stage.acknowledged.encrypt(stage.km)
        await stage.km.close()
        return points.kinds

    return asyncio.run(main())


async def _awaited(operation: Operation, stage: Stage) -> None:
    await operation.act(stage)


def _check(place: Place, operation: Operation) -> None:
    """Restart, look, do the operation again, and look again."""

    async def main() -> None:
        if operation.repeat_first:
            again = _stage(place, operation)
            await operation.act(again)
            await again.km.close()
        stage = _stage(place, operation)
        await stage.km.initialize()
        _decrypt_everything(stage)
        if not operation.repeat_first:
            await _verify(stage.km)
            _require_one_active(place)
            await operation.act(stage)
        await recover(stage)
        stage.acknowledged.encrypt(stage.km)
        await stage.km.close()
        stage = _stage(place, operation)
        await stage.km.initialize()
        _decrypt_everything(stage)
        await _verify(stage.km)
        if stage.km.local_decrypt(stage.km.local_encrypt(b"after")) != b"after":
            raise ChildFailedError("encryption does not work after the second try")
        await stage.km.close()
        _require_one_active(place)

    asyncio.run(main())


def _decrypt_everything(stage: Stage) -> None:
    for number, (plaintext, ciphertext) in enumerate(stage.acknowledged.read()):
        try:
            found = stage.km.local_decrypt(ciphertext)
        except KMSError as exc:
            raise ChildFailedError(f"ciphertext {number} is lost: {exc!r}") from exc
        if found != plaintext:
            raise ChildFailedError(f"ciphertext {number} decrypts to another plaintext")


async def _verify(km: KeyManager) -> None:
    report = await backup.verify(km)
    if report.failures or not report.keys:
        raise ChildFailedError(f"verify: {report}")


def _require_one_active(place: Place) -> None:
    counted = rows(
        place,
        "SELECT keyrings.name, (SELECT count(*) FROM data_keys WHERE data_keys.keyring = keyrings.name "
        "AND data_keys.state = 'active') FROM keyrings",
    )
    if not counted or any(active != 1 for _, active in counted):
        raise ChildFailedError(f"active versions by keyring: {counted}")
