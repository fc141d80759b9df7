"""Keys are made, rotated, configured, trimmed and ended, each at once and as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.errors import DecryptionError, InvalidInputError
from keystead.manager.admin import rewrap
from keystead.model import DataKeyState, RotationPolicy, TransitType
from keystead.transit import encrypting
from keystead.transit.administration import KeyChanges, NewTransitKey
from tests.fakes.clock import FakeClock
from tests.transit.engine.conftest import Engines

PLAIN = b"the quick brown fox"
QUICK = [kind for kind in TransitType if not kind.is_rsa or kind is TransitType.RSA_2048]


def wanted(kind: TransitType, **options: Any) -> NewTransitKey:
    return NewTransitKey(kind, key_size=48 if kind is TransitType.HMAC else 0, **options)


@pytest.mark.parametrize("kind", QUICK)
async def test_every_version_of_every_type_outlives_rotations_rewraps_and_restarts(
    engines: Engines, kind: TransitType
) -> None:
    texts = []
    async with engines.node() as (engine, km):
        key = await engine.administration.create("", "k", wanted(kind))
        for _ in range(3):
            if kind.encrypts:
                texts.append(encrypting.encrypt(key, PLAIN)[0])
            key = await engine.administration.rotate("", "k")
        assert key.latest == 4
        await rewrap(km)
    async with engines.node() as (engine, _):
        key = await engine.keys.open("", "k")
        assert key.latest == 4
        assert sorted(key.versions) == [1, 2, 3, 4]
        if kind.is_pair:
            assert all(key.pair(version).private is not None for version in key.versions.values())
        assert [encrypting.decrypt(key, text) for text in texts] == [PLAIN] * len(texts)
        assert [text.split(":")[1] for text in texts] == ["v1", "v2", "v3"][: len(texts)]
        if kind is TransitType.HMAC:
            assert {len(version.key) for version in key.versions.values()} == {48}


async def test_making_a_key_that_is_there_changes_nothing_and_any_number_at_once_make_one(engines: Engines) -> None:
    async with engines.node() as (one, _), engines.node() as (two, _):
        made = await asyncio.gather(
            *(each.administration.create("", "k", wanted(TransitType.AES_128)) for each in (one, two) for _ in range(4))
        )
        assert {key.record.keyring for key in made} == {"keystead.transit/k"}
        again = await one.administration.create("", "k", wanted(TransitType.ED25519))
        assert again.record.type is TransitType.AES_128
        assert again.latest == 1


async def test_tenants_have_keys_of_their_own(engines: Engines) -> None:
    async with engines.node() as (engine, _):
        one = await engine.administration.create("acme", "k", NewTransitKey())
        two = await engine.administration.create("globex", "k", NewTransitKey())
        assert await engine.keys.find("", "k") is None
        text, _ = encrypting.encrypt(one, PLAIN)
        with pytest.raises(DecryptionError):
            encrypting.decrypt(two, text)


@pytest.mark.parametrize(
    "changes",
    [
        KeyChanges(min_decryption=4),
        KeyChanges(min_decryption=-1),
        KeyChanges(min_encryption=4),
        KeyChanges(min_encryption=-1),
        KeyChanges(min_decryption=3, min_encryption=2),
        KeyChanges(auto_rotate_s=5),
    ],
)
async def test_a_change_that_is_refused_changes_nothing_else_either(engines: Engines, changes: KeyChanges) -> None:
    async with engines.node() as (engine, _):
        await engine.administration.create("", "k", NewTransitKey())
        for _ in range(2):
            await engine.administration.rotate("", "k")
        before = (await engine.keys.open("", "k")).record
        with pytest.raises(InvalidInputError):
            await engine.administration.configure("", "k", replace(changes, deletion_allowed=True, exportable=True))
        assert (await engine.keys.open("", "k")).record == before


async def test_minimum_versions_hold_and_let_go(engines: Engines) -> None:
    async with engines.node() as (engine, _):
        admin = engine.administration
        key = await admin.create("", "k", NewTransitKey())
        text, _ = encrypting.encrypt(key, PLAIN)
        await admin.rotate("", "k")
        key = await admin.configure("", "k", KeyChanges(min_decryption=2))
        with pytest.raises(InvalidInputError, match="too old"):
            encrypting.decrypt(key, text)
        with pytest.raises(InvalidInputError, match="no such key version"):
            encrypting.encrypt(key, PLAIN, version=1)
        key = await admin.configure("", "k", KeyChanges(min_decryption=1, min_encryption=2))
        assert encrypting.decrypt(key, text) == PLAIN
        with pytest.raises(InvalidInputError, match="less than the minimum"):
            encrypting.encrypt(key, PLAIN, version=1)


async def test_what_is_trimmed_or_deleted_is_gone_for_good_and_the_name_is_free(engines: Engines) -> None:
    async with engines.node() as (engine, km):
        admin = engine.administration
        key = await admin.create("", "k", NewTransitKey())
        first, _ = encrypting.encrypt(key, PLAIN)
        await admin.rotate("", "k")
        with pytest.raises(InvalidInputError, match="not set"):
            await admin.trim("", "k", 2)
        await admin.configure("", "k", KeyChanges(min_decryption=2, min_encryption=2))
        key = await admin.trim("", "k", 2)
        second, _ = encrypting.encrypt(key, PLAIN)
        with pytest.raises(InvalidInputError, match="too old"):
            encrypting.decrypt(key, first)
        with pytest.raises(InvalidInputError, match="not allowed"):
            await admin.delete("", "k")
        await admin.configure("", "k", KeyChanges(deletion_allowed=True))
        await admin.delete("", "k")
        assert await engine.keys.find("", "k") is None
        rows = await (await km.session()).versions("keystead.transit/k")
        assert {row.state for row in rows} == {DataKeyState.DESTROYED}
        again = await admin.create("", "k", NewTransitKey())
        assert again.record.keyring == "keystead.transit/k~2"
        assert again.latest == 1
        with pytest.raises((DecryptionError, InvalidInputError)):
            encrypting.decrypt(again, second.replace("v2", "v1"))


async def test_a_node_that_has_not_polled_reads_what_another_rotated(engines: Engines) -> None:
    clock = FakeClock()
    async with engines.node(clock=clock) as (one, _), engines.node(clock=clock) as (two, _):
        await one.administration.create("", "k", NewTransitKey())
        behind = await two.keys.open("", "k")
        text, version = encrypting.encrypt(await one.administration.rotate("", "k"), PLAIN)
        assert version == 2
        with pytest.raises(InvalidInputError, match="too new"):
            encrypting.decrypt(behind, text)
        assert encrypting.decrypt(await two.keys.look_again("", "k"), text) == PLAIN
        await one.administration.soft_delete("", "k")
        clock.advance(2.5)
        with pytest.raises(InvalidInputError, match="soft-deleted"):
            (await two.keys.open("", "k")).require_usable()


async def test_only_a_key_with_a_period_of_its_own_is_rotated_by_age(engines: Engines) -> None:
    clock = FakeClock()
    policy = RotationPolicy(rotation_period=timedelta(hours=2), max_messages=1)
    async with engines.node(clock=clock, rotation_policy=policy) as (engine, km):
        admin = engine.administration
        await admin.create("", "own", NewTransitKey(auto_rotate_s=3600 * 5))
        other = await admin.create("", "other", NewTransitKey())
        encrypting.encrypt_many(other, [(PLAIN, b"")] * 50)
        assert await admin.rotate_due() == 0
        clock.advance(5 * 3600)
        await km.perform_maintenance()
        assert await admin.rotate_due() == 1
        assert await admin.rotate_due() == 0
        assert (await engine.keys.open("", "own")).latest == 2
        assert (await engine.keys.open("", "other")).latest == 1


async def test_nothing_is_lost_while_many_administer_and_many_encrypt(engines: Engines) -> None:
    """Two nodes, each with administrators that rotate and move the minimum, and clients that encrypt meanwhile."""
    written: list[tuple[bytes, str]] = []
    is_over = False

    async def administers(engine: Any, number: int) -> None:
        while not is_over:
            key = await engine.administration.rotate("", "k")
            await engine.administration.configure("", "k", KeyChanges(min_decryption=max(1, key.latest - 5)))

    async def encrypts(engine: Any, number: int) -> None:
        turn = 0
        while not is_over:
            turn += 1
            plaintext = f"{number} {turn}".encode()
            text, _ = encrypting.encrypt(await engine.keys.open("", "k"), plaintext)
            written.append((plaintext, text))
            await asyncio.sleep(0.002)

    async with engines.node() as (one, _), engines.node() as (two, _):
        await one.administration.create("", "k", NewTransitKey())
        jobs: list[Callable[[Any, int], Coroutine[Any, Any, None]]] = [administers, encrypts] * 2
        running = [asyncio.create_task(job(each, at)) for at, job in enumerate(jobs) for each in (one, two)]
        await asyncio.sleep(3)
        is_over = True
        await asyncio.gather(*running)
        await one.administration.configure("", "k", KeyChanges(min_decryption=1))
    async with engines.node() as (engine, _):
        key = await engine.keys.open("", "k")
        assert key.latest > 5
        assert len(written) > 100
        assert all(encrypting.decrypt(key, text) == plaintext for plaintext, text in written)
