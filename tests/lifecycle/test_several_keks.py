"""WRAP keys under several KEKs: added, renewed and dropped wraps, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.errors import (
    ConflictError,
    DecryptionError,
    KeyDecryptionFailError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
)
from keystead.lifecycle.rewrap import Rewrap, RewrapReport
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, KeyRecord, WrapState
from keystead.providers.multi.format import Container
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.world import World, session_of


class Keks:
    """Three fake KMSs, and managers over sets of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.a, self.b, self.c = (FakeKMS(clock=world.clock) for _ in range(3))

    def options(self, *names: str, policy: Any = "all", instance: str = "both") -> dict[str, Any]:
        members = {name: getattr(self, name).provider() for name in names}
        provider = MultiKMSProvider(
            members, policy=policy, key_ids=dict.fromkeys(names, "kek"), clock=self.world.clock, patience_s=5.0
        )
        return {"providers": {instance: provider}, "default_provider": instance, "default_key_id": "default"}

    def open(self, *names: str, **how: Any) -> Any:
        return self.world.open(**self.options(*names, **how))


@pytest.fixture
def keks(world: World) -> Keks:
    return Keks(world)


async def rewrap_of(km: KeyManager) -> Rewrap:
    return (await session_of(km)).lifecycle.rewrap


async def wraps(world: World) -> list[str]:
    """Return the version of each KEK that wraps each WRAP key, as the rows tell it."""
    return [row.kek_version or "" for row in await world.rows(WRAP_KEYRING)]


async def epoch(world: World) -> int:
    async with world.store.reading() as work:
        return (await work.state()).epoch


