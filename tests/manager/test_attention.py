"""What needs attention is told with its cure, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.errors import KMSError, ProviderAuthError
from keystead.lifecycle.kek_watch import RETRY_S
from keystead.manager.attention import Attention, Matter, attention
from keystead.manager.manager import KeyManager
from keystead.model import KeyringPurpose, RotationPolicy
from keystead.ports import ReencryptionRecord, RowFailure
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled
from tests.stores.records import data_key, keyring

HOUR_S = 3600.0
LEASE_MS = 30_000
NEVER = RotationPolicy(enabled=False)
JOB = ReencryptionRecord("job", "people.email", "sql:sqlite:///app.db#people.email", batch_rows=500, target="{}")


async def told(km: KeyManager) -> list[Matter]:
    return await attention(km)


async def test_a_store_that_is_well_needs_none(world: World) -> None:
    async with world.open() as km:
        assert await told(km) == []


async def test_a_rule_that_the_store_alone_knows_of_is_told_where_the_settings_do_not_say_so(world: World) -> None:
    async with world.open(two_person=True) as km:
        assert await told(km) == []
    async with world.open() as km:
        [found] = await told(km)
        assert (found.attention, found.about) == (Attention.SOON, "approvals")
        assert "whoever writes its database could take that out" in found.told
        assert "two_person: true" in found.cure


async def test_a_kms_that_does_not_answer_is_told_before_keys_are_refused_and_after(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        world.kms.fail_always()
        clock.advance(HOUR_S)
        await polled(km)
        [within] = await told(km)
        assert (within.attention, within.about) == (Attention.URGENT, "provider cloud")
        assert within.told == "it has not answered for 1h; keys that are loaded go on until the time of grace is over"
        assert within.cure.startswith("keystead doctor")
        clock.advance(HOUR_S + 1)
        await polled(km)
        [after] = await told(km)
        assert "has not answered for 2h1s: this process encrypts and decrypts nothing" in after.told
        world.kms.heal()
        clock.advance(RETRY_S)
        await polled(km)
        assert await told(km) == []


async def test_a_kms_that_refuses_is_told_with_the_code(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        world.kms.fail_always(ProviderAuthError("denied"))
        clock.advance(HOUR_S)
        await polled(km)
        [found] = await told(km)
    assert found.attention is Attention.URGENT
    assert f"refuses to unwrap the WRAP key ({ProviderAuthError.code})" in found.told


@pytest.mark.parametrize(
    "policy",
    [RotationPolicy(enabled=False, max_messages=10), RotationPolicy(enabled=False, max_bytes=1000)],
    ids=["messages", "bytes"],
)
async def test_a_key_that_has_seen_most_of_what_the_policy_lets_it_is_told(
    world: World, policy: RotationPolicy
) -> None:
    async with world.open(rotation_policy=policy) as km:
        [default] = await world.rows("default")
        for messages, size, expected in ((7, 700, []), (1, 100, ["80%"]), (2, 200, ["100%"])):
            async with world.store.transaction() as work:
                await work.add_uses(default.id, messages, size)
            found = await told(km)
            assert [each.told for each in found] == [
                f"version 1 has seen {share} of the messages or bytes that the policy lets it" for share in expected
            ]
        assert (found[0].attention, found[0].about) == (Attention.URGENT, "default")
        assert found[0].cure == "keystead key rotate default"


async def test_the_cure_of_a_key_that_is_used_up_is_the_command_that_replaces_it(world: World) -> None:
    async with world.open(rotation_policy=RotationPolicy(enabled=False, max_messages=1)) as km:
        async with world.store.transaction() as work:
            await work.add_keyring(keyring("keystead.transit/orders"))
            await work.add_key(data_key(keyring="keystead.transit/orders"))
        rows = await world.rows()
        async with world.store.transaction() as work:
            for row in rows:
                await work.add_uses(row.id, 1, 0)
        cures = {each.about: each.cure for each in await told(km)}
    names = {row.purpose: row.keyring for row in rows}
    assert cures[names[KeyringPurpose.WRAP]] == "keystead key rewrap"
    assert cures[names[KeyringPurpose.INDEX]] == "keystead key rotate-index keystead.index"
    assert cures["keystead.transit/orders"].startswith("keystead transit rotate")


async def test_a_key_is_not_told_where_the_policy_has_no_limit(world: World) -> None:
    async with world.open(rotation_policy=NEVER) as km:
        [default] = await world.rows("default")
        async with world.store.transaction() as work:
            await work.add_uses(default.id, 2**40, 2**50)
        assert await told(km) == []


async def test_a_part_of_a_job_that_nobody_works_on_any_more_is_told(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.add_reencryption(JOB)
            await work.cut_chunk("job", None, "[9]", low=None, high="[9]", exhausted=False, owner="a", ttl_ms=LEASE_MS)
        assert await told(km) == []
        clock.advance(LEASE_MS / 1000)
        [found] = await told(km)
        assert found.about == "re-encryption of people.email"
        assert "whoever worked on 1 part of job job has not been heard of" in found.told
        assert "goes on where it stopped" in found.cure
        async with world.store.transaction() as work:
            assert await work.claim_chunk("job", "b", LEASE_MS) is not None
        assert await told(km) == []


async def test_rows_that_a_job_left_as_they_were_are_told_until_a_later_job_has_done_them(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.add_reencryption(JOB)
            chunk = await work.cut_chunk(
                "job", None, None, low=None, high=None, exhausted=True, owner="a", ttl_ms=LEASE_MS
            )
            failed = replace(chunk, done=True, read=5, failed=2, failures=(RowFailure("[1]", "decryption_failed"),))
            await work.save_chunk(failed, 0)
        [found] = await told(km)
        assert "job job left 2 rows as they were" in found.told
        clock.advance(1)
        async with world.store.transaction() as work:
            await work.add_reencryption(replace(JOB, id="later"))
        assert await told(km) == []


async def test_the_most_urgent_is_told_first(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        [default] = await world.rows("default")
        async with world.store.transaction() as work:
            await work.change_key(default.id, default.state, rotate_after=clock.now())
        world.kms.fail_always(KMSError("anything"))
        clock.advance(HOUR_S)
        await polled(km)
        assert [each.attention for each in await told(km)] == [Attention.URGENT, Attention.SOON]
