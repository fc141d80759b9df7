"""Rows that no process of ours writes: of any length and type, with any number. They are found, and stop nothing."""

from __future__ import annotations

import json
import secrets
import sqlite3
from hashlib import sha256

import pytest

from keystead.ledger.audit.looking import BATCH_BYTES, LONGEST_LEASE_MS
from keystead.ledger.audit.standing import FARTHEST
from keystead.ledger.format.records import MAX_LINE_BYTES, parse_line
from keystead.manager.manager import KeyManager
from keystead.ports import MAX_ENTRY_BYTES
from tests.audit.places import Place, auditing_of, kinds, options, seal

TOO_LARGE = 2**63 - 1


async def paid(km: KeyManager) -> None:
    """See that an entry is sealed."""
    await km.audit.record("order.paid")
    await seal(km)
    assert await km.audit.entries(action="order.paid")


def rejections(place: Place) -> list[dict[str, object]]:
    """Return what the log says of entries that were not authentic."""
    payloads = [parse_line(line).payload for line in place.lines()]
    return [json.loads(each)["rejected"] for each in payloads if each.startswith(b'{"rejected"')]


async def test_a_rejection_is_short_however_long_the_row_is(place: Place) -> None:
    async with place.open(audit=options()) as km:
        row_id, entry = secrets.token_bytes(2000), b"x" * (3 * MAX_ENTRY_BYTES)
        place.insert(row_id, "0" * 32, entry, b"y" * MAX_ENTRY_BYTES)
        await paid(km)
        [told] = rejections(place)
        cut = entry[: MAX_ENTRY_BYTES + 1]
        assert told == {
            "reason": "session",
            "row": sha256(row_id).hexdigest(),
            "sha256": sha256(cut).hexdigest(),
            "size": len(cut),
        }
        assert place.waiting() == 0
        assert kinds(await km.audit.verify()) == {"inserted"}


async def test_a_row_without_an_id_is_sealed_as_a_rejection(place: Place) -> None:
    async with place.open(audit=options()) as km:
        place.insert(b"", "0" * 32, b"{}", bytes(32))
        assert kinds(await km.audit.verify()) == {"inserted"}
        assert (await km.audit.status()).waiting > 0
        await paid(km)
        assert ([each["reason"] for each in rejections(place)], place.waiting()) == (["session"], 0)


@pytest.mark.parametrize("value", ["'text'", "17", "2.5", "CAST(x'ff00' AS TEXT)", "''"])
@pytest.mark.parametrize("column", ["id", "session", "entry", "code"])
async def test_what_is_no_bytes_is_sealed_as_a_rejection(sqlite_place: Place, column: str, value: str) -> None:
    async with sqlite_place.open(audit=options()) as km:
        session = sqlite_place.execute("SELECT session FROM audit_entries LIMIT 1")[0][0]
        values = {"id": "x'00112233445566778899aabbccddeeff'", "session": f"'{session}'", "entry": "x'7b7d'"}
        values = {**values, "code": "zeroblob(32)", column: value}
        sqlite_place.execute(f"INSERT INTO audit_entries VALUES ({', '.join(values.values())})")
        assert kinds(await km.audit.verify()) == {"inserted"}
        assert (await km.audit.status()).waiting > 0
        await paid(km)
        await seal(km)
        assert (len(rejections(sqlite_place)), sqlite_place.waiting()) == (1, 0)


