"""The writes of a verification with their entries in the audit trail: both or neither, and exact however many ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import text

from keystead.errors import ReplayedError, StoreUnavailableError
from keystead.ports import (
    AuditEntryRow,
    ClientKeyRecord,
    CredentialRecord,
    DeviceRecord,
    KeyStore,
    PairKind,
    SecretKind,
    UnitOfWork,
)
from keystead.stores import engines, prepared, secret_writes
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BELOW: Final = 5
ADA: Final[dict[str, Any]] = {"tenant": "", "user_id": "ada", "kind": SecretKind.PASSCODE}
PAIR: Final = ClientKeyRecord(
    "key", "", "phone", "ada", PairKind.RSA_2048, "PEM", b"sealed", 7, "2029-12-31T00:00:00Z", NOW + MINUTE
)


def an_entry() -> AuditEntryRow:
    return AuditEntryRow(os.urandom(16), "5" * 32, b"an entry", bytes(32))


async def add(work: UnitOfWork, pair: ClientKeyRecord) -> None:
    """Add a pair, unless it is there."""
    if await work.find_client_key(pair.id) is None:
        await work.hold_device(DeviceRecord(pair.tenant, pair.device_id, pair.owner, NOW))
        await work.add_client_key(pair)


async def keep(store: KeyStore, hashed: str = "one", instead_of: str | None = None) -> None:
    async with store.transaction() as work:
        await add(work, PAIR)
        assert await work.set_credential(**ADA, hashed=(hashed, 7), at=NOW, instead_of=instead_of)


async def count(
    store: KeyStore, now: datetime = NOW, *, pair: ClientKeyRecord = PAIR, ciphertext: bytes = b"0" * 32
) -> CredentialRecord | None:
    async with store.transaction(once=True) as work:
        given = pair, ciphertext
        return await work.count_free_attempt(**ADA, given=given, now=now, below=BELOW, entry=an_entry())


async def counted(store: KeyStore) -> CredentialRecord:
    found = await count(store)
    assert found is not None
    return found


async def forgive(store: KeyStore, credential: CredentialRecord, ciphertext: bytes = b"1" * 32) -> bool:
    async with store.transaction(once=True) as work:
        return await work.forgive_attempts(
            credential, below=BELOW, verified_at=NOW, spent=(PAIR.id, ciphertext, NOW + MINUTE), entry=an_entry()
        )


async def left(store: KeyStore) -> tuple[CredentialRecord, int]:
    """Return the secret, and how many entries there are."""
    async with store.reading() as work:
        found, (entries, _) = await work.find_credential(**ADA), await work.count_audit_entries()
    assert found is not None
    return found, entries


async def test_an_attempt_is_counted_with_its_entry_while_it_would_lock_nothing(store: KeyStore) -> None:
    await keep(store)
    attempts = [await count(store) for _ in range(BELOW + 2)]
    assert [None if each is None else each.counted for each in attempts] == [1, 2, 3, 4, None, None, None]
    secret, entries = await left(store)
    assert (secret, entries) == (attempts[3], BELOW - 1)


async def test_nothing_is_counted_on_a_secret_that_is_absent_or_locked(store: KeyStore) -> None:
    assert await count(store) is None
    await keep(store)
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    assert await count(store) is None
    assert await count(store, NOW + MINUTE - timedelta(microseconds=1)) is None
    assert (await left(store))[1] == 0
    assert (await count(store, NOW + MINUTE)) is not None
    assert (await left(store))[1] == 1


CHANGES: Final[dict[str, Callable[[UnitOfWork], Awaitable[object]]]] = {
    "erased": lambda work: work.erase_device_keys("", "phone", NOW),
    "removed": lambda work: work.drop_owner_keys("", "ada"),
    "under another WRAP key": lambda work: work.rewrap_client_key("key", b"sealed", b"again", 8),
    "spent": lambda work: work.spend("key", b"0" * 32, until=NOW + MINUTE),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
async def test_nothing_is_counted_on_what_is_not_as_it_was_remembered(
    store: KeyStore, change: Callable[[UnitOfWork], Awaitable[object]]
) -> None:
    await keep(store)
    assert await count(store) is not None
    async with store.transaction() as work:
        await change(work)
    assert await count(store) is None
    assert (await left(store))[1] == 1


@pytest.mark.parametrize("other", [{"owner": "bob"}, {"tenant": "else"}, {"expires_at": None}, {"id": "another"}])
async def test_nothing_is_counted_with_a_pair_that_was_remembered_otherwise(
    store: KeyStore, other: dict[str, Any]
) -> None:
    await keep(store)
    async with store.transaction() as work:
        await work.drop_owner_keys("", "ada")
        await add(work, replace(PAIR, **other))
    assert await count(store) is None


async def test_of_many_attempts_at_once_no_more_are_counted_than_are_free(store: KeyStore) -> None:
    await keep(store)
    attempts = await asyncio.gather(*(count(store) for _ in range(20)))
    assert sorted(each.counted for each in attempts if each is not None) == [1, 2, 3, 4]
    assert (await left(store))[1] == BELOW - 1


async def test_success_forgives_what_was_counted_up_to_it_and_nothing_after(store: KeyStore) -> None:
    await keep(store)
    attempts = [await counted(store) for _ in range(3)]
    assert await forgive(store, attempts[1])
    secret, entries = await left(store)
    assert secret == replace(attempts[2], cleared=2, verified_at=NOW)
    assert entries == 4
    # A slower one that was counted earlier takes nothing back.
    assert await forgive(store, attempts[0], b"2" * 32)
    assert (await left(store))[0].cleared == 2


async def test_a_ciphertext_succeeds_once_and_forgives_nothing_again(store: KeyStore) -> None:
    await keep(store)
    assert await forgive(store, await counted(store))
    again = await counted(store)
    with pytest.raises(ReplayedError):
        await forgive(store, again)
    secret, entries = await left(store)
    assert (secret.failures, entries) == (1, 3)


async def test_of_one_ciphertext_sent_many_times_at_once_one_succeeds(store: KeyStore) -> None:
    await keep(store)
    credential = await counted(store)
    outcomes = await asyncio.gather(*(forgive(store, credential) for _ in range(8)), return_exceptions=True)
    assert sorted(map(str, outcomes))[0] == "True"
    assert sum(isinstance(each, ReplayedError) for each in outcomes) == 7
    assert (await left(store))[1] == 2


async def test_of_many_ciphertexts_at_once_each_succeeds(store: KeyStore) -> None:
    await keep(store)
    attempts = [await counted(store) for _ in range(4)]
    done = await asyncio.gather(*(forgive(store, each, bytes([place]) * 32) for place, each in enumerate(attempts)))
    secret, entries = await left(store)
    assert (done, secret.failures, entries) == ([True] * 4, 0, 8)


async def test_who_gave_a_secret_that_was_replaced_meanwhile_forgives_and_spends_nothing(store: KeyStore) -> None:
    await keep(store)
    before = await counted(store)
    await keep(store, "two", "one")
    assert not await forgive(store, before)
    after = await counted(store)
    assert (await left(store)) == (after, 2)
    assert await forgive(store, after), "the ciphertext is still good"


async def test_a_lock_is_over_once_few_enough_have_failed(store: KeyStore) -> None:
    await keep(store)
    attempts = [await counted(store) for _ in range(4)]
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    assert await forgive(store, attempts[0])
    assert (await left(store))[0].locked_until is None


@pytest.fixture
def quick_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ROW_LIMIT", engines.ROW_LIMIT.replace(str(engines.LOCK_TIMEOUT_MS), "50"))


async def test_a_row_that_somebody_holds_is_not_waited_for_for_ever(
    postgres_url: str, quick_to_give_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Built anew, with that.
    monkeypatch.setattr(secret_writes, "_COUNT_WITH_ENTRY", prepared.Prepared(secret_writes._count_with_entry))
    migrate(postgres_url)
    store, other = SqlKeyStore(postgres_url), SqlKeyStore(postgres_url)
    await keep(store)
    assert await count(store) is not None
    async with other.transaction() as work:
        await work.count_attempt(**ADA, now=NOW)
        with pytest.raises(StoreUnavailableError, match="locked"):
            await count(store)
    assert await count(store) is not None
    await other.aclose()
    await store.aclose()


async def test_a_schema_of_its_own_has_its_own_secrets(postgres_url: str) -> None:
    migrate(postgres_url, schema="keys_of_app")
    store = SqlKeyStore(postgres_url, schema="keys_of_app")
    await keep(store)
    attempts = [await counted(store) for _ in range(2)]
    assert [await forgive(store, each, bytes([place]) * 32) for place, each in enumerate(attempts)] == [True, True]
    secret, entries = await left(store)
    assert (secret.failures, entries) == (0, 4)
    await store.aclose()


async def test_what_is_written_at_once_is_on_disk_whatever_the_session_says(postgres_url: str) -> None:
    """The statement itself sees to it, as the beginning of a transaction does elsewhere."""
    migrate(postgres_url)
    store = SqlKeyStore(postgres_url)
    await keep(store)
    async with store.transaction() as work:
        await work._connection.execute(text("SET SESSION synchronous_commit = off"))
    async with store._connections.begin(is_writing=True, is_one=True) as connection:
        told = f"SELECT {engines.LASTING}, current_setting('synchronous_commit')"
        assert (await connection.execute(text(told))).one()[1] == "on"
    async with store._connections.begin(is_writing=False) as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar_one() == "off"
    await store.aclose()