async def test_a_wrap_row_holds_the_names_keys_and_versions_of_every_kek(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        km.local_encrypt(b"x")
    [row] = await world.rows(WRAP_KEYRING)
    assert (row.kek_provider, row.kek_key_id, row.kek_version) == ("both", "{a=kek,b=kek}", "{a=1,b=1}")
    assert row.kek_algorithm == "multi-v1"


async def test_a_member_that_was_away_gets_its_wrap_by_a_rewrap(world: World, keks: Keks) -> None:
    keks.b.deny()
    async with keks.open("a", "b", policy="any") as km:
        sealed = km.local_encrypt(b"x")
        assert (await admin.store_status(km)).missing_wraps == {"b": 1}
        keks.b.heal()
        assert await (await rewrap_of(km)).run(new_wrap_version=False) == RewrapReport(wrap_keys=1)
        assert (await admin.store_status(km)).missing_wraps == {}
    keks.a.fail_always()
    async with keks.open("a", "b") as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_what_is_as_it_should_be_is_not_written(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        before = await epoch(world)
        assert await (await rewrap_of(km)).wrap_rows() == (0, 0)
        assert await epoch(world) == before


async def test_a_newer_version_of_one_kek_renews_every_wrap(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        await keks.b.rotate_key("kek")
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
        assert await wraps(world) == ["{a=1,b=2}"]


async def test_new_versions_of_all_keks_come_with_one_rewrap(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
        await (await rewrap_of(km)).run(new_kek_version=True)
        assert await wraps(world) == ["{a=2,b=2}", "{a=2,b=2}"]
    async with keks.open("b") as km:
        assert await km.decrypt_local(sealed) == b"x"


async def test_a_new_member_is_added_and_a_former_one_dropped(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
    async with keks.open("b", "c") as km:
        assert km.local_decrypt(sealed) == b"x"
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
    [row] = await world.rows(WRAP_KEYRING)
    assert row.kek_key_id == "{b=kek,c=kek}"
    async with keks.open("c") as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_while_a_member_is_away_whole_rows_are_left_alone(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        keks.b.deny()
        before = await world.rows()
        assert await (await rewrap_of(km)).wrap_rows() == (0, 0)
        assert await world.rows() == before


async def test_a_row_that_cannot_be_made_whole_yet_is_an_error_and_keeps_no_data_key_from_moving(
    world: World, keks: Keks
) -> None:
    keks.b.deny()
    async with keks.open("a", "b", policy="any") as km:
        sealed = km.local_encrypt(b"x")
        with pytest.raises(ProviderAuthError, match="b: "):
            await (await rewrap_of(km)).run()
        _, new = await world.rows(WRAP_KEYRING)
        assert {row.wrapped_by for row in await world.rows() if row.keyring != WRAP_KEYRING} == {new.id}
        assert km.local_decrypt(sealed) == b"x"


async def test_maintenance_mends_and_reports_what_it_could_not(world: World, keks: Keks) -> None:
    keks.b.deny()
    async with keks.open("a", "b", policy="any") as km:
        assert (await km.perform_maintenance()).failures == {"rewrapped": "provider_auth"}
        keks.b.heal()
        report = await km.perform_maintenance()
        assert (report.rewrapped, report.failures) == (1, {})
        assert await wraps(world) == ["{a=1,b=1}"]


async def test_one_kek_becomes_several_and_several_become_one(world: World, keks: Keks) -> None:
    async with world.open(providers={"a": keks.a}, default_key_id="kek") as km:
        sealed = km.local_encrypt(b"x")
    with pytest.raises(ProviderNotConfiguredError, match="'a'"):
        async with keks.open("a", "b"):
            pass
    several = keks.options("a", "b")
    one = {"a": keks.a.provider()}
    async with world.open(**{**several, "providers": {**several["providers"], **one}}) as km:
        assert km.local_decrypt(sealed) == b"x"
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
    async with keks.open("b") as km:
        assert km.local_decrypt(sealed) == b"x"
    back = {**several, "providers": {**several["providers"], **one}, "default_provider": "a", "default_key_id": "kek"}
    async with world.open(**back) as km:
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
    async with world.open(providers={"a": keks.a}, default_key_id="kek") as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_renamed_set_is_found_by_its_alias_and_its_rows_get_the_new_name(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
    renamed = keks.options("a", "b", instance="pair")
    async with world.open(**renamed, provider_aliases={"both": "pair"}) as km:
        assert km.local_decrypt(sealed) == b"x"
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
    async with world.open(**renamed) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_member_keeps_its_wrap_while_it_is_away_and_others_are_renewed(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
        await keks.a.rotate_key("kek")
        keks.b.fail_always()
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
        assert await wraps(world) == ["{a=2,b=1}"]
    keks.b.heal()
    async with keks.open("b") as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_another_key_id_for_the_set_moves_every_row_there(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
    async with world.open(**{**keks.options("a", "b"), "default_key_id": "orders"}) as km:
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
        assert km.local_decrypt(sealed) == b"x"
    [row] = await world.rows(WRAP_KEYRING)
    assert row.kek_key_id == "{a=orders,b=orders}"


async def damage(world: World, row: KeyRecord, wrapped_key: bytes) -> None:
    async with world.store.transaction() as work:
        await work.change_key(row.id, row.state, wrapped_key=wrapped_key)


async def test_a_damaged_row_is_left_as_it_is_and_lacks_nothing_that_could_be_told(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        [row] = await world.rows(WRAP_KEYRING)
        await damage(world, row, bytes(64))
        assert (await admin.store_status(km)).missing_wraps == {}
        with pytest.raises(KeyDecryptionFailError, match=str(row.id)):
            await (await rewrap_of(km)).wrap_rows()
        assert (await world.rows(WRAP_KEYRING))[0].wrapped_key == bytes(64)


async def test_a_wrap_taken_out_of_a_row_is_no_gap_to_mend_but_an_altered_row(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        [row] = await world.rows(WRAP_KEYRING)
        whole = Container.parse(row.wrapped_key or b"")
        less = Container(whole.commitment, whole.asked, whole.wraps[:1], whole.body)
        async with world.store.transaction() as work:
            await work.change_key(row.id, row.state, wrapped_key=less.to_bytes(), kek_key_id=less.key_id)
        with pytest.raises(KeyDecryptionFailError):
            await (await rewrap_of(km)).wrap_rows()
    with pytest.raises(KeyDecryptionFailError):
        async with keks.open("a", "b"):
            pass


async def test_a_row_of_other_members_alone_names_them(world: World, keks: Keks) -> None:
    async with keks.open("a", "b"):
        pass
    with pytest.raises(ProviderNotConfiguredError, match="'a', 'b'"):
        async with keks.open("c"):
            pass


async def test_wraps_that_do_not_agree_are_told_with_the_row_and_left_alone(world: World, keks: Keks) -> None:
    async with keks.open("a", "b", "c") as km:
        [row] = await world.rows(WRAP_KEYRING)
        keks.b.fail_always(DecryptionError("decryption failed"))
        await keks.a.rotate_key("kek")
        with pytest.raises(KeyDecryptionFailError, match=rf"{row.id}.*do not agree.*b: ") as told:
            await (await rewrap_of(km)).wrap_rows()
        assert not told.value.retryable
        assert await world.rows(WRAP_KEYRING) == [row]


async def test_a_row_that_another_process_changed_first_is_counted_as_skipped(
    world: World, keks: Keks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keks.open("a", "b") as km:
        await keks.a.rotate_key("kek")
        rewrap = await rewrap_of(km)

        async def conflict(*arguments: object, **changes: object) -> None:
            raise ConflictError("another process was faster")

        with monkeypatch.context() as patch:
            patch.setattr("keystead.stores.keys.KeyWriteRows.change_key", conflict)
            assert await rewrap.wrap_rows() == (0, 1)


async def test_each_wrap_is_checked_with_the_rows_own_context(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        session = await session_of(km)
        [row] = await world.rows(WRAP_KEYRING)
        wrapper, store_id = session.surroundings.wrapper, session.live.store_id
        assert await wrapper.check_wraps(store_id, row, opens=True) == {"a": WrapState.CURRENT, "b": WrapState.CURRENT}
        states = await wrapper.check_wraps("another store", row, opens=True)
        assert states == {"a": WrapState.REFUSED, "b": WrapState.REFUSED}


async def test_a_row_under_one_kek_has_no_wraps_to_tell_of(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        [row] = await world.rows(WRAP_KEYRING)
        wrapper = session.surroundings.wrapper
        assert wrapper.missing_wraps(row) == []
        assert await wrapper.check_wraps(session.live.store_id, row, opens=True) == {}


async def test_an_outage_of_every_member_changes_nothing(world: World, keks: Keks) -> None:
    async with keks.open("a", "b") as km:
        sealed = km.local_encrypt(b"x")
        await keks.a.rotate_key("kek")
        before = await world.rows()
        for kms in (keks.a, keks.b):
            kms.fail_always()
        assert await (await rewrap_of(km)).wrap_rows() == (0, 0)
        with pytest.raises(ProviderConnectionError):
            await (await rewrap_of(km)).run(new_kek_version=True)
        assert await world.rows() == before
        assert km.local_decrypt(sealed) == b"x"
