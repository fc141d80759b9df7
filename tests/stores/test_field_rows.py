"""Registered fields, and re-encryption jobs whose chunks are leased by one worker at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from keystead.errors import ConflictError, InvalidInputError, KeyNotFoundError, SchemaVersionError
from keystead.ports import (
    MAX_FAILURES,
    ChunkRecord,
    ChunkTotals,
    FieldRecord,
    KeyStore,
    ReencryptionRecord,
    ReencryptionState,
    RowFailure,
)
from keystead.stores import open_store, schema
from keystead.stores.schema import current_revision, migrate
from tests.stores.records import data_key, fill, fill_older, older_store

HOUR_MS = 3_600_000
EMAIL = FieldRecord("people.email", "default", "index", "sql:sqlite:///app.db#people.email")
JOB = ReencryptionRecord("job", "people.email", EMAIL.locator, batch_rows=500, target='{"key":1}')
RUNNING = ReencryptionState.RUNNING


async def register(store: KeyStore, *records: FieldRecord) -> None:
    async with store.transaction() as work:
        for record in records:
            await work.put_field(record)


async def registered(store: KeyStore, index_keyring: str | None = None) -> list[FieldRecord]:
    async with store.reading() as work:
        return await work.fields(index_keyring)


async def begin(store: KeyStore) -> ReencryptionRecord:
    async with store.transaction() as work:
        return await work.add_reencryption(JOB)


async def cut(
    store: KeyStore, frontier: str | None, new: str | None, owner: str = "a", *, ttl_ms: int = HOUR_MS
) -> ChunkRecord:
    async with store.transaction() as work:
        return await work.cut_chunk(
            "job", frontier, new, low=frontier, high=new, exhausted=new is None, owner=owner, ttl_ms=ttl_ms
        )


async def claim(store: KeyStore, owner: str) -> ChunkRecord | None:
    async with store.transaction() as work:
        return await work.claim_chunk("job", owner, HOUR_MS)


async def save(store: KeyStore, chunk: ChunkRecord, ttl_ms: int = HOUR_MS) -> ChunkRecord:
    async with store.transaction() as work:
        return await work.save_chunk(chunk, ttl_ms)


async def change(store: KeyStore, expected: ReencryptionState, **changes: object) -> ReencryptionRecord:
    async with store.transaction() as work:
        return await work.change_reencryption("job", expected, **changes)


async def test_registered_fields_are_listed_by_id_and_by_index_keyring(store: KeyStore) -> None:
    plain = FieldRecord("a.note", "notes", None, "app:notes")
    await register(store, EMAIL, plain)
    assert await registered(store) == [plain, EMAIL]
    assert await registered(store, "index") == [EMAIL]


async def test_registering_again_changes_the_row(store: KeyStore) -> None:
    await register(store, EMAIL, replace(EMAIL, keyring="other", index_keyring=None, indexed_version=3))
    async with store.reading() as work:
        found = await work.find_field(EMAIL.id)
    assert found == replace(EMAIL, keyring="other", index_keyring=None, indexed_version=3)


async def test_an_indexed_version_only_grows(store: KeyStore) -> None:
    await register(store, EMAIL)
    async with store.transaction() as work:
        assert await work.note_indexed(EMAIL.id, 2)
        assert await work.note_indexed(EMAIL.id, 1)
        assert not await work.note_indexed("absent", 1)
    assert await registered(store) == [replace(EMAIL, indexed_version=2)]


async def test_a_registration_is_dropped_once(store: KeyStore) -> None:
    await register(store, EMAIL)
    async with store.transaction() as work:
        assert await work.drop_field(EMAIL.id)
        assert not await work.drop_field(EMAIL.id)
        assert await work.find_field(EMAIL.id) is None


async def test_a_job_is_found_with_the_times_the_store_gave_it(store: KeyStore) -> None:
    added = await begin(store)
    assert added == replace(JOB, created_ms=added.created_ms, updated_ms=added.created_ms)
    assert added.created_ms > 0
    async with store.reading() as work:
        assert await work.find_reencryption("job") == added
        assert await work.reencryptions("people.email") == await work.reencryptions() == [added]
        assert await work.reencryptions("other") == []
        assert await work.find_reencryption("other") is None


async def test_two_jobs_have_two_ids(store: KeyStore) -> None:
    await begin(store)
    with pytest.raises(ConflictError):
        await begin(store)


async def test_a_job_changes_only_from_the_state_it_is_expected_in(store: KeyStore) -> None:
    await begin(store)
    changed = await change(store, RUNNING, state=ReencryptionState.PAUSED, rows_total=7)
    assert (changed.state, changed.rows_total) == (ReencryptionState.PAUSED, 7)
    with pytest.raises(ConflictError, match="paused"):
        await change(store, RUNNING, state=ReencryptionState.DONE)


async def test_what_a_job_is_about_never_changes(store: KeyStore) -> None:
    await begin(store)
    with pytest.raises(InvalidInputError, match="field_id"):
        await change(store, RUNNING, field_id="other")


async def test_a_job_that_is_not_there_cannot_change(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError):
        await change(store, RUNNING, rows_total=1)


async def test_cutting_numbers_the_chunks_and_moves_the_frontier(store: KeyStore) -> None:
    await begin(store)
    first, second = await cut(store, None, "10"), await cut(store, "10", None, "b")
    assert [(c.number, c.low, c.high, c.owner, c.token) for c in (first, second)] == [
        (1, None, "10", "a", 1),
        (2, "10", None, "b", 1),
    ]
    async with store.reading() as work:
        job = await work.find_reencryption("job")
        assert await work.chunks("job") == [first, second]
    assert job is not None
    assert (job.frontier, job.exhausted) == (None, True)


async def test_one_of_many_workers_cuts_at_a_frontier(store: KeyStore) -> None:
    await begin(store)
    cuts = await asyncio.gather(*(cut(store, None, "10", f"w{n}") for n in range(16)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in cuts) == ["ChunkRecord"] + ["ConflictError"] * 15


async def test_nothing_is_cut_beyond_the_end(store: KeyStore) -> None:
    await begin(store)
    await cut(store, None, None)
    with pytest.raises(ConflictError):
        await cut(store, None, None)


async def test_nothing_is_cut_from_a_job_that_is_not_running(store: KeyStore) -> None:
    await begin(store)
    await change(store, RUNNING, state=ReencryptionState.PAUSED)
    with pytest.raises(ConflictError):
        await cut(store, None, "10")


async def test_a_held_chunk_is_not_claimed_by_another_worker(store: KeyStore) -> None:
    await begin(store)
    await cut(store, None, "10", "a")
    assert await claim(store, "b") is None


async def test_an_owner_claims_its_chunk_again_under_the_same_token(store: KeyStore) -> None:
    await begin(store)
    chunk = await cut(store, None, "10", "a")
    again = await claim(store, "a")
    assert again is not None
    assert (again.number, again.token) == (chunk.number, chunk.token)


async def test_an_expired_chunk_goes_to_another_owner_who_finds_the_cursor(store: KeyStore) -> None:
    await begin(store)
    chunk = await cut(store, None, "10", "a")
    chunk = await save(store, replace(chunk, cursor="5", read=5, rewritten=4, skipped=1), ttl_ms=1)
    await asyncio.sleep(0.02)
    taken = await claim(store, "b")
    assert taken is not None
    assert (taken.cursor, taken.read, taken.rewritten, taken.skipped) == ("5", 5, 4, 1)
    assert taken.token > chunk.token
    with pytest.raises(ConflictError, match="lost"):
        await save(store, replace(chunk, cursor="9"))


async def test_an_expired_chunk_that_nobody_took_is_saved(store: KeyStore) -> None:
    await begin(store)
    chunk = await cut(store, None, "10", ttl_ms=1)
    await asyncio.sleep(0.02)
    assert (await save(store, replace(chunk, cursor="3"))).cursor == "3"


async def test_a_chunk_given_back_is_free_and_its_token_still_grows(store: KeyStore) -> None:
    await begin(store)
    chunk = await cut(store, None, "10", "a")
    given = await save(store, chunk, ttl_ms=0)
    assert given.owner is None
    taken = await claim(store, "b")
    assert taken is not None
    assert taken.token > chunk.token


async def test_a_chunk_that_comes_back_to_its_owner_was_lost_in_between(store: KeyStore) -> None:
    await begin(store)
    first = await cut(store, None, "10", "a", ttl_ms=1)
    await asyncio.sleep(0.02)
    others = await claim(store, "b")
    assert others is not None
    await save(store, replace(others, cursor="5"), ttl_ms=0)
    again = await claim(store, "a")
    assert again is not None
    assert again.token > first.token
    with pytest.raises(ConflictError, match="lost"):
        await save(store, replace(first, cursor="2"))


async def test_a_finished_chunk_is_never_claimed_or_written_again(store: KeyStore) -> None:
    await begin(store)
    chunk = await save(store, replace(await cut(store, None, "10", "a"), done=True))
    assert await claim(store, "a") is None
    with pytest.raises(ConflictError):
        await save(store, replace(chunk, owner="a", done=False))


async def test_every_failure_is_counted_and_the_first_are_named(store: KeyStore) -> None:
    await begin(store)
    failures = tuple(RowFailure(f'"\u00fc{n}"', "altered") for n in range(MAX_FAILURES + 5))
    saved = await save(store, replace(await cut(store, None, "10"), failed=len(failures), failures=failures))
    assert (saved.failed, saved.failures) == (len(failures), failures[:MAX_FAILURES])


async def test_many_workers_claim_different_chunks(store: KeyStore) -> None:
    await begin(store)
    for n in range(8):
        await save(store, await cut(store, str(n) if n else None, str(n + 1)), ttl_ms=0)
    claims = [chunk for chunk in await asyncio.gather(*(claim(store, f"w{n}") for n in range(8))) if chunk]
    assert len({chunk.number for chunk in claims}) == len(claims)
    while (chunk := await claim(store, "late")) is not None:
        claims.append(await save(store, replace(chunk, done=True)))
    assert sorted(chunk.number for chunk in claims) == list(range(1, 9))


@pytest.mark.parametrize(("owner", "ttl_ms"), [("", 1000), ("a", 0)])
async def test_a_chunk_without_owner_or_time_is_refused(store: KeyStore, owner: str, ttl_ms: int) -> None:
    await begin(store)
    with pytest.raises(InvalidInputError):
        await cut(store, None, "10", owner, ttl_ms=ttl_ms)
    with pytest.raises(InvalidInputError):
        async with store.transaction() as work:
            await work.claim_chunk("job", owner, ttl_ms)


async def test_a_time_below_zero_is_refused(store: KeyStore) -> None:
    await begin(store)
    with pytest.raises(InvalidInputError):
        await save(store, await cut(store, None, "10"), ttl_ms=-1)


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store as the first revision made it."""
    return older_store(request, tmp_path, "0001")


