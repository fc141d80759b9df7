"""What cannot be recorded does not happen; or it does, aloud, where somebody has chosen that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from keystead.errors import ConfigurationError, ConflictError, InvalidInputError, KMSError, StorageOperationError
from keystead.ledger.audit.options import AuditOptions
from keystead.manager import admin
from keystead.manager.auditing import Auditing
from keystead.manager.manager import KeyManager
from keystead.ports import MAX_ENTRY_BYTES, AuditEvent, UnitOfWork
from tests.audit.places import Place, auditing_of, checked, options, seal


class OwnTrail:
    """A trail of an application's own."""

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Take no notice."""


def break_entries(place: Place) -> None:
    """Let the database take no entry any more."""
    if place.is_sqlite:
        place.execute("CREATE TRIGGER full_up BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'no more'); END")
    else:
        place.execute("ALTER TABLE audit_entries ADD CONSTRAINT full_up CHECK (false) NOT VALID")


def mend_entries(place: Place) -> None:
    """Undo ``break_entries``."""
    place.execute("DROP TRIGGER full_up" if place.is_sqlite else "ALTER TABLE audit_entries DROP CONSTRAINT full_up")


async def test_a_change_that_cannot_be_recorded_does_not_happen(place: Place) -> None:
    async with place.open(audit=options()) as km:
        before = await km.default.versions()
        break_entries(place)
        with pytest.raises(KMSError):
            await km.rotate_data_key()
        assert await km.default.versions() == before
        mend_entries(place)
        await km.rotate_data_key()
        await seal(km)
        assert (await km.audit.verify(compares_store=True)).valid


async def test_a_key_is_not_given_out_where_that_cannot_be_recorded(place: Place) -> None:
    async with place.open(audit=options()) as km:
        break_entries(place)
        with pytest.raises(KMSError):
            await km.generate_data_key()
        mend_entries(place)


async def test_nothing_is_unwrapped_for_use_where_that_cannot_be_recorded(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
    break_entries(place)
    with pytest.raises(KMSError):
        async with place.open(audit=options()):
            pass
    mend_entries(place)
    assert (await checked(place)).valid


async def disabled_elsewhere(one: KeyManager, two: KeyManager) -> tuple[int, int]:
    """Let another process replace and disable the key that one holds; return both ids."""
    old = await one.get_active_data_key()
    new = await two.rotate_data_key(promote="now")
    await admin.disable_key(two, old.id)
    return old.id, new.id


async def test_a_key_that_was_disabled_goes_out_of_use_although_no_other_can_be_recorded(place: Place) -> None:
    async with place.open(audit=options()) as one, place.open(audit=options()) as two:
        old, new = await disabled_elsewhere(one, two)
        ring = (await one.session()).live.find("default")
        assert ring is not None
        assert old in ring.snapshot.keys
        break_entries(place)
        with pytest.raises(KMSError):
            await one.run_due()
        assert (old in ring.snapshot.keys, old in ring.snapshot.withheld, new in ring.snapshot.keys) == (
            False,
            True,
            False,
        )
        mend_entries(place)
        await one.run_due()
        assert new in ring.snapshot.keys


async def test_a_key_that_was_disabled_goes_out_of_use_although_no_session_can_be_begun(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise StorageOperationError("no more sessions")

    async with sqlite_place.open(audit=options()) as one, sqlite_place.open(audit=options()) as two:
        old, _ = await disabled_elsewhere(one, two)
        monkeypatch.setattr(auditing_of(one).trail, "ensure", refuse)
        with pytest.raises(StorageOperationError, match="no more sessions"):
            await one.run_due()
        ring = (await one.session()).live.find("default")
        assert ring is not None
        assert old in ring.snapshot.withheld
        monkeypatch.undo()


async def test_with_warn_the_change_happens_and_an_error_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.open(audit=options(on_failure="warn")) as km:
        break_entries(place)
        info = await km.rotate_data_key()
        assert "a change is NOT in the audit trail: key.rotate" in caplog.text
        assert (await km.get_active_data_key()).id == info.id
        mend_entries(place)
        await km.audit.record("order.paid")
        await seal(km)
        report = await km.audit.verify(compares_store=True)
    # What was let pass is seen where the store is compared, and nowhere else.
    assert report.log.valid
    assert [(each.version, each.what) for each in report.differences or ()] == [(1, "state"), (2, "unknown")]


async def test_an_event_of_the_application_is_not_taken_silently_either(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.open(audit=options()) as km:
        break_entries(place)
        with pytest.raises(KMSError):
            await km.audit.record("order.paid")
        mend_entries(place)
    async with place.open(audit=options(on_failure="warn")) as km:
        break_entries(place)
        await km.audit.record("order.paid")
        assert "NOT in the audit trail: order.paid" in caplog.text
        mend_entries(place)


async def test_an_audited_store_refuses_a_manager_that_would_change_it_without_a_word(place: Place) -> None:
    async with place.open(audit=True):
        pass
    with pytest.raises(ConfigurationError, match="keystead audit end"):
        async with place.open(audit=False):
            pass


async def test_a_manager_that_ran_before_the_trail_began_takes_part_from_its_next_change_on(place: Place) -> None:
    async with place.open(audit=None) as old:
        async with place.open(audit=options()) as km:
            info = await old.rotate_data_key(promote="now")
            await seal(km)
            told = await km.audit.entries(action="key.rotate")
            assert [[key["version"] for key in record.keys] for record in told] == [[1, info.version]]
            assert (await km.audit.verify(compares_store=True)).valid
        assert auditing_of(old).trail.is_on


async def test_a_store_with_a_trail_refuses_a_manager_with_a_trail_of_its_own(place: Place) -> None:
    async with place.open(audit=True):
        pass
    with pytest.raises(ConfigurationError, match="an audit trail of your own"):
        async with place.open(audit=OwnTrail()):
            pass


async def test_a_trail_of_its_own_changes_no_store_whose_trail_was_begun_meanwhile(place: Place) -> None:
    async with place.open(audit=OwnTrail()) as old:
        info = await old.rotate_data_key(promote="now")
        async with place.open(audit=options()) as km:
            with pytest.raises(ConfigurationError, match="begun meanwhile"):
                await old.rotate_data_key(promote="now")
            assert (await km.get_active_data_key()).id == info.id


async def test_a_manager_that_ran_before_the_trail_began_gives_no_key_out_unrecorded(place: Place) -> None:
    async with place.open(audit=None) as old, place.open(audit=options()) as km:
        with pytest.raises(ConflictError, match="begun meanwhile"):
            await old.generate_data_key()
        # By then it takes part.
        await old.generate_data_key()
        await seal(km)
        assert len(await km.audit.entries(action="key.draw")) == 1


async def test_a_manager_that_ran_before_the_trail_began_changes_nothing_else_unrecorded(place: Place) -> None:
    async with place.open(audit=None) as old, place.open(audit=options()) as km:
        with pytest.raises(ConflictError, match="begun meanwhile"):
            await admin.declare_use(old, "default", "people", "file:/data/people.csv")
        assert place.execute("SELECT name FROM key_uses") == []
        await admin.declare_use(old, "default", "people", "file:/data/people.csv")
        await seal(km)
        assert len(await km.audit.entries(action="use.declare")) == 1


async def test_a_manager_that_opens_while_the_trail_begins_uses_no_key_unrecorded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.end("for a while")
    real = Auditing.open

    async def meanwhile(self: Auditing, *, is_kept: bool) -> None:
        await real(self, is_kept=is_kept)
        monkeypatch.undo()
        async with place.open(audit=True):
            pass

    monkeypatch.setattr(Auditing, "open", meanwhile)
    with pytest.raises(ConflictError, match="begun meanwhile"):
        async with place.open(audit=None):
            pass


async def test_a_poll_joins_a_trail_that_was_begun_and_records_what_it_loads(place: Place) -> None:
    async with place.open(audit=None) as old, place.open(audit=options()) as km:
        info = await km.rotate_data_key(promote="now")
        with contextlib.suppress(ConflictError):
            await old.run_due()
        await old.run_due()
        assert (await old.get_active_data_key()).id == info.id
        await seal(km)
        node = auditing_of(old).trail.node
        told = [each.details for each in await km.audit.entries(action="key.load") if each.node == node]
        assert info.version in [version for details in told for version in details.get("versions", ())]


async def test_once_ended_the_trail_is_taken_up_again_by_who_wants_one(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.end("moving house")
    async with place.open(audit=None) as km:
        assert not (await km.audit.status()).is_on
        await km.rotate_data_key()
        await km.audit.begin()
        await seal(km)
        report = await km.audit.verify(compares_store=True)
        assert (report.valid, report.differences) == (True, [])


@pytest.mark.parametrize(
    ("action", "details"),
    [
        ("refund", {}),
        ("Order.refund", {}),
        ("key.create", {}),
        ("audit.end", {}),
        ("order.refund", {"amount": 1.5}),
        ("order.refund", {"amount": 2**53}),
        ("order.refund", {"note": "\ud800"}),
        ("order.refund", {"a b": 1}),
        ("order.refund", {"secret": b"bytes"}),
        ("order.refund", {"deep": [[[[[[[[[1]]]]]]]]]}),
        ("order.refund", {"long": "x" * MAX_ENTRY_BYTES}),
    ],
)
async def test_an_event_that_no_entry_can_hold_is_refused(
    sqlite_place: Place, action: str, details: dict[str, object]
) -> None:
    async with sqlite_place.open(audit=options()) as km:
        before = sqlite_place.waiting()
        with pytest.raises(InvalidInputError):
            await km.audit.record(action, **details)  # type: ignore[arg-type]
        assert sqlite_place.waiting() == before


@pytest.mark.parametrize(
    "about",
    [
        {"key_id": 2**63},
        {"key_id": 9_999_999_999_999_999_999},
        {"key_id": 0},
        {"key_id": -1},
        {"key_id": True},
        {"key_id": "7"},
        {"keyring": 5},
        {"keyring": "x" * 256},
        {"keyring": "a\0b"},
        {"keyring": "a\nb"},
        {"keyring": "\ud800"},
    ],
    ids=repr,
)
async def test_an_event_about_a_key_that_no_store_can_have_is_refused(
    sqlite_place: Place, about: dict[str, Any]
) -> None:
    async with sqlite_place.open(audit=options()) as km:
        before = sqlite_place.waiting()
        with pytest.raises(InvalidInputError):
            await km.audit.record("order.refund", **about)
        assert sqlite_place.waiting() == before


async def test_an_event_is_about_any_key_that_a_store_can_have(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.refund", keyring="x" * 255, key_id=2**63 - 1)
        await seal(km)
        [found] = await km.audit.entries(keyring="x" * 255, key_id=2**63 - 1)
        assert found.action == "order.refund"


async def test_one_event_that_is_too_long_keeps_no_other_out(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        long = "x" * MAX_ENTRY_BYTES
        calls = [km.audit.record("order.paid", text=text) for text in ("a", long, "b")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["NoneType", "InvalidInputError", "NoneType"]


@pytest.mark.parametrize(
    "given",
    [{"checkpoint_records": 0}, {"checkpoint_s": 0.0}, {"interval_s": 0.0}, {"epoch_s": 0}, {"on_failure": "never"}],
)
def test_options_that_cannot_be_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        AuditOptions(**given)  # type: ignore[arg-type]