async def test_an_entry_that_became_text_is_what_its_bytes_are(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await km.audit.record("order.paid")
        sqlite_place.execute("UPDATE audit_entries SET entry = CAST(entry AS TEXT)")
        await seal(km)
        assert (await km.audit.verify()).valid
        assert len(await km.audit.entries(action="order.paid")) == 1


@pytest.mark.parametrize(
    "statement", ["node = CAST(x'ff' AS TEXT)", "begun_ms = 'soon'", "wrapped_key = 'x' || id || id"]
)
async def test_a_session_whose_row_is_of_other_types_is_told_of_by_its_first_entry(
    sqlite_place: Place, statement: str
) -> None:
    async with sqlite_place.open(audit=options()) as gone:
        await gone.audit.record("order.paid")
        sqlite_place.execute(f"UPDATE audit_sessions SET {statement}")
        async with sqlite_place.open(audit=options()) as km:
            await seal(km)
            assert (len(await km.audit.entries(action="order.paid")), rejections(sqlite_place)) == (1, [])


@pytest.mark.parametrize("column", ["token", "checkpoint_size", "checkpoint_ms", "exported_size", "rejected"])
async def test_a_state_with_numbers_that_nobody_counts_to_stops_nothing(place: Place, column: str) -> None:
    async with place.open(audit=options(checkpoint_records=1)) as km:
        await seal(km)
    place.execute(f"UPDATE audit_state SET {column} = {TOO_LARGE}")
    async with place.open(audit=options(checkpoint_records=1)) as km:
        place.insert(bytes(16), "0" * 32, b"{}", bytes(32))
        await paid(km)
        assert place.waiting() == 0
        made = place.execute("SELECT count(*) FROM audit_log WHERE kind = 'checkpoint'")[0][0]
        assert made > 1


@pytest.mark.parametrize("column", ["token", "until_ms"])
async def test_a_lease_that_nobody_can_have_stops_nothing(place: Place, column: str) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
    place.execute(f"UPDATE leases SET owner = 'elsewhere', {column} = {TOO_LARGE} WHERE name = 'keystead.audit'")
    async with place.open(audit=options()) as km:
        await paid(km)
        assert place.waiting() == 0
        token = place.execute("SELECT token FROM leases WHERE name = 'keystead.audit'")[0][0]
        assert token < TOO_LARGE // 2


async def test_a_lease_that_another_process_may_have_is_waited_for(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await seal(km)
        waits = f"SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000 + {LONGEST_LEASE_MS // 2}"
        sqlite_place.execute(
            f"UPDATE leases SET owner = 'elsewhere', until_ms = ({waits}) WHERE name = 'keystead.audit'"
        )
        await km.audit.record("order.paid")
        assert await seal(km) == 0


@pytest.mark.parametrize("where", ["middle", "end"])
@pytest.mark.parametrize("line", [b"x" * (MAX_LINE_BYTES + 1), b"no record"], ids=["long", "malformed"])
async def test_a_line_that_is_no_record_is_found_wherever_it_stands(place: Place, where: str, line: bytes) -> None:
    async with place.open(audit=options()) as km:
        await paid(km)
        await km.audit.checkpoint()
        await paid(km)
        [[first, last]] = place.execute("SELECT min(seq), max(seq) FROM audit_log WHERE action = 'order.paid'")
        assert last == len(place.lines()) - 1
        seq = last if where == "end" else first
        place.tamper()
        place.execute("UPDATE audit_log SET line = ? WHERE seq = ?", line, seq)
        report = await km.audit.verify()
    assert "modified" in kinds(report)


async def test_what_is_sealed_at_once_is_bounded_by_its_length(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        for number in range(6):
            await km.audit.record("order.paid", number=number, text="x" * 400_000)
        taken = []
        while step := await auditing_of(km).step(is_urgent=True):
            taken.append(step)
        assert max(taken[1:]) * 400_000 <= BATCH_BYTES
        assert sum(taken) >= 6
        assert [each.details["number"] for each in await km.audit.entries(action="order.paid")] == list(range(6))


async def test_who_seals_in_the_background_does_not_rest_while_more_waits(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        for _ in range(3):
            await km.audit.record("order.paid", text="x" * 900_000)
        sequencer = auditing_of(km)._sequencer
        assert sequencer is not None
        told = []
        while await sequencer.step(is_urgent=True):
            told.append(sequencer.has_more)
        assert told == [True, True, False]


@pytest.mark.parametrize("value", ["CAST(x'ff00' AS TEXT)", "'words'", "x'ff00'", "17", "2.5", "''", "NULL"])
async def test_no_column_of_a_record_is_changed_unseen(sqlite_place: Place, value: str) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await paid(km)
        sqlite_place.tamper()
        [[seq]] = sqlite_place.execute("SELECT seq FROM audit_log WHERE action = 'order.paid'")
        columns = [row[1] for row in sqlite_place.execute("PRAGMA table_info(audit_log)")]
        assert len(columns) == 8
        for column in columns[1:]:
            [[former]] = sqlite_place.execute(f"SELECT {column} FROM audit_log WHERE seq = {seq}")
            if former is None and value == "NULL":
                continue
            try:
                sqlite_place.execute(f"UPDATE audit_log SET {column} = {value} WHERE seq = {seq}")
            except sqlite3.IntegrityError:
                continue
            report = await km.audit.verify()
            assert "modified" in kinds(report), column
            await km.audit.entries()
            sqlite_place.execute(f"UPDATE audit_log SET {column} = ? WHERE seq = {seq}", former)
        assert (await km.audit.verify()).valid


async def plant(place: Place, seq: int) -> None:
    """Put a copy of a record under another number."""
    columns = "line, entry_id, keyring, key_id, action, at, kind"
    taken = "line, NULL, keyring, key_id, action, at, kind"
    newest = "(SELECT max(seq) FROM audit_log WHERE action = 'order.paid')"
    place.execute(f"INSERT INTO audit_log (seq, {columns}) SELECT {seq}, {taken} FROM audit_log WHERE seq = {newest}")


async def test_a_record_that_no_log_can_have_come_to_is_found_and_moves_nothing(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await paid(km)
    await plant(place, TOO_LARGE)
    size = len(place.lines()) - 1
    async with place.open(audit=options()) as km:
        assert await km.audit.entries(action="order.paid", limit=1)
        await paid(km)
        assert "duplicated" in kinds(await km.audit.verify())
        numbers = [row[0] for row in place.execute("SELECT seq FROM audit_log ORDER BY seq")]
        assert numbers[size:-1] == list(range(size, len(numbers) - 1))
        assert list(await km.audit.entries(action="audit.state")) == []
    place.tamper(f"DELETE FROM audit_log WHERE seq = {TOO_LARGE}")
    async with place.open(audit=options()) as km:
        assert (await km.audit.verify()).valid


async def test_a_record_far_behind_the_end_is_gone_on_behind(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await paid(km)
    far = FARTHEST // 2
    await plant(place, far)
    async with place.open(audit=options()) as km:
        await paid(km)
        assert place.execute("SELECT max(seq) FROM audit_log")[0][0] > far
        assert "missing" in kinds(await km.audit.verify())
        assert [each.details["found"] for each in await km.audit.entries(action="audit.state")] == ["behind"]


async def test_a_beginning_of_a_file_that_no_log_can_have_come_to_is_passed_over(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await paid(km)
    size = len(place.lines())
    [[line]] = place.execute("SELECT line FROM audit_log WHERE kind = 'file' ORDER BY seq DESC LIMIT 1")
    number = bytes(line).partition(b",")[0]
    far = bytes(line).replace(number, b'{"n":%d' % TOO_LARGE)
    place.execute("INSERT INTO audit_log (seq, line, kind) VALUES (?, ?, 'file')", TOO_LARGE, far)
    place.execute("DELETE FROM audit_state")
    async with place.open(audit=options()) as km:
        await paid(km)
        assert [each.details["found"] for each in await km.audit.entries(action="audit.state")] == ["altered"]
        assert place.execute("SELECT count(*) FROM audit_log WHERE seq >= ?", size)[0][0] > 1
        assert place.execute("SELECT max(seq) FROM audit_log WHERE seq < ?", TOO_LARGE)[0][0] < 2 * size
