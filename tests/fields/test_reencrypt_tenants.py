"""Re-encryption of rows whose tenants have keyrings of their own, and the destruction of those keys afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.errors import KeyInUseError
from keystead.fields import Field, reencrypt
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from tests.fakes.world import World
from tests.fields.application import Application, address, before_the_write

TENANTED = Field("people", "email", tenant="org", keyring="people-{tenant}")


async def test_each_tenants_rows_stay_under_its_keyring(world: World, app: Application) -> None:
    async with world.open() as km:
        await km.load_fields(TENANTED, tenants=["acme", "umbra"])
        cipher = km.field(TENANTED)
        app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, org TEXT, email BYTES)")
        orgs = {n: ("acme", "umbra")[n % 2] for n in range(1, 11)}
        app.fill(
            "INSERT INTO people VALUES (:a, :b, :c)",
            [(n, org, cipher.encrypt(address(n), record=n, tenant=org)) for n, org in orgs.items()],
        )
        app.fill("INSERT INTO people VALUES (:a, :b, :c)", [(11, None, cipher.encrypt("x", record=11, tenant="acme"))])
        await (await km.keyring("people-acme")).rotate(promote="now")
        report = await reencrypt(km, app.url, TENANTED, batch_rows=3)
        assert (report.rewritten, report.skipped, report.failed) == (5, 5, 1)
        assert [failure.reason for failure in report.failures] == ["invalid_input"]
        for n, org, blob in app.rows("SELECT id, org, email FROM people WHERE org IS NOT NULL"):
            assert cipher.decrypt(blob, record=n, tenant=org) == address(n)
            assert not cipher.needs_reencrypt(blob, tenant=org)


async def fill_tenants(km: KeyManager, app: Application) -> None:
    """Make a table with four rows of each of two tenants."""
    await km.load_fields(TENANTED, tenants=["acme", "umbra"])
    app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, org TEXT, email BYTES)")
    orgs = {n: ("acme", "umbra")[n % 2] for n in range(1, 9)}
    cipher = km.field(TENANTED)
    sealed = [(n, org, cipher.encrypt(address(n), record=n, tenant=org)) for n, org in orgs.items()]
    app.fill("INSERT INTO people VALUES (:a, :b, :c)", sealed)


@pytest.mark.parametrize("encrypts_null", [False, True])
async def test_a_row_in_clear_that_another_tenant_got_meanwhile_is_sealed_for_that_one(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch, *, encrypts_null: bool
) -> None:
    field = replace(TENANTED, record="row", encrypt_null=encrypts_null)
    async with world.open() as km:
        await km.load_fields(field, tenants=["acme", "ACME"])
        collation = "COLLATE NOCASE" if app.is_sqlite else ""
        app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, row BIGINT, org TEXT {collation}, email BYTES, t TEXT)")
        app.fill(
            "INSERT INTO people VALUES (:a, :a, 'acme', NULL, :b)",
            [(n, None if encrypts_null else address(n)) for n in range(1, 5)],
        )

        def move() -> None:
            app.run("UPDATE people SET org = 'ACME' WHERE id = 2", "UPDATE people SET row = 9 WHERE id = 3")

        before_the_write(monkeypatch, move)
        report = await reencrypt(km, app.url, field, plaintext_column="t")
        assert (report.rewritten, report.contended, report.failed) == (4, 2, 0)
        cipher = km.field(field)
        for n, row, org, blob in app.rows("SELECT id, row, org, email FROM people"):
            assert cipher.decrypt(blob, record=row, tenant=org) == (None if encrypts_null else address(n))


async def test_a_tenants_version_is_destroyed_only_once_no_row_is_under_it(world: World, app: Application) -> None:
    async with world.open() as km:
        await fill_tenants(km, app)
        await km.register_field(TENANTED, app.url)
        for tenant in ("acme", "umbra"):
            await (await km.keyring(f"people-{tenant}")).rotate(promote="now")
        old = [(await world.rows(f"people-{tenant}"))[0].id for tenant in ("acme", "umbra")]
        for key in old:
            with pytest.raises(KeyInUseError, match=r"field:people\.email \(4\)"):
                await admin.schedule_destroy(km, key)
        app.run("DELETE FROM people WHERE org = 'umbra'")
        await admin.schedule_destroy(km, old[1])
        with pytest.raises(KeyInUseError):
            await admin.schedule_destroy(km, old[0])
        await reencrypt(km, app.url, TENANTED)
        await admin.schedule_destroy(km, old[0])


async def test_values_move_from_keyrings_of_tenants_which_are_looked_for_until_then(
    world: World, app: Application
) -> None:
    moved = replace(TENANTED, keyring="newer-{tenant}", former_keyrings=("people-{tenant}",))
    async with world.open() as km:
        await fill_tenants(km, app)
        await km.register_field(moved, app.url)
        for tenant in ("acme", "umbra"):
            await (await km.keyring(f"people-{tenant}")).rotate(promote="now")
        [old, _] = await world.rows("people-acme")
        with pytest.raises(KeyInUseError):
            await admin.schedule_destroy(km, old.id)
    async with world.open() as km:
        report = await reencrypt(km, app.url, moved, batch_rows=3)
        assert (report.rewritten, report.failed) == (8, 0)
        await admin.schedule_destroy(km, old.id)
        cipher = km.field(replace(moved, former_keyrings=()))
        for n, org, blob in app.rows("SELECT id, org, email FROM people"):
            assert cipher.decrypt(blob, record=n, tenant=org) == address(n)
