"""What is done with keys is in the audit trail: their administration at once, their use by counts."""

from __future__ import annotations

import pytest

from keystead.errors import KMSError
from keystead.ledger.audit.actor import audit_actor
from keystead.manager.audit_record import AuditRecord
from keystead.manager.manager import KeyManager
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.uses import MOST
from tests.fakes.clock import FakeClock
from tests.transit.engine.conftest import Engines


async def _entries(km: KeyManager, action: str | None = None) -> list[AuditRecord]:
    await km.run_due()
    return await km.audit.entries(action=action)


async def test_every_change_of_a_key_is_an_entry_that_names_it(engines: Engines) -> None:
    async with engines.node(audit=True) as (engine, km):
        admin = engine.administration
        with audit_actor("ada"):
            await admin.create("acme", "k", NewTransitKey())
            await admin.rotate("acme", "k")
            await admin.configure("acme", "k", KeyChanges(min_decryption=2, min_encryption=2, deletion_allowed=True))
            await admin.configure("acme", "k", KeyChanges(min_decryption=2))
            await admin.trim("acme", "k", 2)
            await admin.soft_delete("acme", "k")
            await admin.soft_delete("acme", "k", deleted=False)
            await admin.delete("acme", "k")
        entries = await _entries(km)
        named = [entry for entry in entries if entry.keyring == "keystead.transit/acme/k"]
        own = [entry for entry in named if entry.action != "key.load"]
        assert [entry.action for entry in own] == [
            "keyring.create",
            "key.create",
            "transit.create",
            "key.rotate",
            "transit.config",
            "key.destroy",
            "transit.trim",
            "transit.soft_delete",
            "transit.restore",
            "transit.delete",
            "key.destroy",
        ]
        assert {entry.actor for entry in own} == {"ada"}
        told = {entry.action: entry.details for entry in own if entry.action.startswith("transit.")}
        assert all(details["name"] == "k" and details["tenant"] == "acme" for details in told.values())
        assert told["transit.config"]["min_decryption"] == 2
        assert "exportable" not in told["transit.config"]


async def test_uses_are_one_entry_for_each_key_caller_and_minute(engines: Engines) -> None:
    clock = FakeClock()
    async with engines.node(audit=True, clock=clock) as (engine, km):
        record = (await engine.administration.create("", "k", NewTransitKey())).record
        for used in (("encrypt", "ada", 3), ("encrypt", "ada", 4), ("decrypt", "ada", 1), ("encrypt", "bob", 2)):
            engine.uses.note(record, *used)
        await engine.uses.flush()
        assert await _entries(km, "transit.use") == []
        clock.advance(61)
        engine.uses.note(record, "encrypt", "ada", 1)
        await engine.uses.flush()
        await engine.uses.flush(everything=True)
        found = await _entries(km, "transit.use")
        counted = [(e.actor, e.details.get("encrypt"), e.details.get("decrypt")) for e in found]
        assert sorted(counted, key=str) == sorted([("ada", 7, 1), ("bob", 2, None), ("ada", 1, None)], key=str)


async def test_counts_that_cannot_be_written_stay(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engines.node(audit=True) as (engine, km):
        record = (await engine.administration.create("", "k", NewTransitKey())).record
        engine.uses.note(record, "encrypt", "ada", 5)
        store = (await km.session()).surroundings.store

        def gone(*given: object, **options: object) -> object:
            raise KMSError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(type(store), "transaction", gone)
            with pytest.raises(KMSError):
                await engine.uses.flush(everything=True)
            with pytest.raises(KMSError):
                await engine.uses.record(record, "encrypt", "ada", 1)
        engine.uses.note(record, "encrypt", "ada", 1)
        await engine.uses.flush(everything=True)
        [used] = await _entries(km, "transit.use")
        assert used.details["encrypt"] == 6


async def test_a_flood_of_callers_takes_bounded_memory(engines: Engines) -> None:
    async with engines.node(audit=True) as (engine, _):
        record = (await engine.administration.create("", "k", NewTransitKey())).record
        for number in range(MOST + 1):
            engine.uses.note(record, "encrypt", f"caller {number}", 1)
        assert engine.uses.is_full


async def test_without_a_trail_nothing_is_counted(engines: Engines) -> None:
    async with engines.node() as (engine, _):
        record = (await engine.administration.create("", "k", NewTransitKey())).record
        for number in range(MOST + 1):
            engine.uses.note(record, "encrypt", f"caller {number}", 1)
        assert not engine.uses.is_full
