"""What somebody with write access to the database can do, and how it is noticed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from keystead.errors import DecryptionError, KeyDecryptionFailError, KeyNotFoundError, ProviderNotConfiguredError
from tests.fakes.world import World

WHICH = {
    "old": "keyring = 'default' AND version = 1",
    "active": "keyring = 'default' AND version = 2",
    "tenant": "keyring = 'tenant'",
    "wrap": "keyring = 'keystead.wrap'",
}


def alter(path: Path, *statements: str) -> None:
    """Run SQL with every trigger dropped and every constraint off."""
    database = sqlite3.connect(path)
    try:
        triggers = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        assert triggers
        for name in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert database.execute(statement).rowcount != 0, statement
        database.commit()
    finally:
        database.close()


def swap(one: str, two: str, columns: str = "wrapped_key") -> list[str]:
    """Exchange the values of columns of two rows."""
    named = columns.split(", ")
    copy = ", ".join(f"{name} AS {name}" for name in named)
    read = {which: f"(SELECT {{}} FROM swapped WHERE place = '{which}')" for which in (one, two)}

    def written(target: str, source: str) -> str:
        values = ", ".join(f"{name} = {read[source].format(name)}" for name in named)
        return f"UPDATE data_keys SET {values} WHERE {WHICH[target]}"

    return [
        f"CREATE TEMP TABLE swapped AS SELECT '{one}' AS place, {copy} FROM data_keys WHERE {WHICH[one]}"
        f" UNION ALL SELECT '{two}', {copy} FROM data_keys WHERE {WHICH[two]}",
        written(one, two),
        written(two, one),
    ]


class Store:
    """A store with an old and an active version of ``default``, and a tenant's."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.path = folder / "keys.db"
        self.url = f"sqlite:///{self.path}"

    async def fill(self) -> None:
        async with self.world.open(store=self.url) as km:
            self.old = km.local_encrypt(b"old")
            self.world.clock.advance(60)
            await km.rotate_data_key()
            self.world.clock.advance(60)
            self.new = km.local_encrypt(b"new")
            self.tenants = (await km.keyring("tenant")).local_encrypt(b"tenant")


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """A filled store that nobody has open."""
    made = Store(tmp_path)
    await made.fill()
    return made


IMMUTABLE = {
    "version": "version = 77",
    "purpose": "purpose = 'mac'",
    "algorithm": "algorithm = 'AES-256-GCM-STREAM'",
    "created": "created = '2031-01-01T00:00:00.000000Z'",
    "context": """context = '{"a":"b"}'""",
    "id": "id = id + 1",
    "wrapped_by": "wrapped_by = wrapped_by + 1",
    "wrapped_key": "wrapped_key = zeroblob(102)",
}


@pytest.mark.parametrize("changed", IMMUTABLE.values(), ids=IMMUTABLE)
async def test_an_altered_active_row_stops_the_start(store: Store, changed: str) -> None:
    alter(store.path, f"UPDATE data_keys SET {changed} WHERE {WHICH['active']}")
    with pytest.raises(KeyDecryptionFailError):
        async with store.world.open(store=store.url):
            pass


@pytest.mark.parametrize("changed", IMMUTABLE.values(), ids=IMMUTABLE)
async def test_an_altered_older_row_decrypts_nothing(store: Store, changed: str) -> None:
    alter(store.path, f"UPDATE data_keys SET {changed} WHERE {WHICH['old']}")
    async with store.world.open(store=store.url) as km:
        assert km.local_decrypt(store.new) == b"new"
        for _ in range(2):
            with pytest.raises(DecryptionError):
                await km.decrypt_local(store.old)


SWAPS = {
    "keys of one keyring": swap("old", "active"),
    "keys of two keyrings": swap("active", "tenant"),
    "keys and what wrapped them": swap("active", "tenant", "wrapped_key, wrapped_by"),
    "creation times": swap("active", "tenant", "created"),
    "all but id, keyring and version": swap("active", "tenant", "wrapped_key, wrapped_by, created, context"),
}


@pytest.mark.parametrize("statements", SWAPS.values(), ids=SWAPS)
async def test_swapped_rows_do_not_unwrap(store: Store, statements: list[str]) -> None:
    alter(store.path, *statements)
    with pytest.raises(KeyDecryptionFailError):
        async with store.world.open(store=store.url):
            pass


@pytest.mark.parametrize("changed", [value for name, value in IMMUTABLE.items() if name != "wrapped_by"])
async def test_an_altered_wrap_row_stops_the_start(store: Store, changed: str) -> None:
    alter(store.path, f"UPDATE data_keys SET {changed} WHERE {WHICH['wrap']}")
    with pytest.raises(KeyDecryptionFailError):
        async with store.world.open(store=store.url):
            pass


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("kek_provider = 'elsewhere'", ProviderNotConfiguredError),
        ("kek_key_id = 'other'", (KeyNotFoundError, KeyDecryptionFailError)),
        ("kek_algorithm = 'other'", KeyDecryptionFailError),
    ],
)
async def test_a_wrap_row_that_names_another_kek_stops_the_start(
    store: Store, changed: str, expected: type[Exception]
) -> None:
    alter(store.path, f"UPDATE data_keys SET {changed} WHERE {WHICH['wrap']}")
    with pytest.raises(expected):
        async with store.world.open(store=store.url):
            pass


async def test_a_key_moved_to_another_keyring_does_not_open_there(store: Store) -> None:
    alter(store.path, f"UPDATE data_keys SET keyring = 'tenant', version = 9 WHERE {WHICH['old']}")
    async with store.world.open(store=store.url) as km:
        with pytest.raises(KeyDecryptionFailError):
            await (await km.keyring("tenant")).decrypt_local(store.old)
        assert (await km.keyring("tenant")).local_decrypt(store.tenants) == b"tenant"


@pytest.mark.parametrize("changed", ["purpose = 'mac'", "algorithm = 'HMAC-SHA256'"])
async def test_an_altered_keyring_row_is_noticed(store: Store, changed: str) -> None:
    alter(store.path, f"UPDATE keyrings SET {changed} WHERE name = 'tenant'")
    async with store.world.open(store=store.url) as km:
        with pytest.raises(KeyDecryptionFailError, match="altered"):
            await km.keyring("tenant", create=False)


async def test_rows_of_another_store_do_not_unwrap(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = Store(other)
    second.world = store.world
    await second.fill()
    database = sqlite3.connect(second.path)
    wrapped = database.execute(f"SELECT wrapped_key FROM data_keys WHERE {WHICH['wrap']}").fetchone()[0].hex()
    database.close()
    alter(store.path, f"UPDATE data_keys SET wrapped_key = X'{wrapped}' WHERE {WHICH['wrap']}")
    with pytest.raises(KeyDecryptionFailError):
        async with store.world.open(store=store.url):
            pass


async def test_a_store_under_another_stores_id_does_not_unwrap(store: Store) -> None:
    alter(store.path, "UPDATE store_state SET store_id = '0123456789abcdef0123456789abcdef'")
    with pytest.raises(KeyDecryptionFailError):
        async with store.world.open(store=store.url):
            pass
