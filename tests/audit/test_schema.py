"""The tables of the trail: how a store of an earlier release gets them, and who may do what with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from keystead.errors import SchemaVersionError, StorageOperationError
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores import open_store, schema
from keystead.stores.schema import grants, migrate
from tests.audit.places import KEK, Place, options, seal
from tests.fakes.clock import FakeClock
from tests.stores.records import older_store

pytestmark = pytest.mark.usefixtures("by_alembic")


@pytest.fixture(params=["sqlite", "postgresql"])
def older_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the last release that knew no trail."""
    return older_store(request, tmp_path, "0003")


async def test_a_store_of_an_earlier_release_is_migrated_and_keeps_no_trail_until_one_is_begun(older_url: str) -> None:
    migrate(older_url)
    place = Place(older_url)
    async with place.open(audit=None) as km:
        sealed = km.local_encrypt(b"before")
        assert not (await km.audit.status()).is_on
    async with place.open(audit=options()) as km:
        assert km.local_decrypt(sealed) == b"before"
        await seal(km)
        [begun] = await km.audit.entries(action="audit.begin")
        told = {(key["keyring"], key["version"]) for key in begun.keys}
        assert told == {("default", 1), ("keystead.audit", 1), ("keystead.index", 1), ("keystead.wrap", 1)}
        assert (await km.audit.verify(compares_store=True)).valid


async def test_a_release_that_knows_no_trail_works_on_until_one_is_begun(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(audit=None):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISIONS", ("0001", "0002", "0003"))
        patch.setattr(schema, "HEAD", "0003")
        store = open_store(place.url)
        await store.open()
        await store.aclose()
    async with place.open(audit=options()):
        pass
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002", "0003"))
    monkeypatch.setattr(schema, "HEAD", "0003")
    store = open_store(place.url)
    with pytest.raises(SchemaVersionError):
        await store.open()
    await store.aclose()


@pytest.mark.parametrize("column", ["line", "action", "seq"])
async def test_a_record_never_changes(place: Place, column: str) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        with pytest.raises(Exception, match="never change"):
            place.execute(f"UPDATE audit_log SET {column} = {column}")


@pytest.fixture
def roles(postgres_url: str) -> Iterator[tuple[Place, Place]]:
    """A store as its application and as its archiver see it."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE keystead_app LOGIN")
        owner.execute("CREATE ROLE keystead_archiver LOGIN")
        migrate(postgres_url)
        owner.execute(grants("keystead_app", archiver="keystead_archiver").encode())
        yield tuple(Place(postgres_url.replace("postgres@", f"keystead_{name}@")) for name in ("app", "archiver"))  # type: ignore[misc]
        owner.execute("DROP OWNED BY keystead_app, keystead_archiver CASCADE")
        owner.execute("DROP ROLE keystead_app, keystead_archiver")


async def test_the_application_writes_and_seals_and_only_the_archiver_deletes(
    roles: tuple[Place, Place], clock: FakeClock, tmp_path: Path
) -> None:
    application, archiver = roles
    async with application.open(audit=options(), clock=clock, grace_s=None) as km:
        await km.audit.record("order.paid")
        await seal(km)
        clock.advance(86_400)
        await km.audit.record("order.paid")
        await km.audit.checkpoint()
        clock.advance(9 * 86_400)
        with pytest.raises(StorageOperationError):
            await km.audit.archive(tmp_path / "old", before=clock.now())
        assert (await km.audit.verify()).valid
    for forbidden in ("DELETE FROM audit_log", "TRUNCATE audit_log", "UPDATE audit_entries SET code = code"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute(forbidden)
    providers = {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
    async with archiver.open(audit=options(), clock=clock, grace_s=None, providers=providers) as km:
        taken = await km.audit.archive(tmp_path / "old", before=clock.now())
        assert taken.files
        assert (await km.audit.verify(archive=tmp_path / "old")).valid


def test_grants_without_an_archiver_let_nobody_delete_records() -> None:
    assert 'DELETE ON "public"."audit_log"' not in grants("app")
    assert 'GRANT DELETE ON "public"."audit_log" TO "keeper"' in grants("app", archiver="keeper")
