"""Devices and their key pairs: one active of a kind, counts that are exact, and pairs that two never take."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keystead.errors import ConflictError, StorageOperationError
from keystead.model import utc_text
from keystead.ports import (
    ClientKeyRecord,
    DeviceRecord,
    KeyStore,
    Newest,
    PairKind,
    ReadyPairRecord,
    Standing,
    UnitOfWork,
)
from keystead.stores import open_store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DEVICE = DeviceRecord("", "phone", "ada", NOW)
KEY = ClientKeyRecord(
    "key_1",
    "",
    "phone",
    "ada",
    PairKind.RSA_2048,
    "PEM",
    b"\xae" + bytes(60),
    7,
    utc_text(NOW),
    NOW + 30 * DAY,
    "1.0",
    updated_at=NOW,
)
ONE_EVER = Newest(1, "")
READY = ReadyPairRecord("key_ready", PairKind.X25519, "PEM", b"\xae" + bytes(60), 7, utc_text(NOW))


async def filled(store: KeyStore, *keys: ClientKeyRecord) -> None:
    async with store.transaction() as work:
        await work.hold_device(DEVICE)
        for key in keys:
            await work.add_client_key(key)


async def test_what_was_put_in_comes_out(store: KeyStore) -> None:
    await filled(store, KEY)
    async with store.reading() as work:
        assert await work.find_device("", "phone") == DEVICE
        assert await work.find_client_key("key_1") == KEY
        assert await work.client_keys("", "phone") == [KEY]
        assert await work.find_client_key_for("key_2", bytes(32)) is None
        assert (await work.find_device("north", "phone"), await work.find_client_key("key_2")) == (None, None)


async def test_a_pair_is_found_with_whether_a_ciphertext_to_it_is_spent(store: KeyStore) -> None:
    await filled(store, KEY)
    async with store.transaction() as work:
        assert await work.spend("key_1", bytes(32), until=NOW)
        assert await work.spend("key_2", b"\x01" * 32, until=NOW)
    for digest, is_spent in ((bytes(32), True), (b"\x01" * 32, False)):
        async with store.reading(once=True) as work:
            assert await work.find_client_key_for("key_1", digest) == (KEY, is_spent)


async def test_a_device_that_is_there_stays_whose_it_was(store: KeyStore) -> None:
    await filled(store)
    async with store.transaction() as work:
        assert await work.hold_device(replace(DEVICE, owner="bob")) == DEVICE
        assert await work.hold_device(replace(DEVICE, tenant="north", owner="bob")) != DEVICE
        assert not await work.change_device("", "tablet", owner="bob", revoked_at=None)


@pytest.mark.parametrize("other", [replace(KEY, kind=PairKind.X25519), replace(KEY, deprecated=True)])
async def test_a_device_has_one_active_pair_of_a_kind(store: KeyStore, other: ClientKeyRecord) -> None:
    await filled(store, KEY)
    with pytest.raises(ConflictError):
        await filled(store, replace(KEY, id="key_2"))
    await filled(store, replace(other, id="key_3"))


async def standing(
    work: UnitOfWork,
    kind: PairKind = PairKind.RSA_2048,
    *,
    tenant: str = "",
    owner: str = "ada",
    after: datetime = NOW,
    newest: Newest = ONE_EVER,
) -> Standing:
    numbers = {"of_device": newest, "of_owner": newest, "in_all": newest}
    return await work.find_standing((tenant, "phone"), owner, kind, after=after, **numbers)


async def test_a_device_stands_as_it_is(store: KeyStore) -> None:
    async with store.reading(once=True) as work:
        assert await standing(work) == Standing(None, None, has_pairs=False, made_at=(None, None, None))
    await filled(store)
    async with store.reading(once=True) as work:
        assert await standing(work) == Standing(DEVICE, None, has_pairs=False, made_at=(None, None, None))
        assert (await standing(work, tenant="north")).device is None
    await filled(store, replace(KEY, expires_at=NOW))
    async with store.reading(once=True) as work:
        made = (KEY.created_at,) * 3
        assert await standing(work, PairKind.X25519) == Standing(DEVICE, None, has_pairs=True, made_at=made)
        assert await standing(work) == Standing(DEVICE, None, has_pairs=True, made_at=made)


async def test_the_pair_that_is_given_is_one_that_has_not_expired(store: KeyStore) -> None:
    await filled(store, KEY, replace(KEY, id="key_2", kind=PairKind.X25519, expires_at=None))
    async with store.transaction() as work:
        assert (await standing(work)).given == KEY
        expired = (await standing(work, after=NOW + 30 * DAY)).given
        lasting = (await standing(work, PairKind.X25519, after=NOW + 9999 * DAY)).given
        assert (expired, lasting and lasting.id) == (None, "key_2")
        assert await work.deprecate_client_keys("", "phone", NOW + DAY, kind=PairKind.X25519) == 1
        left = await standing(work, PairKind.X25519)
        assert (left.given, left.has_pairs) == (None, True)
        assert await work.deprecate_client_keys("", "phone", NOW + DAY) == 1
        assert not (await standing(work)).has_pairs


async def test_uses_are_counted_exactly_by_many_at_once(store: KeyStore) -> None:
    await filled(store, KEY, replace(KEY, id="key_2", deprecated=True))

    async def note(number: int) -> None:
        async with store.transaction() as work:
            await work.note_client_key_uses({"key_2": 1, "key_1": 2, "key_gone": 5}, NOW + number * DAY)

    await asyncio.gather(*map(note, range(20)))
    async with store.transaction() as work:
        await work.note_client_key_uses({}, NOW)
        found = {key.id: key for key in await work.client_keys("", "phone")}
        assert (found["key_1"].usage_count, found["key_2"].usage_count) == (40, 20)
        assert found["key_1"].last_used is not None


async def test_the_nth_newest_is_of_a_device_an_owner_or_all(store: KeyStore) -> None:
    texts = [utc_text(NOW + number * DAY) for number in range(4)]
    await filled(store, *(replace(KEY, id=f"key_{text}", created_at=text, deprecated=True) for text in texts))
    async with store.transaction() as work:
        await work.hold_device(replace(DEVICE, device_id="tablet"))
        await work.add_client_key(replace(KEY, id="key_tablet", device_id="tablet", created_at=texts[3]))
    async with store.reading() as work:

        async def made_at(number: int, tenant: str = "", owner: str = "ada") -> tuple[str | None, ...]:
            found = await standing(work, tenant=tenant, owner=owner, newest=Newest(number, texts[0]))
            return found.made_at

        assert await made_at(1) == (texts[3], texts[3], texts[3])
        assert await made_at(3) == (texts[1], texts[2], texts[2])
        assert await made_at(4) == (None, texts[1], texts[1])
        assert await made_at(1, owner="bob") == (texts[3], None, texts[3])
        assert await made_at(1, tenant="north") == (None, None, texts[3])


async def test_who_holds_a_user_holds_nobody_else(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.hold_user("", "ada")
        await work.hold_user("", "ada")
        await work.hold_user("north", "ada")
    async with store.reading() as work:
        with pytest.raises(StorageOperationError, match="only reads"):
            await work.hold_user("", "ada")


@pytest.mark.parametrize("is_by_device", [False, True])
async def test_a_user_is_held_by_one_at_a_time(store: KeyStore, is_by_device: bool) -> None:
    held: list[str] = []

    async def hold(name: str) -> None:
        async with store.transaction() as work:
            if is_by_device:
                await work.hold_device(replace(DEVICE, device_id=name))
            else:
                await work.hold_user("", "ada")
            held.append(name)
            await asyncio.sleep(0.01)
            held.append(name)

    await asyncio.gather(*(hold(str(number)) for number in range(4)))
    assert held[::2] == held[1::2]


async def test_a_half_under_another_wrap_key_replaces_the_one_it_was(store: KeyStore) -> None:
    await filled(store, KEY, replace(KEY, id="key_2", kind=PairKind.X25519))
    old = KEY.wrapped_private_key or b""
    async with store.transaction() as work:
        assert [key.id for key in await work.client_keys_under(7, after="", limit=1)] == ["key_1"]
        assert await work.rewrap_client_key("key_1", old, b"new", 8)
        assert not await work.rewrap_client_key("key_1", old, b"newer", 9)
        assert [key.id for key in await work.client_keys_under(7, after="", limit=9)] == ["key_2"]
        assert await work.client_keys_under(7, after="key_2", limit=9) == []
        found = await work.find_client_key("key_1")
    assert found == replace(KEY, wrapped_private_key=b"new", wrapped_by=8)


async def test_a_devices_pairs_are_erased_together(store: KeyStore) -> None:
    await filled(store, KEY, replace(KEY, id="key_2", kind=PairKind.X25519))
    async with store.transaction() as work:
        assert sorted(await work.erase_device_keys("", "phone", NOW + DAY)) == ["key_1", "key_2"]
        assert await work.erase_device_keys("", "tablet", NOW) == []
        assert await work.find_client_key("key_1") == replace(
            KEY, wrapped_private_key=None, wrapped_by=None, deprecated=True, updated_at=NOW + DAY
        )


async def test_what_a_user_had_is_removed_and_what_others_have_stays(store: KeyStore) -> None:
    await filled(store, KEY)
    async with store.transaction() as work:
        await work.hold_device(replace(DEVICE, device_id="shared"))
        await work.add_client_key(replace(KEY, id="key_of_bob", device_id="shared", owner="bob"))
        await work.hold_device(replace(DEVICE, tenant="north"))
        assert [device.device_id for device in await work.devices("", owner="ada")] == ["phone", "shared"]
        assert await work.drop_owner_keys("", "ada") == ["key_1"]
        assert await work.drop_owner_devices("", "ada") == 2
        assert await work.find_device("", "phone") is None
        assert await work.find_device("", "shared", lock=True) == replace(DEVICE, device_id="shared", owner=None)
        assert await work.find_client_key("key_of_bob") is not None
        assert await work.devices("north", owner="ada") == [replace(DEVICE, tenant="north")]
    async with store.reading() as work:
        with pytest.raises(StorageOperationError, match="only reads"):
            await work.find_device("", "phone", lock=True)


async def test_devices_are_read_by_pages_by_id(store: KeyStore) -> None:
    async with store.transaction() as work:
        for name, whose, tenant in (("c", "ada", ""), ("a", "bob", ""), ("b", "ada", ""), ("d", "ada", "north")):
            await work.hold_device(replace(DEVICE, device_id=name, owner=whose, tenant=tenant))
    async with store.reading() as work:
        pages: list[tuple[str | None, str, int | None, list[str]]] = [
            (None, "", None, ["a", "b", "c"]),
            (None, "", 2, ["a", "b"]),
            (None, "b", 2, ["c"]),
            ("ada", "", 1, ["b"]),
            ("ada", "b", 9, ["c"]),
            ("eve", "", None, []),
        ]
        for owner, after, limit, found in pages:
            page = await work.devices("", owner=owner, after=after, limit=limit)
            assert [device.device_id for device in page] == found


async def test_ready_pairs_of_a_wrap_key_are_removed(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.add_ready_pair(READY)
        await work.add_ready_pair(replace(READY, id="key_other", wrapped_by=8))
        assert await work.drop_ready_pairs(7) == 1
        assert await work.count_ready_pairs(READY.kind) == 1


async def test_what_has_expired_is_deprecated_erased_and_dropped_a_few_at_a_time(store: KeyStore) -> None:
    await filled(store, *(replace(KEY, id=f"key_{kind}", kind=kind) for kind in PairKind))
    await filled(store, replace(KEY, id="key_lasting", expires_at=None, deprecated=True))
    at = NOW + 30 * DAY
    async with store.transaction() as work:
        assert await work.deprecate_expired_client_keys(at - timedelta(seconds=1), limit=9) == 0
        assert [await work.deprecate_expired_client_keys(at, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await work.count_private_halves(7) == 4
        assert [await work.erase_client_keys(at, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await work.count_private_halves(7) == 1
        assert [await work.drop_client_keys(at, limit=2) for _ in range(3)] == [2, 1, 0]
        assert [key.id for key in await work.client_keys("", "phone")] == ["key_lasting"]


async def test_a_ready_pair_is_taken_by_one_alone_the_oldest_first(store: KeyStore) -> None:
    pairs = [replace(READY, id=f"key_{number}", created_at=utc_text(NOW + number * DAY)) for number in range(10)]
    async with store.transaction() as work:
        for pair in reversed(pairs):
            await work.add_ready_pair(pair)
        assert (await work.count_ready_pairs(PairKind.X25519), await work.count_private_halves(7)) == (10, 10)
        assert await work.take_ready_pair(PairKind.RSA_2048) is None
        assert await work.take_ready_pair(PairKind.X25519) == pairs[0]

    async def take() -> ReadyPairRecord | None:
        async with store.transaction() as work:
            return await work.take_ready_pair(PairKind.X25519)

    taken = await asyncio.gather(*(take() for _ in range(12)))
    assert sorted(pair.id for pair in taken if pair is not None) == sorted(pair.id for pair in pairs[1:])


async def test_a_key_of_no_device_cannot_be(durable_url: str) -> None:
    store = open_store(durable_url)
    with pytest.raises(StorageOperationError):
        async with store.transaction() as work:
            await work.add_client_key(KEY)
    await store.aclose()


async def test_nobody_changes_keys_while_one_holds_them(durable_url: str, tmp_path: Path) -> None:
    one, other = open_store(durable_url), open_store(durable_url)
    steps: list[str] = []

    async def change() -> None:
        async with other.transaction() as work:
            await work.bump_epoch()
            steps.append("changed")

    async with one.transaction() as work:
        await work.hold_keys()
        changing = asyncio.create_task(change())
        await asyncio.sleep(0.2)
        steps.append("held")
    await changing
    assert steps == ["held", "changed"]
    await one.aclose()
    await other.aclose()
