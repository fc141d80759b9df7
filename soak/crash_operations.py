"""The operations that are killed: how the store before each is made, and how each is begun."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from keystead.errors import InvalidInputError, KMSError
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState
from soak.places import Place

PLAINTEXT_SIZE: Final = 16
RECORD_SIZE: Final = PLAINTEXT_SIZE * 2 + 54
KEYRINGS: Final = ("north", "south")


@dataclass(slots=True)
class Acknowledged:
    """A file of ciphertexts, each written before it counts as given out."""

    path: Path

    def encrypt(self, km: KeyManager) -> None:
        """Encrypt one message and write it; nothing where the manager refuses."""
        plaintext = os.urandom(PLAINTEXT_SIZE)
        with contextlib.suppress(KMSError):
            ciphertext = km.local_encrypt(plaintext)
            with self.path.open("ab", buffering=0) as file:
                file.write(plaintext + ciphertext)

    def read(self) -> list[tuple[bytes, bytes]]:
        """Return plaintext and ciphertext of each whole record."""
        data = self.path.read_bytes() if self.path.exists() else b""
        records = [data[at : at + RECORD_SIZE] for at in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE)]
        return [(record[:PLAINTEXT_SIZE], record[PLAINTEXT_SIZE:]) for record in records]


@dataclass(frozen=True, slots=True)
class Stage:
    """What an operation works with: its store, the manager, and the ciphertexts given out."""

    place: Place
    km: KeyManager
    acknowledged: Acknowledged


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    ``opens`` is whether the manager is opened before the points are armed; ``options`` are the manager's;
    ``repeat_first`` is for an operation whose store cannot be opened for use before it has ended.
    """

    name: str
    prepare: Callable[[Stage], Awaitable[None]]
    act: Callable[[Stage], Awaitable[object]]
    opens: bool = True
    prepares: bool = True
    repeat_first: bool = False
    options: dict[str, Any] = field(default_factory=dict)


async def _nothing(stage: Stage) -> None:
    pass


async def _keyrings(stage: Stage) -> None:
    for name in KEYRINGS:
        await stage.km.keyring(name)
    await stage.km.rotate_data_key()
    stage.acknowledged.encrypt(stage.km)


async def _create_store(stage: Stage) -> None:
    await stage.km.initialize()


async def _create_keyring(stage: Stage) -> object:
    return await stage.km.keyring("north")


async def _rotate(stage: Stage) -> object:
    return await stage.km.rotate_data_key()


async def _leave_waiting(stage: Stage) -> None:
    session = await stage.km.session()
    async with session.surroundings.store.transaction() as work:
        await work.beat("another node", 0, 60_000)
    row = await stage.km.rotate_data_key()
    if row.state is not DataKeyState.PRE_ACTIVE:
        raise KMSError("the version did not wait for the other node")


async def _promote(stage: Stage) -> object:
    return await stage.km.default.promote(force=True)


async def _rotate_wrap(stage: Stage) -> None:
    await _keyrings(stage)
    session = await stage.km.session()
    await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")


async def _rewrap_data(stage: Stage) -> object:
    return await (await stage.km.session()).lifecycle.rewrap.data_rows()


async def _rewrap_wraps(stage: Stage) -> object:
    return await (await stage.km.session()).lifecycle.rewrap.wrap_rows()


async def _rewrap_all(stage: Stage) -> object:
    return await (await stage.km.session()).lifecycle.rewrap.run()


async def _schedule(stage: Stage) -> None:
    first = await stage.km.rotate_data_key()
    await stage.km.rotate_data_key()
    session = await stage.km.session()
    row = await session.lifecycle.destruction.schedule(first.id, wait=timedelta(days=7), without_sources=True)
    assert row.destroy_after is not None
    async with session.surroundings.store.transaction() as work:
        # Due by the store's clock, which is nobody's to set.
        epoch, over = await work.bump_epoch(), row.destroy_after - timedelta(days=8)
        await work.change_key(row.id, row.state, destroy_after=over, published_epoch=epoch)


async def _destroy(stage: Stage) -> object:
    return await (await stage.km.session()).lifecycle.destruction.run_due()


async def _export(stage: Stage) -> None:
    await _keyrings(stage)
    (stage.place.folder / "export.json").write_text(await backup.export_text(stage.km))


async def _import(stage: Stage) -> None:
    export = backup.read_export((stage.place.folder / "export.json").read_text())
    # Refused where the first try came through; whether it did is seen by what decrypts.
    with contextlib.suppress(InvalidInputError):
        await backup.import_export(stage.km, export)


async def _mark_restored(stage: Stage) -> None:
    await _keyrings(stage)
    session = await stage.km.session()
    async with session.surroundings.store.transaction() as work:
        await work.set_restored(True)
        await work.bump_epoch()


async def recover(stage: Stage) -> None:
    """Recover the store; nothing where that is already done."""
    with contextlib.suppress(InvalidInputError):
        await backup.recover(stage.km)


OPERATIONS: Final = (
    Operation("create store", _nothing, _create_store, opens=False, prepares=False),
    Operation("create keyring", _nothing, _create_keyring),
    Operation("rotate", _nothing, _rotate),
    Operation("promote", _leave_waiting, _promote),
    Operation("rewrap data keys", _rotate_wrap, _rewrap_data),
    Operation("rewrap WRAP keys", _keyrings, _rewrap_wraps, options={"default_provider": "newer"}),
    Operation("rewrap everything", _keyrings, _rewrap_all, options={"default_provider": "newer"}),
    Operation("destroy", _schedule, _destroy),
    Operation("import", _export, _import, opens=False, repeat_first=True),
    Operation("recover", _mark_restored, recover),
)
