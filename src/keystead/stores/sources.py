"""Looking through declared data sources for ciphertexts of given data keys, before a key is destroyed.

A source that cannot be read in full is an error, never "no hits". What is looked for is the beginning of an envelope
(docs/spec/envelope-v1.md): magic, suite and data key id, as bytes or as the ``ks1.`` text, anywhere in a file or a
value. Compressed or otherwise encoded data cannot be looked through: such a source is declared as ``app:<name>``.

``file:<glob>``
    Every file that the pattern names; ``**`` names folders at any depth.
``sql:<url>#<table>.<column>`` or ``sql:<url>#<schema>.<table>.<column>``
    One column, of bytes, text or anything that casts to text, in an SQLite file or a PostgreSQL database.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    LargeBinary,
    Row,
    Text,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    table,
    text,
)
from sqlalchemy.exc import ProgrammingError

from keystead.crypto.envelope import (
    MAGIC,
    SUITE_AES_128_GCM,
    SUITE_AES_256_GCM,
    SUITE_CHACHA20_POLY1305,
    SUITE_STREAM,
    TEXT_PREFIX,
)
from keystead.errors import InvalidInputError, StorageOperationError
from keystead.stores.engines import sync_engine
from keystead.stores.failures import FORBIDDEN, ours_only
from keystead.stores.handles import open_handles
from keystead.stores.rows_sql import POSTGRES_PREPARED
from keystead.stores.urls import parse_url

_STARTS: Final = tuple(
    bytes((MAGIC, suite)) for suite in (SUITE_AES_256_GCM, SUITE_AES_128_GCM, SUITE_CHACHA20_POLY1305, SUITE_STREAM)
)
_HEADER: Final = re.compile(rb"(?=(?:%s)(.{8}))" % b"|".join(map(re.escape, _STARTS)), re.DOTALL)
_TOKEN: Final = re.compile(rb"(?=%s([A-Za-z0-9_-]{14}))" % re.escape(TEXT_PREFIX.encode()))
_LONGEST_MATCH: Final = 18
_CHUNK_BYTES: Final = 1 << 20
_KEYS_PER_QUERY: Final = 20
_NAME: Final = re.compile(r"[^\W\d][\w$ -]*")


async def scan(locator: str, key_ids: Collection[int]) -> dict[int, int]:
    """Return for each of ``key_ids`` how many ciphertexts (in a column: rows) name it, zeros included.

    Raises:
        InvalidInputError: the locator is malformed, or is one that only the application can look through.
        StorageOperationError: the source, or a part of it, is absent or cannot be read.
    """
    kind, _, place = locator.partition(":")
    if kind == "file" and place:
        return await asyncio.to_thread(_scan_files, place, frozenset(key_ids))
    if kind == "sql" and place:
        return await asyncio.to_thread(_scan_column, place, sorted(key_ids))
    if kind == "app":
        raise InvalidInputError(f"{locator!r} is looked through by the application itself; give its answer by option")
    raise InvalidInputError("a locator reads file:<glob>, sql:<url>#<table>.<column> or app:<name>")


def _scan_files(pattern: str, key_ids: frozenset[int]) -> dict[int, int]:
    hits = dict.fromkeys(key_ids, 0)
    files = 0
    try:
        for path in _matching(pattern):
            files += 1
            for key_id in _ids_in(path):
                if key_id in hits:
                    hits[key_id] += 1
    except OSError as failure:
        raise StorageOperationError(
            f"a file or folder of the source cannot be read ({failure.strerror}): {failure.filename}"
        ) from None
    if not files:
        raise StorageOperationError("the source names no file: correct it, or drop the use if its data is gone")
    return hits


def _ids_in(path: Path) -> Iterator[int]:
    if not path.is_file():
        raise StorageOperationError(f"the source names something that is not a regular file: {path}")
    with path.open("rb") as file:
        window = b""
        while True:
            chunk = file.read(_CHUNK_BYTES)
            window += chunk
            end = len(window) - _LONGEST_MATCH + 1 if chunk else len(window)
            for match in _HEADER.finditer(window):
                if match.start() < end:
                    yield int.from_bytes(match[1], "big")
            for match in _TOKEN.finditer(window):
                if match.start() < end:
                    yield int.from_bytes(base64.urlsafe_b64decode(match[1] + b"==")[2:10], "big")
            if not chunk:
                return
            window = window[max(end, 0) :]


def _matching(pattern: str) -> Iterator[Path]:
    """Walk the pattern; unlike ``glob``, raise for every folder that cannot be read, and see hidden files."""
    first, *rest = Path(pattern).parts
    start = Path(first) if Path(pattern).is_absolute() else Path()
    yield from _below(start, rest if Path(pattern).is_absolute() else [first, *rest], frozenset())


def _below(folder: Path, parts: list[str], seen: frozenset[str]) -> Iterator[Path]:
    part, *rest = parts
    if part == "**":
        real = os.path.realpath(folder)
        if real in seen:
            return
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            if entry.is_dir():
                yield from _below(Path(entry.path), parts, seen | {real})
        yield from _below(folder, rest or ["*"], seen | {real})
        return
    if not any(sign in part for sign in "*?["):
        path = folder / part
        if rest:
            yield from _below(path, rest, seen)
        elif not path.is_dir():
            yield path
        return
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        if not fnmatch.fnmatchcase(entry.name, part):
            continue
        if rest and entry.is_dir():
            yield from _below(Path(entry.path), rest, seen)
        elif not rest and not entry.is_dir():
            yield Path(entry.path)


def _scan_column(place: str, key_ids: list[int]) -> dict[int, int]:
    address, sign, target = place.rpartition("#")
    names = target.split(".")
    if not sign or len(names) not in (2, 3) or not all(_NAME.fullmatch(name) for name in names):
        raise InvalidInputError("an SQL source reads sql:<url>#<table>.<column>, with plain names")
    url = parse_url(address)
    if url.kind == "memory":
        raise InvalidInputError("a database in memory cannot be looked through from here")
    schema = names[0] if len(names) == 3 else url.schema
    target_column: ColumnElement[Any] = table(names[-2], column(names[-1]), schema=schema).c[names[-1]]
    with ours_only(), open_handles.transaction():
        return _count_rows(sync_engine(url), target_column, key_ids)


def _count_rows(engine: Engine, target: ColumnElement[Any], key_ids: list[int]) -> dict[int, int]:
    hits: dict[int, int] = {}
    is_postgresql = engine.dialect.name == "postgresql"
    contains = _postgresql_contains if is_postgresql else _sqlite_contains
    with engine.connect() as connection:
        if is_postgresql:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("SET LOCAL bytea_output = 'hex'"))
            # A row that a policy hides would be no hit: this makes it an error.
            connection.execute(text("SET LOCAL row_security = off"))
            _require_settled(connection, target)
        for at in range(0, len(key_ids), _KEYS_PER_QUERY):
            batch = key_ids[at : at + _KEYS_PER_QUERY]
            counts = [func.count().filter(contains(target, key_id)) for key_id in batch]
            row = _read(connection, select(*counts).select_from(target.table))
            hits |= dict(zip(batch, row, strict=True))
    return hits


def _require_settled(connection: Connection, target: ColumnElement[Any]) -> None:
    """Raise ``StorageOperationError`` where rows may come to be that nobody sees yet."""
    name = connection.dialect.identifier_preparer.format_table(target.table)
    if connection.exec_driver_sql(POSTGRES_PREPARED, (name,)).scalar_one():
        raise StorageOperationError(
            f"a transaction that wrote to {name} is prepared, and its rows cannot be seen: commit it or roll it back "
            "(pg_prepared_xacts names it)"
        )


def _read(connection: Connection, query: Executable) -> Row[Any]:
    try:
        return connection.execute(query).one()
    except ProgrammingError as failure:
        if getattr(failure.orig, "sqlstate", None) == FORBIDDEN:
            raise StorageOperationError(
                "the database role may not read every row of the source: grant it SELECT, and BYPASSRLS where the "
                "table has row-level security"
            ) from None
        raise


def _needles(key_id: int) -> tuple[list[bytes], list[bytes]]:
    """Return how an envelope of ``key_id`` begins: as bytes, and as text less the last two bits of the id."""
    binary = [start + key_id.to_bytes(8, "big") for start in _STARTS]
    return binary, [TEXT_PREFIX.encode() + base64.urlsafe_b64encode(each)[:13] for each in binary]


def _sqlite_contains(target: ColumnElement[Any], key_id: int) -> ColumnElement[bool]:
    binary, tokens = _needles(key_id)
    as_bytes = [func.instr(cast(target, LargeBinary), literal(each, LargeBinary)) > 0 for each in binary + tokens]
    # A database in UTF-16 casts text to bytes that hold no token in ASCII.
    as_text = [func.instr(cast(target, Text), each.decode()) > 0 for each in tokens]
    return or_(*as_bytes, *as_text)


def _postgresql_contains(target: ColumnElement[Any], key_id: int) -> ColumnElement[bool]:
    binary, tokens = _needles(key_id)
    as_text = [each.hex() for each in binary + tokens] + [each.decode() for each in tokens]
    return or_(*(func.strpos(cast(target, Text), each) > 0 for each in as_text))
