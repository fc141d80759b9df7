"""Transit keys through export, import and recovery, and through what is done with the keyrings that hold them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keystead.errors import DecryptionError, InvalidInputError, KeyStateError
from keystead.lifecycle import portable
from keystead.lifecycle.creation import NewKey
from keystead.lifecycle.restoration import (
    SKIPPED_VERSIONS,
    RecoveryReport,
    export_store,
    import_store,
    recover_store,
    verify_store,
)
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from keystead.manager.transit import TransitEngine, transit
from keystead.model import DataKeyState, TransitType
from keystead.stores.memory import MemoryKeyStore
from keystead.transit import encrypting, macs, signatures
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.importing import material_of, public_material
from keystead.transit.opened import OpenKey
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, copied, put_back, session_of

CONTEXT = b"a context"
ACROSS = SKIPPED_VERSIONS + 1
"""How far a recovery takes a version number on."""


@dataclass(frozen=True)
class Sample:
    """What a key made, and how it is used: ``holds`` says whether it still is good, by the key as it is now."""

    name: str
    holds: Callable[[OpenKey], bool]


def sample(key: OpenKey) -> Sample:
    """Use the latest version of a key once."""
    context = CONTEXT if key.record.derived else None
    if key.record.type is TransitType.HMAC:
        code = macs.maker(key, "sha2-256").make(b"kept")
        return Sample(key.record.name, lambda now: macs.Checker(now).is_valid(b"kept", code))
    if key.record.type.encrypts:
        text, _ = encrypting.encrypt(key, b"kept", context=context)
        return Sample(key.record.name, lambda now: encrypting.decrypt(now, text, context=context) == b"kept")
    signature = signatures.sign(key, b"kept", context=context).text
    return Sample(key.record.name, lambda now: signatures.verify(now, b"kept", signature, context=context))


async def recover(km: KeyManager) -> RecoveryReport:
    session = await session_of(km)
    return await recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)


async def exported(km: KeyManager) -> str:
    return portable.dump(await export_store((await session_of(km)).live))


def outside(kind: TransitType, random: Callable[[int], bytes]) -> NewKey:
    """Return key material of a type as somebody else made it."""
    if kind.is_rsa:
        data = rsa.generate_private_key(65537, 2048)
    elif kind.is_ecdsa:
        data = ec.generate_private_key(ec.SECP256R1())  # type: ignore[assignment]
    elif kind is TransitType.ED25519:
        data = ed25519.Ed25519PrivateKey.generate()  # type: ignore[assignment]
    else:
        return material_of(kind, random(32), random)
    return material_of(kind, data.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), random)


MADE_HERE = {
    **{kind.value: NewTransitKey(kind) for kind in TransitType if kind is not TransitType.HMAC},
    "derived": NewTransitKey(derived=True),
    "derived-signer": NewTransitKey(TransitType.ED25519, derived=True),
    "convergent": NewTransitKey(TransitType.AES_128, derived=True, convergent=True),
    "hmac-32": NewTransitKey(TransitType.HMAC, key_size=32),
    "hmac-512": NewTransitKey(TransitType.HMAC, key_size=512),
}
COMPARED = {"convergent", "hmac-32", "hmac-512", "brought-hmac-free"}
BROUGHT = (TransitType.AES_256, TransitType.RSA_2048, TransitType.ECDSA_P256, TransitType.ED25519, TransitType.HMAC)


async def bring_in(engine: TransitEngine, kind: TransitType, *, allow_rotation: bool) -> OpenKey:
    size = 32 if kind is TransitType.HMAC else 0
    wanted = NewTransitKey(kind, key_size=size, imported=True, allow_rotation=allow_rotation)
    name = f"brought-{kind}-{'free' if allow_rotation else 'fixed'}"
    return await engine.administration.create("", name, wanted, material=outside(kind, engine.keys.random))


async def test_keys_of_every_type_come_through_an_export_and_a_recovery(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        engine = await transit(km)
        samples = []
        for name, wanted in MADE_HERE.items():
            samples.append(sample(await engine.administration.create("", name, wanted)))
        await engine.administration.rotate("", "aes256-gcm96")
        for kind in BROUGHT:
            for allowed in (False, True):
                samples.append(sample(await bring_in(engine, kind, allow_rotation=allowed)))
        samples.append(sample(await engine.administration.create("acme", "of-a-tenant", NewTransitKey())))
        await engine.administration.disable_upsert("acme", True)
        before = (await export_store((await session_of(km)).live)).transit_keys
        surroundings = (await session_of(km)).surroundings
        text = await exported(km)
    document = portable.parse(text)
    assert document.transit_keys == before
    assert (await verify_store(surroundings, document)).failures == {}

    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, document)
    async with world.open() as km:
        engine = await transit(km)
        for each in samples:
            tenant = "acme" if each.name == "of-a-tenant" else ""
            assert each.holds(await engine.keys.open(tenant, each.name)), each.name
        await recover(km)
        async with world.store.reading() as work:
            assert [await work.is_upsert_disabled(tenant) for tenant in ("", "acme")] == [False, True]
        for each in samples:
            tenant = "acme" if each.name == "of-a-tenant" else ""
            key = await engine.keys.look_again(tenant, each.name)
            assert each.holds(key), each.name
            stays = each.name in COMPARED or each.name.endswith("-fixed")
            assert (key.latest > SKIPPED_VERSIONS) is not stays, each.name
            assert key.record.imported is (stays and each.name.startswith("brought-")), each.name
            assert sample(key).holds(key)


async def test_an_imported_key_that_is_not_rotated_here_takes_no_version_number_twice(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        await bring_in(await transit(km), TransitType.AES_256, allow_rotation=False)
        text = await exported(km)
    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, portable.parse(text))
    async with world.open() as km:
        await recover(km)
        engine = await transit(km)
        name = "brought-aes256-gcm96-fixed"
        with pytest.raises(InvalidInputError, match="does not allow rotation"):
            await engine.administration.rotate("", name)
        key = await engine.administration.add_version("", name, outside(TransitType.AES_256, engine.keys.random))
        assert key.latest == 1 + ACROSS


@pytest.mark.parametrize("kind", [TransitType.RSA_2048, TransitType.ED25519])
async def test_a_public_half_alone_comes_through_and_stays_alone(
    world: World, clock: FakeClock, kind: TransitType
) -> None:
    private = rsa.generate_private_key(65537, 2048) if kind.is_rsa else ed25519.Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    wanted = NewTransitKey(kind, imported=True)
    async with world.open() as km:
        engine = await transit(km)
        material = public_material(kind, pem, engine.keys.random)
        await engine.administration.create("", "theirs", wanted, material=material)
        text = await exported(km)
    world.store = MemoryKeyStore(clock=clock)
    await import_store(world.store, portable.parse(text))
    async with world.open() as km:
        await recover(km)
        engine = await transit(km)
        key = await engine.keys.open("", "theirs")
        assert key.latest == 1
        pair = key.pair(key.versions[1])
        assert pair.private is None
        assert pair.public == private.public_key()
        with pytest.raises(InvalidInputError, match="private part"):
            signatures.sign(key, b"x")
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        whole = await engine.administration.complete("", "theirs", 1, der)
        assert signatures.verify(whole, b"x", signatures.sign(whole, b"x").text)


async def test_what_was_trimmed_after_the_backup_is_destroyed_again(world: World, tmp_path: Path) -> None:
    async with world.open(state_dir=tmp_path) as km:
        engine = await transit(km)
        old = sample(await engine.administration.create("", "orders", NewTransitKey()))
        hashed = sample(await engine.administration.create("", "codes", MADE_HERE["hmac-32"]))
        backup = copied(world.store)
        for name in ("orders", "codes"):
            await engine.administration.rotate("", name)
            await engine.administration.configure("", name, KeyChanges(min_decryption=2, min_encryption=2))
            await engine.administration.trim("", name, 2)
    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path) as km:
        report = await recover(km)
        assert len(report.destroyed_again) == 2
        assert len([each for each in report.gone if each[1].startswith("keystead.transit/")]) == 2
        engine = await transit(km)
        for each in (old, hashed):
            key = await engine.keys.open("", each.name)
            with pytest.raises((InvalidInputError, DecryptionError)):
                each.holds(key)
            assert key.latest == 1 + ACROSS
            assert sample(key).holds(key)


async def test_a_key_that_was_deleted_after_the_backup_does_not_come_back(world: World, tmp_path: Path) -> None:
    async with world.open(state_dir=tmp_path) as km:
        engine = await transit(km)
        await engine.administration.create("", "orders", NewTransitKey())
        await engine.administration.create("", "kept", NewTransitKey())
        backup = copied(world.store)
        await engine.administration.configure("", "orders", KeyChanges(deletion_allowed=True))
        await engine.administration.delete("", "orders")
    put_back(world.store, backup)
    async with world.open(state_dir=tmp_path) as km:
        report = await recover(km)
        engine = await transit(km)
        assert await engine.keys.find("", "orders") is None
        assert (await engine.keys.open("", "kept")).latest == 1 + ACROSS
        assert len(report.destroyed_again) == 1
        states = {row.keyring: row.state for row in await world.rows() if row.keyring.startswith("keystead.transit/o")}
        assert states == {"keystead.transit/orders": DataKeyState.DESTROYED}
        again = await engine.administration.create("", "orders", NewTransitKey())
        assert again.record.keyring == "keystead.transit/orders~2"


async def test_the_keyring_of_a_key_that_was_deleted_before_the_backup_gets_no_version(world: World) -> None:
    async with world.open() as km:
        engine = await transit(km)
        await engine.administration.create("", "orders", NewTransitKey())
        await engine.administration.configure("", "orders", KeyChanges(deletion_allowed=True))
        await engine.administration.delete("", "orders")
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await recover(km)
        assert [row.version for row in await world.rows("keystead.transit/orders")] == [1]


async def test_an_export_with_transit_keys_is_no_whole_store_to_an_older_release(world: World) -> None:
    async with world.open() as km:
        assert json.loads(await exported(km))["version"] == portable.VERSION
        engine = await transit(km)
        await engine.administration.disable_upsert("", True)
        assert json.loads(await exported(km))["version"] == portable.WITH_TRANSIT
        await engine.administration.disable_upsert("", False)
        assert json.loads(await exported(km))["version"] == portable.VERSION
        await engine.administration.create("", "orders", NewTransitKey())
        document = json.loads(await exported(km))
    assert document["version"] == portable.WITH_TRANSIT
    [row] = document["store"]["transit_keys"]
    assert (row["name"], row["type"], row["keyring"]) == ("orders", "aes256-gcm96", "keystead.transit/orders")
    for member in ("transit_keys", "transit_settings"):
        body = {name: value for name, value in document["store"].items() if name != member}
        damaged = {**document, "store": body, "sha256": portable._digest(body)}
        with pytest.raises(InvalidInputError, match="no whole Keystead store export"):
            portable.parse(json.dumps(damaged))


async def test_transit_keys_and_subjects_are_exported_together(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        subject = await km.subject("ada")
        sealed = subject.local_encrypt(b"x")
        await (await transit(km)).administration.create("", "orders", NewTransitKey())
        document = portable.parse(await exported(km))
    assert document.erasures is not None
    assert [record.name for record in document.transit_keys] == ["orders"]
    assert len(document.subjects) == 1
    assert sealed


async def test_key_rotate_leaves_transit_keys_to_their_own_command(world: World) -> None:
    async with world.open() as km:
        engine = await transit(km)
        for name in ("aes256-gcm96", "ed25519"):
            await engine.administration.create("", name, MADE_HERE[name])
            with pytest.raises(KeyStateError, match="keystead transit rotate"):
                await admin.rotate_keyring(km, f"keystead.transit/{name}", may_prove=True)
            assert (await engine.keys.look_again("", name)).latest == 1


async def test_rewrapping_and_a_new_kek_version_keep_everything_readable(world: World) -> None:
    async with world.open() as km:
        engine = await transit(km)
        samples = [sample(await engine.administration.create("", name, wanted)) for name, wanted in MADE_HERE.items()]
        samples += [sample(await bring_in(engine, kind, allow_rotation=False)) for kind in BROUGHT]
        report = await admin.rewrap(km, new_kek_version=True)
        assert report.data_keys >= len(samples)
    async with world.open() as km:
        engine = await transit(km)
        for each in samples:
            assert each.holds(await engine.keys.open("", each.name)), each.name
        wrapped = {row.wrapped_by for row in await world.rows() if row.keyring.startswith("keystead.transit/")}
        [active] = [row for row in await world.rows("keystead.wrap") if row.state is DataKeyState.ACTIVE]
        assert wrapped == {active.id}


async def test_an_altered_row_of_a_transit_key_does_not_verify(world: World) -> None:
    async with world.open() as km:
        await (await transit(km)).administration.create("", "orders", NewTransitKey())
        session = await session_of(km)
        document = await export_store(session.live)
        [row] = [each for each in document.keys if each.keyring == "keystead.transit/orders"]
        assert row.wrapped_key is not None
        swapped = replace(row, wrapped_key=row.wrapped_key[:-1] + bytes([row.wrapped_key[-1] ^ 1]))
        altered = replace(document, keys=[each if each is not row else swapped for each in document.keys])
        assert set((await verify_store(session.surroundings, altered)).failures) == {row.id}
        assert base64.b64encode(row.wrapped_key).decode() in portable.dump(document)
