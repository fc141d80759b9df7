"""Databases as the Go reference left them, in both of its table layouts, on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import create_engine, text

from tests.crypto.vectors import load

VECTORS: Final = load("legacy.json")
ROOT: Final = bytes.fromhex(VECTORS["wrapped_key"]["root_key"])
WRAPPED: Final = bytes.fromhex(VECTORS["wrapped_key"]["wrapped"])
KEY: Final = bytes.fromhex(VECTORS["data_key"])
PLAINTEXT: Final = bytes.fromhex(VECTORS["plaintext"])
VERSION: Final[str] = VECTORS["field"]["version"]
SEED, SALT, ITERATIONS = "test-seed", "test-salt", 10_000
FIRST: Final = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

LAYOUTS: Final = ("data_keys", "kms_data_keys", "guide")
_TYPES: Final = {
    "sqlite": {"blob": "BLOB", "time": "DATETIME", "json": "TEXT"},
    "postgresql": {"blob": "BYTEA", "time": "TIMESTAMPTZ", "json": "JSONB"},
}
_TABLES: Final = {
    "data_keys": """CREATE TABLE data_keys (id VARCHAR(255) PRIMARY KEY, version VARCHAR(255) NOT NULL UNIQUE,
        algorithm VARCHAR(50) NOT NULL, key_data {blob}, encrypted_key {blob} NOT NULL, created_at {time} NOT NULL,
        expires_at {time} NOT NULL, is_active BOOLEAN DEFAULT false)""",
    "kms_data_keys": """CREATE TABLE kms_data_keys (id VARCHAR(36) PRIMARY KEY, version INTEGER NOT NULL,
        algorithm VARCHAR(50) DEFAULT 'AES-256-GCM', encrypted_key {blob} NOT NULL, key_hash VARCHAR(64) NOT NULL,
        status VARCHAR(20) DEFAULT 'active', created_at {time}, updated_at {time}, expires_at {time},
        metadata {json})""",
    "guide": """CREATE TABLE kms_data_keys (id VARCHAR(36) PRIMARY KEY, version VARCHAR(50) UNIQUE,
        algorithm VARCHAR(50), encrypted_key {blob} NOT NULL, key_hash VARCHAR(64), is_active BOOLEAN,
        created_at {time}, expires_at {time})""",
}
_COLUMNS: Final = {
    "data_keys": ("id", "version", "algorithm", "key_data", "encrypted_key", "created_at", "expires_at", "is_active"),
    "kms_data_keys": ("id", "version", "encrypted_key", "key_hash", "status", "created_at", "expires_at"),
    "guide": ("id", "version", "algorithm", "encrypted_key", "key_hash", "is_active", "created_at", "expires_at"),
}


@dataclass(frozen=True)
class OldKey:
    """A row to write; by default the one of the vectors."""

    version: str = VERSION
    key: bytes = KEY
    wrapped: bytes = WRAPPED
    clear: bytes | None = None
    created_at: Any = FIRST
    status: str = "inactive"


def old_keys(count: int, layout: str = "data_keys", *, root: bytes = ROOT, exposed: bool = False) -> list[OldKey]:
    """Return ``count`` different keys, a day apart, oldest first."""
    keys = []
    for number in range(1, count + 1):
        key = hashlib.sha256(b"old test key %d" % number).digest()
        nonce = number.to_bytes(12, "big")
        keys.append(
            OldKey(
                str(number) if layout == "kms_data_keys" else f"v{1_700_000_000_000_000_000 + number}",
                key,
                nonce + AESGCM(root).encrypt(nonce, key, None),
                key if exposed else None,
                FIRST + timedelta(days=number),
            )
        )
    return keys


def build(url: str, layout: str, keys: Sequence[OldKey]) -> None:
    """Make a table of ``layout`` with ``keys`` at ``url``."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text(_TABLES[layout].format(**_TYPES[engine.dialect.name])))
        names = _COLUMNS[layout]
        table = "data_keys" if layout == "data_keys" else "kms_data_keys"
        insert = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
        for number, key in enumerate(keys):
            expires = key.created_at + timedelta(days=1) if isinstance(key.created_at, datetime) else None
            values = {
                "id": f"00000000-0000-4000-8000-{number:012}",
                "version": int(key.version) if layout == "kms_data_keys" else key.version,
                "algorithm": "AES-256-GCM",
                "key_data": key.clear,
                "encrypted_key": key.wrapped,
                "key_hash": hashlib.sha256(key.key).hexdigest(),
                "status": key.status,
                "is_active": number == len(keys) - 1,
                "created_at": _moment(engine.dialect.name, key.created_at),
                "expires_at": _moment(engine.dialect.name, expires or FIRST),
            }
            connection.execute(text(insert), {name: values[name] for name in names})
    engine.dispose()


def rows(url: str, table: str) -> list[tuple[Any, ...]]:
    """Return the table's rows as they stand."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY id"))]
    engine.dispose()
    return found


def old_text(key: OldKey, plaintext: bytes = PLAINTEXT, nonce: bytes = bytes(12)) -> str:
    """Return a field as the reference stored it under ``key``."""
    return f"{key.version}:AES-256-GCM:{(nonce + AESGCM(key.key).encrypt(nonce, plaintext, None)).hex()}"


def _moment(dialect: str, value: Any) -> Any:
    if dialect == "sqlite" and isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f") + "789+00:00"
    return value
