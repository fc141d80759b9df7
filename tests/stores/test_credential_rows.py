"""Secrets of users: attempts counted exactly, hashes that two never replace, and ciphertexts spent once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from keystead.ports import CredentialRecord, KeyStore, SecretKind
from keystead.stores import open_store
from keystead.stores.schema import migrate

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ADA: Final[dict[str, Any]] = {"tenant": "", "user_id": "ada", "kind": SecretKind.PASSCODE}
PIN: Final[dict[str, Any]] = {**ADA, "kind": SecretKind.TRANSACTION_PIN}


async def count(store: KeyStore, now: datetime = NOW) -> CredentialRecord | None:
    async with store.transaction() as work:
        return await work.count_attempt(**ADA, now=now)


async def found(store: KeyStore, secret: dict[str, Any] = ADA) -> CredentialRecord | None:
    async with store.reading() as work:
        return await work.find_credential(**secret)


async def keep(store: KeyStore, text: str, instead_of: str | None = None) -> bool:
    async with store.transaction() as work:
        return await work.set_credential(**ADA, hashed=(text, 7), at=NOW, instead_of=instead_of)


async def clear(store: KeyStore, credential: CredentialRecord, **options: Any) -> bool:
    async with store.transaction() as work:
        return await work.clear_attempts(credential, below=5, verified_at=NOW, **options)


async def test_what_was_put_in_comes_out_and_each_kind_is_for_itself(store: KeyStore) -> None:
    assert await found(store) is None
    assert await keep(store, "one")
    assert await found(store) == CredentialRecord(**ADA, hash="one", pepper_id=7, set_at=NOW)
    assert await found(store, PIN) is None
    assert await found(store, {**ADA, "tenant": "north"}) is None


async def test_attempts_on_a_secret_that_was_never_set_are_counted_too(store: KeyStore) -> None:
    assert [(await count(store)), (await count(store))] == [
        CredentialRecord(**ADA, counted=1),
        CredentialRecord(**ADA, counted=2),
    ]


async def test_of_many_attempts_at_once_each_is_counted_once(store: KeyStore) -> None:
    counted = await asyncio.gather(*(count(store) for _ in range(20)))
    assert sorted(each.counted for each in counted if each is not None) == list(range(1, 21))


async def test_a_locked_secret_counts_nothing_until_its_time_is_over(store: KeyStore) -> None:
    await count(store)
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    assert await count(store) is None
    assert await count(store, NOW + MINUTE - timedelta(microseconds=1)) is None
    counted = await count(store, NOW + MINUTE)
    assert counted is not None
    assert counted.counted == 2


async def test_success_forgives_what_was_counted_up_to_it_and_nothing_after(store: KeyStore) -> None:
    await keep(store, "one")
    attempts = [await count(store) for _ in range(7)]
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    first, third = attempts[0], attempts[2]
    assert first is not None
    assert third is not None
    # Six are left: still locked.
    assert await clear(store, first)
    left = await found(store)
    assert left is not None
    assert (left.failures, left.locked_until, left.verified_at) == (6, NOW + MINUTE, NOW)
    assert await clear(store, third)
    # A slower one that was counted earlier takes nothing back.
    assert await clear(store, first)
    left = await found(store)
    assert left is not None
    assert (left.failures, left.counted, left.cleared, left.locked_until) == (4, 7, 3, None)


async def test_who_gave_a_secret_that_was_replaced_meanwhile_forgives_nothing(store: KeyStore) -> None:
    await keep(store, "one")
    counted = await count(store)
    assert counted is not None
    assert await keep(store, "two", "one")
    after = await count(store)
    assert not await clear(store, counted)
    assert await found(store) == after


async def test_a_renewed_hash_is_kept_with_its_pepper(store: KeyStore) -> None:
    await keep(store, "one")
    counted = await count(store)
    assert counted is not None
    assert await clear(store, counted, renewed=("better", 8))
    left = await found(store)
    assert left == replace(counted, hash="better", pepper_id=8, cleared=1, verified_at=NOW)
    async with store.reading() as work:
        assert [await work.count_credentials(pepper) for pepper in (7, 8)] == [0, 1]


async def test_of_many_who_set_a_secret_at_once_one_does(store: KeyStore) -> None:
    assert sum(await asyncio.gather(*(keep(store, str(number)) for number in range(9)))) == 1
    kept = await found(store)
    assert kept is not None
    assert sum(await asyncio.gather(*(keep(store, f"new {number}", kept.hash) for number in range(9)))) == 1
    assert not await keep(store, "one more", kept.hash)
    assert not await keep(store, "one more")


async def test_a_new_secret_forgives_and_unlocks(store: KeyStore) -> None:
    await count(store)
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    assert await keep(store, "one")
    left = await found(store)
    assert left == CredentialRecord(**ADA, hash="one", pepper_id=7, counted=1, cleared=1, set_at=NOW)


async def test_a_users_secrets_are_removed_together(store: KeyStore) -> None:
    await keep(store, "one")
    async with store.transaction() as work:
        await work.count_attempt(**PIN, now=NOW)
        await work.count_attempt(**{**ADA, "user_id": "bob"}, now=NOW)
    async with store.transaction() as work:
        assert await work.drop_credentials("", "ada") == 2
    assert (await found(store), await found(store, PIN)) == (None, None)
    assert await found(store, {**ADA, "user_id": "bob"}) is not None


@pytest.mark.parametrize("at_once", [1, 9])
async def test_a_ciphertext_is_spent_once(store: KeyStore, at_once: int) -> None:
    async def spend(key_id: str = "key_1", digest: bytes = bytes(32)) -> bool:
        async with store.transaction() as work:
            return await work.spend(key_id, digest, until=NOW + MINUTE)

    assert sum(await asyncio.gather(*(spend() for _ in range(at_once)))) == 1
    assert not await spend()
    assert await spend("key_2")
    assert await spend(digest=b"\x01" * 32)


async def test_spent_ciphertexts_are_forgotten_when_their_time_is_over_or_their_key_goes(store: KeyStore) -> None:
    async with store.transaction() as work:
        for number in range(6):
            await work.spend(f"key_{number // 3}", bytes([number] * 32), until=NOW + number * MINUTE)
        assert await work.drop_spent(NOW + MINUTE, limit=1) == 1
        assert await work.drop_spent(NOW + MINUTE, limit=9) == 1
        assert await work.drop_spent(NOW + MINUTE, limit=9) == 0
        await work.drop_spent_of(["key_1", "key_7"])
        await work.drop_spent_of([])
        unspent = [await work.spend(f"key_{number // 3}", bytes([number] * 32), until=NOW) for number in range(6)]
    assert unspent == [True, True, False, True, True, True]


async def test_who_guesses_at_a_locked_secret_waits_for_nobody(postgres_url: str) -> None:
    migrate(postgres_url)
    store = open_store(postgres_url)
    await count(store)
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + 2 * MINUTE)
        async with asyncio.timeout(5):
            assert await count(store) is None
    await store.aclose()


async def test_what_is_locked_now_is_listed_for_its_tenant_by_pages(store: KeyStore) -> None:
    async def locked(tenant: str, after: tuple[datetime, str, str] | None = None) -> list[CredentialRecord]:
        async with store.reading() as work:
            return await work.locked_credentials(tenant, NOW, after=after, limit=2)

    for tenant, user, minutes in (("", "cy", 2), ("", "bo", 2), ("", "ada", 3), ("", "over", 0), ("north", "dee", 1)):
        secret: dict[str, Any] = {"tenant": tenant, "user_id": user, "kind": SecretKind.PASSCODE}
        async with store.transaction() as work:
            await work.count_attempt(**secret, now=NOW)
            await work.lock_credential(**secret, until=NOW + minutes * MINUTE)
    await count(store, NOW + 10 * MINUTE)
    first = await locked("")
    assert [each.user_id for each in first] == ["bo", "cy"]
    assert first[1].locked_until is not None
    second = await locked("", (first[1].locked_until, "cy", "passcode"))
    assert [each.user_id for each in second] == ["ada"]
    # The last one of a page may be free by the time that the next page is asked for.
    assert [each.user_id for each in await locked("", (NOW - MINUTE, "zed", "pin"))] == ["bo", "cy"]
    assert [each.user_id for each in await locked("north")] == ["dee"]


async def test_a_lock_that_is_released_forgives_what_has_failed_and_leaves_the_secret(store: KeyStore) -> None:
    async def release() -> bool:
        async with store.transaction() as work:
            return await work.release_credential(**ADA, now=NOW)

    await keep(store, "one")
    await count(store)
    assert not await release()
    async with store.transaction() as work:
        await work.lock_credential(**ADA, until=NOW + MINUTE)
    assert await release()
    assert await found(store) == CredentialRecord(**ADA, hash="one", pepper_id=7, set_at=NOW, counted=1, cleared=1)
    assert not await release()
