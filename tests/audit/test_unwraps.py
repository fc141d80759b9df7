"""WRAP keys that sessions of earlier processes need, and what is told when the KMS refuses one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from keystead.errors import KeyStateError, StorageOperationError
from keystead.ledger.audit.looking import SHUT_S
from keystead.lifecycle.uses import Uses
from keystead.manager import admin
from keystead.model import WRAP_KEYRING, DataKeyState
from keystead.ports import AuditEvent, UnitOfWork
from tests.audit.places import seal
from tests.audit.worlds import waiting
from tests.fakes.world import World, session_of


class OnlyChanges:
    """A trail of an application's own that is told of changes alone."""

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Take no notice."""


async def test_a_wrap_key_is_loaded_by_its_id_whatever_version_it_is(world: World) -> None:
    async with world.open() as km:
        await admin.rewrap(km)
    old, new = await world.rows(WRAP_KEYRING)
    [default] = await world.rows("default")
    async with world.open() as km:
        live = (await session_of(km)).live
        before = world.calls()
        assert [await live.load_wrap_key(WRAP_KEYRING, key) for key in (old.id, new.id, old.id)] == [True] * 3
        assert world.calls() == before + 1
        assert not await live.load_wrap_key(WRAP_KEYRING, 1)
        assert not await live.load_wrap_key(WRAP_KEYRING, default.id)


async def test_a_wrap_key_that_is_disabled_is_not_loaded(world: World) -> None:
    async with world.open() as km:
        await admin.rewrap(km)
    old, _ = await world.rows(WRAP_KEYRING)
    async with world.store.transaction() as work:
        await work.change_key(old.id, old.state, state=DataKeyState.DISABLED, published_epoch=await work.bump_epoch())
    async with world.open() as km:
        with pytest.raises(KeyStateError, match="enable it again"):
            await (await session_of(km)).live.load_wrap_key(WRAP_KEYRING, old.id)


async def test_entries_under_a_disabled_wrap_key_wait_until_it_is_enabled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    gone = world.manager(audit=True)
    await gone.initialize()
    async with world.open() as km:
        await admin.rewrap(km)
        old, _ = await world.rows(WRAP_KEYRING)
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(old.id, old.state, state=DataKeyState.DISABLED, published_epoch=epoch)
    await gone.audit.record("order.paid", number=1)
    async with world.open() as km:
        await seal(km)
        assert "entries wait" in caplog.text
        assert await km.audit.entries(action="order.paid") == []
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(old.id, DataKeyState.DISABLED, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        world.clock.advance(SHUT_S)
        await seal(km)
        assert len(await km.audit.entries(action="order.paid")) == 1
    await gone.close()


async def test_a_wrap_key_that_the_sequencer_has_unwrapped_is_in_the_trail(world: World) -> None:
    gone = world.manager(audit=True)
    await gone.initialize()
    async with world.open() as km:
        await admin.rewrap(km)
    old, _ = await world.rows(WRAP_KEYRING)
    await gone.audit.record("order.paid")
    async with world.open() as km:
        before = world.calls()
        await seal(km)
        assert world.calls() > before
        node = (await session_of(km)).surroundings.node.value
        told = [each.details for each in await km.audit.entries(action="key.load") if each.node == node]
        told += [
            each["details"] for each in await waiting(world) if (each["action"], each["node"]) == ("key.load", node)
        ]
        assert str(old.id) in [key for details in told for key in details.get("wrap_keys", ())]
    await gone.close()


async def test_a_kms_that_refuses_the_wrap_key_is_told_in_the_trail(world: World) -> None:
    async with world.open(audit=True) as km:
        world.kms.deny("decrypt")
        world.clock.advance(timedelta(hours=1, seconds=1))
        await km.run_due()
        told = [entry for entry in await waiting(world) if entry["action"] == "kek.refuse"]
        assert [entry["details"]["code"] for entry in told] == ["provider_auth"]


class Telling:
    """A trail that takes its time to be told, and may fail."""

    def __init__(self, uses: Callable[[], Uses]) -> None:
        self.told: list[AuditEvent] = []
        self.fails = False
        self._uses = uses

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Take no notice."""

    async def note(self, *events: AuditEvent) -> None:
        """Take events; meanwhile another WRAP key is unwrapped."""
        self._uses().unwrapped(2)
        if self.fails:
            raise StorageOperationError("no more entries")
        self.told += events


@pytest.mark.parametrize("fails", [False, True])
async def test_a_wrap_key_that_is_unwrapped_while_another_is_told_is_told_next(fails: bool) -> None:
    trail = Telling(lambda: uses)
    uses = Uses(trail)
    trail.fails = fails
    uses.unwrapped(1)
    with pytest.raises(StorageOperationError) if fails else contextlib.nullcontext():
        await uses.loaded("default", [7])
    trail.fails = False
    await uses.loaded("default")
    told = [event.details["wrap_keys"] for event in trail.told]
    assert told == ([["1", "2"]] if fails else [["1"], ["2"]])


async def test_a_trail_that_is_told_of_changes_alone_is_told_of_nothing_else() -> None:
    uses = Uses(OnlyChanges())
    uses.unwrapped(1)
    await uses.loaded("default", [1])
    await uses.note("key.draw")
    async with World().open(audit=OnlyChanges()) as km:
        await km.generate_data_key()
        assert not (await km.audit.status()).is_on
