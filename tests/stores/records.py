"""Rows for tests. The wrapped keys are plain filler: no key is in them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord, utc_text
from keystead.ports import KeyStore
from keystead.stores import schema
from keystead.stores.engines import IS_WRITING, sync_engine
from keystead.stores.urls import parse_url

FILLER = b"not a key, only filler as long as a wrapped key would be"
CREATED = datetime(2030, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)


def keyring(name: str = "default", **given: Any) -> KeyringRecord:
    values: dict[str, Any] = {
        "purpose": KeyringPurpose.ENCRYPT,
        "algorithm": "AES-256-GCM",
        "wrap_keyring": "keystead.wrap",
        "created_at": CREATED,
    }
    return KeyringRecord(name, **(values | given))


def data_key(**given: Any) -> KeyRecord:
    values: dict[str, Any] = {
        "id": random.randrange(1, 2**63),
        "keyring": "default",
        "version": 1,
        "purpose": KeyringPurpose.ENCRYPT,
        "state": DataKeyState.ACTIVE,
        "algorithm": "AES-256-GCM",
        "wrapped_key": FILLER,
        "created": utc_text(CREATED),
        "wrapped_by": 77,
    }
    return KeyRecord(**(values | given))


async def fill(store: KeyStore, *keys: KeyRecord) -> None:
    """Add the keys, and the keyrings they are of."""
    async with store.transaction() as work:
        for name in {key.keyring for key in keys} | {"default"}:
            await work.add_keyring(keyring(name))
        for key in keys:
            await work.add_key(key)


def older_store(request: pytest.FixtureRequest, folder: Path, revision: str) -> str:
    """Return the URL of a store as an earlier release made it, in the database that the fixture's parameter names."""
    url: str = f"sqlite:///{folder}/keys.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    migrate_to(url, revision)
    return url


def migrate_to(url: str, revision: str) -> None:
    """Make the schema as an earlier release did."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch(mode=0o600)
    with sync_engine(parse_url(url)).connect() as connection:
        writing = connection.execution_options(**{IS_WRITING: True})
        with writing.begin():
            command.upgrade(schema._alembic({"connection": writing, "schema": None}), revision)


def fill_older(url: str, key_id: int = 1) -> None:
    """Add the default keyring with one key, and where one of its ciphertexts lie, as an earlier release did."""
    created = utc_text(CREATED)
    statements = (
        f"INSERT INTO keyrings VALUES ('default', 'encrypt', 'AES-256-GCM', 'keystead.wrap', 2, '{created}')",
        "INSERT INTO data_keys (id, keyring, version, purpose, state, algorithm, wrapped_key, context, created, "
        f"published_epoch, messages, bytes) VALUES ({key_id}, 'default', 1, 'encrypt', 'active', 'AES-256-GCM', "
        f":filler, '{{}}', '{created}', 1, 0, 0)",
        "INSERT INTO key_uses (keyring, name, locator) VALUES ('default', 'people', 'app:people')",
    )
    with sync_engine(parse_url(url)).connect() as connection:
        writing = connection.execution_options(**{IS_WRITING: True})
        with writing.begin():
            for statement in statements:
                given = {"filler": FILLER} if ":filler" in statement else {}
                writing.execute(text(statement), given)
