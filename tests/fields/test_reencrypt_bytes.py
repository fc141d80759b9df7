"""Text that is no UTF-8, which SQLite takes into any column: its rows fail, and the others are re-encrypted."""

from __future__ import annotations

import pytest

from keystead.errors import StorageOperationError
from keystead.fields import Field, reencrypt
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address

NO_TEXT = "CAST(X'61FF' AS TEXT)"
TENANTED = Field("people", "email", tenant="org")
TENANT_KEYS = Field("people", "email", tenant="org", keyring="people-{tenant}")
NAMED = Field("people", "email", record=("name",))


@pytest.mark.parametrize(
    ("field", "column"), [(EMAIL, "email"), (TENANTED, "org"), (TENANT_KEYS, "org"), (NAMED, "name")]
)
async def test_one_row_fails_by_itself(world: World, sqlite_app: Application, field: Field, column: str) -> None:
    tenant = None if field.tenant is None else "acme"
    async with world.open() as km:
        await km.load_fields(field, tenants=[tenant] if field.has_keyring_per_tenant and tenant else [])
        cipher = km.field(field)
        sqlite_app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT, org TEXT, email BYTES)")
        records = {n: f"name{n}" if field is NAMED else n for n in range(1, 8)}
        sqlite_app.fill(
            "INSERT INTO people VALUES (:a, :b, 'acme', :c)",
            [(n, f"name{n}", cipher.encrypt(address(n), record=name, tenant=tenant)) for n, name in records.items()],
        )
        sqlite_app.run(f"UPDATE people SET {column} = {NO_TEXT} WHERE id = 4")
        await (await km.keyring(field.keyring_of(tenant))).rotate(promote="now")
        report = await reencrypt(km, sqlite_app.url, field, batch_rows=3)
        assert (report.rewritten, report.failed) == (6, 1)
        reason = "invalid_ciphertext" if column == "email" else "invalid_input"
        assert [(failure.key, failure.reason) for failure in report.failures] == [("[4]", reason)]
        for n, blob in sqlite_app.rows("SELECT id, email FROM people WHERE id <> 4"):
            assert cipher.decrypt(blob, record=records[n], tenant=tenant) == address(n)
            assert not cipher.needs_reencrypt(blob, tenant=tenant)


async def test_a_key_that_cannot_be_named_is_told_with_what_to_do(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        cipher = km.field(EMAIL)
        sqlite_app.run("CREATE TABLE people (id INTEGER, name TEXT PRIMARY KEY NOT NULL, email BYTES)")
        rows = [(n, f"name{n}", cipher.encrypt(address(n), record=n)) for n in range(1, 8)]
        sqlite_app.fill("INSERT INTO people VALUES (:a, :b, :c)", rows)
        sqlite_app.run(f"UPDATE people SET name = {NO_TEXT} WHERE id = 4")
        await km.rotate_data_key(promote="now")
        with pytest.raises(
            StorageOperationError, match=r"'people' has text in its key that is not UTF-8.*write the key"
        ):
            await reencrypt(km, sqlite_app.url, Field("people", "email", record=("id",)), batch_rows=3)
