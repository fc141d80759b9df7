"""Re-encryption beside writers, crashes and other workers: no edit is lost, and little is done twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keystead.fields import reencrypt, reencryptions
from keystead.manager.manager import KeyManager
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address, before_the_write
from tests.fields.reencrypt_process import BATCH_ROWS, manager

ROOT = Path(__file__).resolve().parents[2]


def write(app: Application, km: KeyManager, number: int, value: str) -> None:
    """Change a row as the application does."""
    sealed = km.field(EMAIL).encrypt(value, record=number)
    app.fill("UPDATE people SET email = :a, updated_at = 'now' WHERE id = :b", [(sealed, number)])


async def test_an_edit_between_reading_and_writing_wins(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        app.make_people(km, 10)
        await km.rotate_data_key(promote="now")
        before_the_write(monkeypatch, lambda: write(app, km, 4, "edited@example.org"))
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.rewritten, report.skipped, report.contended) == (9, 1, 1)
        ((blob, stamp),) = app.rows("SELECT email, updated_at FROM people WHERE id = 4")
        assert (km.field(EMAIL).decrypt(blob, record=4), stamp) == ("edited@example.org", "now")


async def test_an_edit_that_restores_an_old_ciphertext_is_brought_over_too(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        app.make_people(km, 10)
        old = km.field(EMAIL).encrypt("from a node that is behind", record=4)
        await km.rotate_data_key(promote="now")
        before_the_write(monkeypatch, lambda: app.fill("UPDATE people SET email = :a WHERE id = 4", [(old,)]))
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.rewritten, report.contended, report.failed) == (10, 1, 0)
        (blob,) = app.rows("SELECT email FROM people WHERE id = 4")[0]
        assert km.field(EMAIL).decrypt(blob, record=4) == "from a node that is behind"
        assert not km.needs_reencrypt(blob)


async def test_a_row_that_is_deleted_meanwhile_stays_deleted(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        app.make_people(km, 10)
        await km.rotate_data_key(promote="now")
        before_the_write(monkeypatch, lambda: app.run("DELETE FROM people WHERE id = 4"))
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.rewritten, report.skipped, report.failed) == (9, 1, 0)
        assert app.rows("SELECT count(*) FROM people") == [(9,)]


async def test_rows_that_somebody_holds_are_left_out_and_come_last(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    app = Application(postgres_url)
    async with world.open() as km:
        app.make_people(km, 10)
        await km.rotate_data_key(promote="now")
        holder = psycopg.connect(postgres_url)
        held = threading.Timer(0.3, holder.commit)

        def hold() -> None:
            holder.execute("UPDATE people SET updated_at = 'held' WHERE id = 4")
            held.start()

        before_the_write(monkeypatch, hold)
        report = await reencrypt(km, app.url, EMAIL)
        held.join()
        holder.close()
        assert (report.rewritten, report.contended, report.failed) == (10, 1, 0)
        assert app.rows("SELECT updated_at FROM people WHERE id = 4") == [("held",)]


async def test_no_update_of_many_writers_is_lost(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 60)
        await km.rotate_data_key(promote="now")
        last: dict[int, str] = {n: address(n) for n in range(1, 61)}
        is_over = threading.Event()

        def edit(mine: range) -> None:
            draw = random.Random(mine.start)
            for turn in range(10_000):
                if is_over.is_set():
                    return
                number = draw.choice(mine)
                write(app, km, number, f"turn {turn} of row {number}")
                last[number] = f"turn {turn} of row {number}"

        writers = [threading.Thread(target=edit, args=(range(start, 61, 3),)) for start in (1, 2, 3)]
        for writer in writers:
            writer.start()
        report = await reencrypt(km, app.url, EMAIL, batch_rows=4, workers=2, rows_per_s=200)
        is_over.set()
        for writer in writers:
            await asyncio.to_thread(writer.join)
        cipher = km.field(EMAIL)
        found = {n: cipher.decrypt(blob, record=n) for n, blob in app.rows("SELECT id, email FROM people")}
        assert found == last
        assert report.failed == 0
        assert not any(km.needs_reencrypt(blob) for (blob,) in app.rows("SELECT email FROM people"))


@pytest.mark.parametrize("point", ["write", "commit", "record"])
async def test_after_a_kill_at_most_one_batch_is_done_again(
    tmp_path: Path, sqlite_app: Application, point: str
) -> None:
    store = str(tmp_path / "keys.db")
    async with manager(store) as km:
        sqlite_app.make_people(km, 60)
        await km.rotate_data_key(promote="now")
    command = [sys.executable, "-m", "tests.fields.reencrypt_process", store, sqlite_app.url, point, "5"]
    killed = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    async with manager(store) as km:
        done = sum(not km.needs_reencrypt(blob) for (blob,) in sqlite_app.rows("SELECT email FROM people"))
        assert done == (25 if point == "record" else 20)
        await take_over(km)
        report = await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=BATCH_ROWS)
        assert (report.read, report.rewritten + report.skipped, report.failed) == (60, 60, 0)
        assert report.skipped <= BATCH_ROWS
        cipher = km.field(EMAIL)
        found = {n: cipher.decrypt(blob, record=n) for n, blob in sqlite_app.rows("SELECT id, email FROM people")}
        assert found == {n: address(n) for n in range(1, 61)}


async def take_over(km: KeyManager) -> None:
    """Let the killed worker's lease end."""
    async with (await km.session()).surroundings.store.transaction() as work:
        for job in await reencryptions(km):
            for chunk in await work.chunks(job.id):
                if not chunk.done:
                    await work.save_chunk(chunk, 0)


async def test_two_processes_share_a_job(tmp_path: Path, sqlite_app: Application) -> None:
    store = str(tmp_path / "keys.db")
    async with manager(store) as km:
        sqlite_app.make_people(km, 1000)
        await km.rotate_data_key(promote="now")
    command = [sys.executable, "-m", "tests.fields.reencrypt_process", store, sqlite_app.url, "never", "0"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [(await asyncio.to_thread(each.communicate))[0].split() for each in both]
    batches = [int(words[0]) for words in told]
    assert all(batches), "one process did everything"
    assert sum(batches) == 1000 / BATCH_ROWS
    assert [int(words[1]) for words in told] == [1000, 1000]
