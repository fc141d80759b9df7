"""Values that no release writes, in any column of a store in SQLite, which keeps them: told by their place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Boolean, Column, Integer, LargeBinary, String, Table, Text

from keystead.errors import StorageOperationError
from keystead.model import KeyringPurpose, TransitType, utc_text
from keystead.ports import (
    ApprovalRecord,
    ErasureMark,
    JobRun,
    KeyStore,
    KeyUse,
    ReencryptionRecord,
    SessionRecord,
    SubjectRecord,
    TransitKeyRecord,
    WishKind,
    WishRecord,
    WishState,
)
from keystead.stores import open_store
from keystead.stores.tables import (
    access_secret_ids,
    audit_entries,
    audit_log,
    audit_sessions,
    audit_state,
    client_devices,
    device_metric_counts,
    encryption_metrics,
    key_failure_counts,
    key_metric_counts,
    leases,
    metadata,
    metric_counts,
    nodes,
    ready_key_pairs,
    reencryption_chunks,
    reencryption_listeners,
    spent_ciphertexts,
    store_rules,
    store_state,
    subjects,
    transit_settings,
    user_credentials,
)
from tests.stores.records import data_key, fill, keyring
from tests.stores.test_credential_rows import ADA
from tests.stores.test_device_rows import DEVICE, KEY, NOW, READY
from tests.stores.test_field_rows import EMAIL, HOUR_MS, JOB
from tests.stores.test_role_rows import ROLE, SECRET
from tests.stores.test_token_rows import TOKEN

WISH: Final = WishRecord("0" * 16, EMAIL.id, WishKind.PLAN, "ada")
APPROVAL: Final = ApprovalRecord(
    "0" * 16, "key.destroy", "people/1", "{}", "acme", "ada", utc_text(NOW), utc_text(NOW), 7, bytes(32)
)
SESSION: Final = SessionRecord(
    "f" * 16, "ada", "", "audit:read", "token 1", TOKEN.id, False, utc_text(NOW), utc_text(NOW), 7, bytes(32), NOW
)
_METRICS: Final = {encryption_metrics, metric_counts, key_metric_counts, key_failure_counts, device_metric_counts}
READ_OTHERWISE: Final = frozenset({audit_entries, audit_log, audit_sessions, audit_state, *_METRICS})
"""Of the trail nothing is believed: who verifies it finds what is no record. Metrics are only ever added up."""
UNREAD: Final = frozenset(
    {
        store_state.c.id,
        store_state.c.created_at,
        store_state.c.usable_from,
        store_rules.c.since,
        reencryption_listeners.c.worker,
    }
)
LOOKED_FOR: Final = frozenset(
    {
        leases.c.name,
        nodes.c.until_ms,
        reencryption_chunks.c.job_id,
        reencryption_listeners.c.field_id,
        reencryption_listeners.c.until_ms,
        client_devices.c.tenant,
        client_devices.c.device_id,
        ready_key_pairs.c.kind,
        user_credentials.c.tenant,
        user_credentials.c.user_id,
        user_credentials.c.kind,
        spent_ciphertexts.c.key_id,
        spent_ciphertexts.c.digest,
        spent_ciphertexts.c.until,
        subjects.c.id,
        access_secret_ids.c.id,
        access_secret_ids.c.role_id,
        transit_settings.c.tenant,
        store_rules.c.name,
    }
)
"""A row with another value is not found."""
TABLES: Final = tuple(table for table in metadata.sorted_tables if table not in READ_OTHERWISE)
VALUES: Final = ("CAST(x'ff00' AS TEXT)", "'words'", "x'ff00'", "-1", "2.5", "''", "9223372036854775807")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
async def store(path: Path) -> KeyStore:
    """A closed store with a row in each of its tables."""
    made = open_store(f"sqlite:///{path}")
    await made.open()
    await fill(made, data_key(id=7, keyring="people", context={"a": "b"}))
    async with made.transaction() as work:
        await work.add_keyring(replace(keyring("index"), purpose=KeyringPurpose.INDEX))
        await work.declare_use(KeyUse("people", "default", "sql:x"))
        await work.put_field(EMAIL)
        await work.claim_lease("lease", "owner", HOUR_MS)
        await work.keep_job_run(JobRun("sweep", "node", "conflict", NOW, 17))
        await work.beat("node", 1, HOUR_MS)
        job: ReencryptionRecord = await work.add_reencryption(JOB)
        await work.cut_chunk(job.id, None, "b", low=None, high="b", exhausted=False, owner="a", ttl_ms=HOUR_MS)
        await work.add_wish(WISH)
        await work.take_wish(WISH.id, "worker", HOUR_MS)
        await work.end_wish(WISH.id, "worker", WishState.DONE, job_id=job.id, plan="{}", error_code="conflict")
        await work.listen(WISH.field_id, "worker", HOUR_MS)
        await work.hold_device(DEVICE)
        await work.add_client_key(KEY)
        await work.add_ready_pair(READY)
        await work.set_credential(**ADA, hashed=("$argon2id$", 7), at=NOW, instead_of=None)
        counted = await work.count_attempt(**ADA, now=NOW)
        assert counted is not None
        await work.clear_attempts(counted, below=5, verified_at=NOW)
        await work.lock_credential(**ADA, until=NOW)
        await work.spend(KEY.id, bytes(32), until=NOW)
        await work.add_token(TOKEN)
        await work.revoke_token(TOKEN.id, NOW)
        await work.add_session(SESSION)
        await work.end_session(SESSION.id, NOW)
        await work.add_approval(APPROVAL)
        await work.finish_approval(APPROVAL.id, NOW)
        await work.begin_rule("rule", NOW)
        await work.add_role(ROLE)
        await work.add_secret_id(SECRET)
        await work.add_subjects([SubjectRecord(bytes(32), "keystead.subject.a", NOW)])
        await work.put_erasure_mark(ErasureMark(1, bytes(32)))
        await work.add_transit_key(TransitKeyRecord("people", "acme", "k", TransitType.AES_256, NOW))
        await work.disable_upsert("acme", True)
    await made.aclose()
    return made


def put(path: Path, table: Table, column: Column[object], value: str) -> bool:
    """Write a value as whoever owns the file can; False where the file's own rules stand in the way for ever."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        try:
            changed = raw.execute(f"UPDATE {table.name} SET {column.name} = {value}").rowcount
        except sqlite3.IntegrityError:
            return False
        assert changed > 0
        return True