async def test_a_store_of_the_first_revision_is_migrated_with_what_it_holds(old_url: str) -> None:
    fill_older(old_url)
    with pytest.raises(SchemaVersionError, match="keystead migrate"):
        await open_store(old_url).open()
    migrate(old_url)
    store = open_store(old_url)
    await store.open()
    await register(store, EMAIL)
    async with store.reading() as work:
        assert await work.find_key(1) is not None
        assert await work.fields() == [EMAIL]
    assert current_revision(old_url) == schema.HEAD
    await store.aclose()


async def test_a_release_that_knows_the_first_revision_alone_works_on(
    durable_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", ("0001",))
    monkeypatch.setattr(schema, "HEAD", "0001")
    store = open_store(durable_url)
    await store.open()
    await fill(store, data_key(id=1))
    await store.aclose()
    engine = create_engine(make_url(durable_url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT usable_from FROM store_state")).scalar() == "0001"
    engine.dispose()


async def test_what_the_chunks_of_a_job_come_to_is_added_up_by_the_store(store: KeyStore) -> None:
    await begin(store)
    first, second = await cut(store, None, "[1]"), await cut(store, "[1]", "[2]", "b")
    await cut(store, "[2]", None, "c")
    failure = RowFailure("[1]", "invalid_ciphertext")
    await save(store, replace(first, done=True, read=10, rewritten=7, skipped=2, failed=1, failures=(failure,)))
    await save(store, replace(second, read=5, rewritten=4, contended=3, erased=1), 0)
    async with store.reading() as work:
        found = await work.chunk_totals(["job", "none"])
        failed = await work.failed_chunks("job", 10)
    expected = ChunkTotals(chunks=3, done=1, held=1, read=15, rewritten=11, skipped=2, contended=3, failed=1, erased=1)
    assert found == {"job": expected}
    assert [(chunk.number, chunk.failures) for chunk in failed] == [(1, (failure,))]


async def test_jobs_are_read_by_pages_the_newest_first(store: KeyStore) -> None:
    async with store.transaction() as work:
        for number in range(5):
            await work.add_reencryption(replace(JOB, id=f"job{number}", field_id=f"people.{number % 2}"))
    async with store.reading() as work:
        everything = await work.newest_reencryptions(limit=10)
        oldest_first = await work.reencryptions()
        assert everything == oldest_first[::-1]
        for at, seen in enumerate(oldest_first):
            found = await work.reencryptions(after=(seen.created_ms, seen.id), limit=2)
            assert found == oldest_first[at + 1 : at + 3]
        last = everything[1]
        rest = await work.newest_reencryptions(before=(last.created_ms, last.id), limit=2)
        assert rest == everything[2:4]
        of_field = await work.newest_reencryptions("people.1", limit=10)
    assert of_field == [job for job in everything if job.field_id == "people.1"]
