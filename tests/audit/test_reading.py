"""What a reader is told: of the keys of the store, of restored stores, of policies, and never a secret."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, CouldNotVerifyError, InvalidInputError
from keystead.ledger.audit import beginning
from keystead.ledger.audit.inspecting import Inspector
from keystead.ledger.reading.policy import TrustPolicy
from keystead.manager import backup
from keystead.ports import AuditEntryRow, AuditFilter
from keystead.stores.unit_of_work import SqlUnitOfWork
from tests.audit.places import Place, auditing_of, checked, kinds, options, seal
from tests.audit.worlds import entry_of, waiting
from tests.canary.watch import SecretWatch, learning, listening
from tests.fakes.world import World, copied, put_back


async def test_unwrapped_keys_are_recorded_with_the_wrap_keys_that_the_kms_unwrapped(world: World) -> None:
    async with world.open(audit=True):
        pass
    async with world.open() as km:
        loads = [entry for entry in await waiting(world) if entry["action"] == "key.load"]
        [wrap_row] = await world.rows("keystead.wrap")
        assert [entry["keyring"] for entry in loads] == ["keystead.audit", "default", "keystead.index"]
        assert loads[0]["details"] == {"versions": [1], "wrap_keys": [str(wrap_row.id)]}
        assert all(entry["details"]["versions"] == [1] for entry in loads)
        await km.audit.sequenced()


async def test_a_key_that_does_not_unwrap_is_recorded_as_such(world: World) -> None:
    async with world.open(audit=True) as km:
        before = await km.get_active_data_key()
        await km.rotate_data_key()
    async with world.store.transaction() as work:
        row = await work.find_key(before.id)
        assert row is not None
        await work.change_key(row.id, row.state, wrapped_key=bytes(len(row.wrapped_key or b"")))
    async with world.open():
        entry = [each for each in await waiting(world) if each.get("keyring") == "default"][-1]
        assert entry["details"]["failed"] == {str(before.id): "key_decryption_fail"}


async def test_where_unwraps_are_not_wanted_only_changes_are_recorded(world: World) -> None:
    async with world.open(audit=options(unwraps=False)):
        pass
    async with world.open(audit=options(unwraps=False)) as km:
        await km.rotate_data_key()
        assert [entry["action"] for entry in await waiting(world)] == ["audit.session", "key.rotate"]


async def test_the_kms_confirming_the_wrap_key_is_recorded(world: World) -> None:
    async with world.open(audit=True) as km:
        world.clock.advance(timedelta(hours=1, seconds=1))
        await km.run_due()
        sealed = [record.action for record in await km.audit.entries()]
        assert "kek.confirm" in sealed or (await entry_of(world, "kek.confirm"))["details"]["provider"] == "cloud"


async def test_keys_that_were_changed_past_the_library_are_told(place: Place) -> None:
    async with place.open(audit=options()) as km:
        old = await km.get_active_data_key()
        await km.rotate_data_key()
        await seal(km)
    place.execute("UPDATE data_keys SET state = 'disabled' WHERE id = ?", old.id)
    report = await checked(place, compares_store=True)
    assert report.log.valid
    assert not report.valid
    assert [(each.id, each.what, each.trail, each.store) for each in report.differences or ()] == [
        (old.id, "state", "decrypt-only", "disabled")
    ]


async def test_more_keys_than_one_entry_holds_are_all_in_the_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "KEYS_AT_ONCE", 20)
    async with world.open() as km:
        for number in range(50):
            await km.keyring(f"ring-{number}")
        await km.audit.begin()
        await km.audit.sequenced()
        begun = [*await km.audit.entries(action="audit.begin"), *await km.audit.entries(action="audit.snapshot")]
        assert sum(len(record.keys) for record in begun) == len(await world.rows()) > 50
        assert len(begun) > 2
        assert (await km.audit.verify(compares_store=True)).valid


async def test_a_restored_store_says_so_in_its_trail_and_misses_what_came_after_the_backup(world: World) -> None:
    async with world.open(audit=True) as km:
        await km.audit.sequenced()
        taken = copied(world.store)
        await km.rotate_data_key()
        kept = await km.audit.checkpoint()
        put_back(world.store, taken)
        await km.run_due()
        await backup.recover(km)
        await km.audit.sequenced()
        told = {record.action for record in await km.audit.entries()}
        assert {"store.restored", "store.recover", "store.recovered"} <= told
        assert "rolled_back" in kinds(await km.audit.verify(since=kept))


async def test_a_policy_that_was_saved_is_all_that_counts(place: Place, tmp_path: Path) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        policy = await km.audit.trust_policy()
        policy.save(tmp_path / "policy.json")
        assert (await km.audit.verify(policy=TrustPolicy.load(tmp_path / "policy.json"))).valid
        other = TrustPolicy(policy.stream, tuple(key.__class__(key.provider, "another") for key in policy.keys))
        assert "untrusted" in kinds(await km.audit.verify(policy=other))


async def test_nothing_that_was_sealed_tells_no_policy(place: Place) -> None:
    async with place.open(audit=options()) as km:
        place.execute("DELETE FROM audit_entries")
        with pytest.raises(CouldNotVerifyError):
            place.tamper("DELETE FROM audit_log", "DELETE FROM audit_state", "DELETE FROM audit_sessions")
            await km.audit.trust_policy()


async def test_entries_are_found_by_what_they_are_about(place: Place) -> None:
    async with place.open(audit=options()) as km:
        info = await km.rotate_data_key()
        await km.audit.record("order.paid", keyring="default", number=1)
        await seal(km)
        assert {record.action for record in await km.audit.entries(key_id=info.id)} == {"key.rotate"}
        assert "order.paid" in {record.action for record in await km.audit.entries(keyring="default")}
        [paid] = await km.audit.entries(action="order.paid")
        assert paid.at is not None
        assert await km.audit.entries(action="order.paid", until=paid.at) == []
        assert await km.audit.entries(action="order.paid", since=paid.at) == [paid]
        everything = await km.audit.entries()
        assert await km.audit.entries(newest_first=True) == everything[::-1]
        assert await km.audit.entries(after=paid.seq - 1, limit=1) == [paid]
        with pytest.raises(InvalidInputError, match="time zone"):
            await km.audit.entries(since=paid.at.replace(tzinfo=None))
        async with auditing_of(km).trail.store.reading() as work:
            assert len(await work.audit_records(where=AuditFilter(action="order.paid"))) == 1


async def test_a_store_without_a_trail_says_how_to_begin_one(place: Place) -> None:
    async with place.open(audit=None) as km:
        for call in (km.audit.entries(), km.audit.verify(), km.audit.checkpoint(), km.audit.record("a.b")):
            with pytest.raises(ConfigurationError, match="keystead audit begin"):
                await call


async def test_no_key_is_in_the_tables_of_the_trail_and_none_is_logged(place: Place) -> None:
    watch = SecretWatch()

    def random(size: int) -> bytes:
        drawn = os.urandom(size)
        if size == 32:
            watch.learn(drawn)  # session keys, and keys of WRAP versions
        return drawn

    with learning(watch), listening(watch, ("keystead", logging.DEBUG)):
        async with place.open(audit=options(), random=random) as km:
            pair = await km.generate_data_key()
            watch.learn(pair.plaintext_key)
            await km.rotate_data_key()
            await km.keyring("letters")
            await km.audit.checkpoint()
            assert (await km.audit.verify(compares_store=True)).valid
            waiting_still = place.kept()
    for kept in (waiting_still, place.kept()):
        for table, rows in kept.items():
            for row in rows:
                content = b"|".join(each if isinstance(each, bytes) else str(each).encode() for each in row)
                assert watch.find_in_bytes(content) == [], table
    assert watch.hits() == []


async def test_entries_that_wait_are_looked_at_as_they_are_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    read, take = SqlUnitOfWork.audit_entries, Inspector.take_waiting

    async def reading(work: SqlUnitOfWork, **named: Any) -> list[AuditEntryRow]:
        if "limit" not in named:  # and not the sequencer, which says how many
            happened.append("page")
            named["limit"] = 2
        return await read(work, **named)

    def taking(inspector: Inspector, row: AuditEntryRow) -> None:
        happened.append("entry")
        take(inspector, row)

    async with place.open(audit=options()) as km:
        for _ in range(6):
            await km.audit.record("order.paid")
        monkeypatch.setattr(SqlUnitOfWork, "audit_entries", reading)
        monkeypatch.setattr(Inspector, "take_waiting", taking)
        report = await km.audit.verify()
    entries = happened.count("entry")
    assert (report.log.errors, report.waiting) == ([], entries)
    assert entries >= 6
    assert "page entry entry page entry" in " ".join(happened)