async def read(store: KeyStore) -> None:
    """Read everything that the tables hold."""
    async with store.reading() as work:
        await work.state()
        await work.keyrings()
        await work.keys()
        await work.key_uses()
        await work.fields()
        await work.find_lease("lease")
        await work.job_runs()
        await work.live_nodes()
        for job in await work.reencryptions():
            await work.chunks(job.id)
        await work.chunks("job")
        await work.find_wish(WISH.id)
        await work.wishes([WISH.field_id])
        await work.listeners([WISH.field_id])
        await work.find_device(DEVICE.tenant, DEVICE.device_id)
        await work.find_client_key(KEY.id)
        await work.client_keys(KEY.tenant, KEY.device_id)
        await work.find_credential(**ADA)
        await work.find_client_key_for(KEY.id, bytes(32))
        await work.tokens()
        await work.sessions()
        await work.approvals()
        await work.has_rule("rule")
        await work.roles()
        await work.find_secret_id(SECRET.id)
        await work.secret_ids(ROLE.id)
        await work.subjects()
        await work.erasure_mark()
        await work.all_transit_keys()
        await work.is_upsert_disabled("acme")
    async with store.transaction() as work:
        await work.take_ready_pair(READY.kind)


def is_possible(column: Column[object], value: str) -> bool:
    """Return whether a record may have the value in this column."""
    if column in UNREAD | LOOKED_FOR or isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, Integer):
        return value in ("-1", "9223372036854775807")
    if isinstance(column.type, LargeBinary):
        return value == "x'ff00'"
    is_text = type(column.type) in (String, Text)
    return value == "''" or (is_text and value != "x'ff00'")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_what_no_release_writes_is_told_by_its_place(store: KeyStore, path: Path, table: Table) -> None:
    whole = path.read_bytes()
    for column, value in product(table.columns, VALUES):
        path.write_bytes(whole)
        if not put(path, table, column, value):
            continue
        try:
            await read(store)
            told = None
        except StorageOperationError as exc:
            told = str(exc)
        finally:
            await store.aclose()
        if told is not None:
            assert f"table {table.name} is damaged: {column.name} of" in told, value
        else:
            assert is_possible(column, value), (column.name, value)


async def test_a_store_whose_id_names_another_place_on_the_disk_is_damaged(store: KeyStore, path: Path) -> None:
    put(path, store_state, store_state.c.store_id, "'../../../../../../../../tmp/anybo'")
    with pytest.raises(StorageOperationError, match="store_state is damaged: store_id of"):
        await store.open()
    await store.aclose()
