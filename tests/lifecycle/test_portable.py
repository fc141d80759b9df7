"""A store as a document: exported, verified without its store, imported, recovered."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from keystead.errors import (
    InvalidInputError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    StoreRestoredError,
)
from keystead.lifecycle import portable
from keystead.lifecycle.restoration import (
    RecoveryReport,
    export_store,
    import_store,
    recover_store,
    verify_store,
)
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, KeyringPurpose
from keystead.ports import FieldRecord, KeyUse
from keystead.stores.memory import MemoryKeyStore
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, session_of

DAY = timedelta(days=1)


async def recover(km: KeyManager) -> RecoveryReport:
    session = await session_of(km)
    return await recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)


async def exported(km: KeyManager) -> portable.StoreExport:
    return portable.parse(portable.dump(await export_store((await session_of(km)).live)))


async def test_an_imported_store_decrypts_and_encrypts_after_its_recovery(world: World, clock: FakeClock) -> None:
    async with world.open(grace_s=None) as km:
        sealed = [km.local_encrypt(b"1")]
        await km.rotate_data_key()
        sealed.append(km.local_encrypt(b"2"))
        session = await session_of(km)
        await km.rotate_data_key()
        [_, second, _] = await world.rows("default")
        await session.lifecycle.destruction.schedule(second.id, without_sources=True)
        async with world.store.transaction() as work:
            await work.declare_use(KeyUse("people", "default", "app:people"))
            await work.declare_use(KeyUse("members", "members-{tenant}", "app:members"))
        export = await exported(km)
        before = await world.rows()
    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, export)
    assert await world.rows() == before
    with pytest.raises(InvalidInputError, match="holds keys already"):
        await import_store(world.store, export)
    async with world.open(grace_s=None) as km:
        assert km.local_decrypt(sealed[0]) == b"1"
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        await recover(km)
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        clock.advance(60 * DAY)
        async with world.store.reading() as work:
            assert [use.name for use in await work.key_uses("default")] == ["people"]
            assert [use.name for use in await work.key_uses("members-acme")] == ["members"]


async def test_an_export_is_verified_without_its_store(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant", tenant_wrap="tenant-wrap")
        await km.rotate_data_key()
        session = await session_of(km)
        [old, _] = await world.rows("default")
        await session.lifecycle.destruction.destroy_now(old)
        export = await exported(km)
        surroundings = session.surroundings
    report = await verify_store(surroundings, export)
    assert (report.keys, report.failures) == (5, {})
    wraps = [row for row in export.keys if row.purpose is KeyringPurpose.WRAP]
    rows = {row.keyring: row for row in export.keys if row.state is DataKeyState.ACTIVE}
    without = [row for row in export.keys if row not in wraps]
    damaged = portable.StoreExport(export.state, export.exported_at, export.keyrings, without)
    assert set((await verify_store(surroundings, damaged)).failures) == {
        rows[name].id for name in ("default", "tenant", "keystead.index")
    }
    other = portable.StoreExport(
        type(export.state)("0" * 32, 1, True), export.exported_at, export.keyrings, export.keys
    )
    assert set((await verify_store(surroundings, other)).failures.values()) == {
        "key_decryption_fail",
        "its keyring or WRAP key is missing",
    }
    keys = [row for row in export.keys if row.keyring != "tenant"]
    swapped = [rows["tenant"].__class__(**{**fields(rows["tenant"]), "wrapped_key": rows["default"].wrapped_key})]
    altered = portable.StoreExport(export.state, export.exported_at, export.keyrings, keys + swapped)
    assert (await verify_store(surroundings, altered)).failures == {rows["tenant"].id: "key_decryption_fail"}


def fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


async def test_an_export_holds_no_key_and_is_read_back_as_it_was(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        live = session.live
        text = portable.dump(await export_store(live))
        for ring in live.rings():
            for key in ring.snapshot.keys.values():
                assert key.key.hex() not in text
        export = portable.parse(text)
        assert sorted(export.keys, key=lambda row: (row.keyring, row.version)) == await world.rows()
        assert export.state.restored
        assert export.exported_at == world.clock.now()


BODY: dict[str, Any] = {
    "store_id": "0" * 32,
    "epoch": 3,
    "audited": False,
    "exported_at": "2030-01-01T00:00:00.000000Z",
    "keyrings": [],
    "keys": [],
    "key_uses": [],
}


def document(**changes: Any) -> str:
    body = BODY | {name: value for name, value in changes.items() if name in BODY}
    whole = {"format": portable.FORMAT, "version": 1, "sha256": portable._digest(body), "store": body}
    return json.dumps(whole | {name: value for name, value in changes.items() if name not in BODY})


DAMAGED = {
    "not JSON": "{",
    "another format": document(format="something"),
    "a newer version": document(version=4),
    "another checksum": document(sha256="0" * 64),
    "no body": document(store=None),
    "not an object": "[]",
    "a keyring without a name": document(keyrings=[{"purpose": "wrap"}]),
    "a key with odd base64": document(keys=[{"wrapped_key": "***"}]),
    "an epoch that is no number": document(epoch="many"),
    "a trail that is neither kept nor not": document(audited="always"),
    "a source without a place": document(key_uses=[{"name": "x"}]),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_export_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="export"):
        portable.parse(text)


async def test_registered_fields_are_exported_and_what_older_releases_do_not_know_only_where_it_says_something(
    world: World, clock: FakeClock
) -> None:
    fields = [
        FieldRecord("people.email", "default", "index", "app:people", 3),
        FieldRecord("people.note", "default", "index", "app:notes", record="id"),
    ]
    async with world.open() as km:
        async with world.store.transaction() as work:
            for field in fields:
                await work.put_field(field)
        text = portable.dump(await export_store((await session_of(km)).live))
    assert [row.get("record") for row in json.loads(text)["store"]["fields"]] == [None, "id"]
    assert "record" not in json.loads(text)["store"]["fields"][0]
    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, portable.parse(text))
    async with world.store.reading() as work:
        assert await work.fields() == fields


def test_an_empty_export_is_read() -> None:
    assert portable.parse(document()).keys == []


async def test_a_wrong_kek_does_not_open_an_import(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        export = await exported(km)
    other = World(clock)
    await import_store(other.store, export)
    with pytest.raises((KeyDecryptionFailError, KeyNotFoundError)):
        async with other.open():
            pass
