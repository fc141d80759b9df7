"""The file that checkpoints are kept in: only a log that continues what it says writes over it."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import ConfigurationError
from keystead.ledger.audit.exporting import keep_in_file, table_tree
from keystead.ledger.audit.kept_file import LogChangedError, keep_checkpoint, read_checkpoint
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.checkpoint_signers import LocalSigner
from keystead.ledger.tlog.note import Note
from keystead.manager.manager import KeyManager
from keystead.ports import KeyStore
from tests.audit.places import Place, auditing_of, checked, kinds, options
from tests.fakes.clock import FakeClock

TABLES = ("audit_entries", "audit_sessions", "audit_log", "audit_state")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the checkpoints are kept."""
    return tmp_path / "kept"


def store_of(km: KeyManager) -> KeyStore:
    return auditing_of(km).trail.store


def parsed(note: bytes) -> Checkpoint:
    return Checkpoint.parse(Note.parse(note).text)


async def paid(km: KeyManager, count: int, first: int = 0) -> bytes:
    """Write some events, and return a checkpoint of them."""
    for number in range(first, first + count):
        await km.audit.record("order.paid", number=number)
    return await km.audit.checkpoint()


async def rolled_back(place: Place, file: Path) -> bytes:
    """Let a trail be put back to before some of its events; return the checkpoint of what is gone."""
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, 1)
    earlier = place.kept()
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, 3, 100)
    place.tamper()
    place.put_back(earlier)
    return file.read_bytes()


async def test_a_log_that_goes_on_replaces_what_it_has_kept(place: Place, file: Path) -> None:
    sizes = []
    for count in (1, 3, 9):
        async with place.open(audit=options(checkpoint_file=file)) as km:
            await paid(km, count)
        sizes.append(parsed(file.read_bytes()).size)
    assert sizes == sorted(set(sizes))
    report = await checked(place, since=file.read_bytes())
    assert (report.valid, report.log.warnings) == (True, [])


@pytest.mark.parametrize("events", [0, 30])
async def test_a_log_that_was_put_back_and_goes_on_otherwise_leaves_the_file_as_it_was(
    place: Place, file: Path, caplog: pytest.LogCaptureFixture, events: int
) -> None:
    held = await rolled_back(place, file)
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, events)
    assert file.read_bytes() == held
    assert not (await checked(place, since=held)).valid
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert any("verify the trail with it (--since-checkpoint)" in record.getMessage() for record in told)


async def test_who_takes_over_a_log_that_was_put_back_tells_it_in_the_trail(place: Place, file: Path) -> None:
    held = await rolled_back(place, file)
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, 1)
        [told] = await km.audit.entries(action="audit.state")
        status = await km.audit.status()
    assert told.details == {"found": "rolled_back", "size": parsed(held).size}
    assert (status.found, status.found_in) == ("rolled_back", told.seq)


async def test_another_log_is_not_written_over_a_kept_one(place: Place, file: Path) -> None:
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, 1)
    held = file.read_bytes()
    place.tamper(*(f"DELETE FROM {table}" for table in TABLES))
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await paid(km, 30)
        found = {record.details["found"] for record in await km.audit.entries(action="audit.state")}
    assert (found, file.read_bytes()) == ({"gone", "replaced"}, held)
    report = await checked(place)
    assert (report.valid, "replaced" in kinds(report)) == (False, True)


async def test_records_that_were_altered_since_are_not_kept_as_what_they_were(sqlite_place: Place, file: Path) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await keep_in_file(store_of(km), file, await paid(km, 3))
        held = file.read_bytes()
        altered = "CAST(replace(CAST(line AS TEXT), 'order.paid', 'order.sold') AS BLOB)"
        sqlite_place.tamper(f"UPDATE audit_log SET line = {altered}")
        with pytest.raises(LogChangedError, match="its records were replaced"):
            await keep_in_file(store_of(km), file, await paid(km, 1))
    assert file.read_bytes() == held


def test_two_checkpoints_over_as_many_records_are_of_one_log(file: Path) -> None:
    def proof(old: int, new: int) -> list[bytes]:
        return []

    signer = LocalSigner("log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    texts = [Checkpoint("log", 5, bytes([byte]) * 32).text() for byte in (1, 2)]
    one, other = (Note(text, (signer.sign(text),)).render() for text in texts)
    file.write_bytes(one)
    keep_checkpoint(file, one, proof)
    with pytest.raises(LogChangedError, match="its records were replaced"):
        keep_checkpoint(file, other, proof)
    assert file.read_bytes() == one


async def test_a_checkpoint_that_comes_late_leaves_a_later_one_of_its_log(place: Place, file: Path) -> None:
    async with place.open(audit=options()) as km:
        earlier, later = await paid(km, 1), await paid(km, 1)
        await keep_in_file(store_of(km), file, later)
        await keep_in_file(store_of(km), file, earlier)
    assert read_checkpoint(file) == parsed(later)


async def test_a_log_whose_records_were_moved_away_is_proven_as_far_as_its_files_tell(
    place: Place, clock: FakeClock, file: Path, tmp_path: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        early = await paid(km, 3)
        for day in range(3):
            await paid(km, 5, 10 * day)
            clock.advance(timedelta(days=1))
        late = await paid(km, 5)
        other = tmp_path / "early"
        await keep_in_file(store_of(km), file, late)
        await keep_in_file(store_of(km), other, early)
        clock.advance(timedelta(days=9))
        assert (await km.audit.archive(tmp_path / "moved", before=clock.now() - timedelta(days=9, hours=12))).files
        last = await paid(km, 2)
        await keep_in_file(store_of(km), file, last)
        with pytest.raises(LogChangedError, match="cannot be shown"):
            await keep_in_file(store_of(km), other, last)
    assert (read_checkpoint(file), read_checkpoint(other)) == (parsed(last), parsed(early))


async def test_a_process_that_runs_on_while_records_are_moved_goes_on_keeping(
    place: Place, clock: FakeClock, file: Path, tmp_path: Path
) -> None:
    async with place.open(audit=options(checkpoint_file=file), clock=clock, grace_s=None) as km:
        await paid(km, 3)
        clock.advance(timedelta(days=1))
        await paid(km, 3)
        clock.advance(timedelta(days=9))
        assert (await km.audit.archive(tmp_path / "moved", before=clock.now())).files
        note = await paid(km, 3)
    assert parsed(file.read_bytes()).size >= parsed(note).size


async def test_what_was_read_of_a_long_log_is_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.ledger.audit.table_tree._LEVEL", 3)
    async with place.open(audit=options()) as km:
        await paid(km, 60)
        asked: list[int] = []
        tree = table_tree(store_of(km), asyncio.get_running_loop())
        page = tree._page

        async def counted(start: int, end: int) -> list[bytes]:
            asked.append(start)
            return await page(start, end)

        monkeypatch.setattr(tree, "_page", counted)
        await asyncio.to_thread(tree.proof, 40, 50)
        asked.clear()
        await asyncio.to_thread(tree.proof, 50, 60)
    assert min(asked) >= 48


def test_another_file_is_no_place_for_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk, bread")
    with pytest.raises(ConfigurationError, match=r"notes\.txt is no checkpoint"):
        read_checkpoint(tmp_path / "notes.txt")
    assert read_checkpoint(tmp_path / "absent") is None
