"""``bind(engine, km, Base)``: give an engine the keys of its encrypted columns, and see that they open it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, overload

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    LargeBinary,
    MetaData,
    func,
    inspect,
    select,
    type_coerce,
)
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapper, configure_mappers

from keystead import blocking
from keystead.crypto.envelope import MAGIC
from keystead.errors import ConfigurationError, DataKeyNotLoadedError, DecryptionError, InvalidInputError
from keystead.fields import Encrypted, Field, Importer
from keystead.integrations.sqlalchemy.binding import Binding, remember
from keystead.integrations.sqlalchemy.commit import watch_commits
from keystead.integrations.sqlalchemy.emptied import watch_savepoints
from keystead.integrations.sqlalchemy.guard import watch
from keystead.integrations.sqlalchemy.located import source_of
from keystead.integrations.sqlalchemy.misuse import watch_uses
from keystead.integrations.sqlalchemy.notes import watch_ends
from keystead.integrations.sqlalchemy.place import column_named, encrypted_columns
from keystead.manager.manager import KeyManager

T = TypeVar("T")
_Columns = list[tuple[Any, Field]]
_Probe = tuple[Field, Encrypted[Any], object, str | None]


@overload
def bind(engine: Engine, km: blocking.KeyManager, *sources: Any, database: str | None = None) -> Binding: ...
@overload
def bind(
    engine: Engine | AsyncEngine, km: KeyManager, *sources: Any, database: str | None = None
) -> Awaitable[Binding]: ...
def bind(
    engine: Engine | AsyncEngine, km: KeyManager | blocking.KeyManager, *sources: Any, database: str | None = None
) -> Binding | Awaitable[Binding]:
    """Give an engine the keys of its encrypted columns, once, when the application starts; awaited if ``km`` is async.

    Loads the keyrings of the fields and keeps them loaded, registers the fields in Keystead's store, and decrypts one
    row of each field that has any.

    Args:
        engine: every engine that reads or writes encrypted columns is bound.
        km: an initialised manager: ``keystead.KeyManager``, or ``keystead.blocking.KeyManager`` for a sync engine.
        sources: declarative bases, mapped classes, or MetaData.
        database: where other processes find the tables, where the engine does not tell: a URL, or ``app:<name>``; see
            ``km.register_field``. A database in memory needs none, and is not registered.

    Raises:
        ConfigurationError: no encrypted columns there, two of one id, an async engine with a blocking manager, a row
            that does not open, or a database whose place is not certain.
        KMSError: as ``km.load_fields`` and ``km.register_field``.
    """
    configure_mappers()
    columns = _declared(sources)
    binding = Binding(km, tuple(field for _, field in columns), _importers(engine, columns))
    if isinstance(km, blocking.KeyManager):
        if isinstance(engine, AsyncEngine):
            raise ConfigurationError("an async engine takes a keystead.KeyManager, which never blocks the event loop")
        return _bind(engine, km, binding, columns, database)
    return _bind_async(engine, km, binding, columns, database)


def _importers(engine: Engine | AsyncEngine, columns: _Columns) -> dict[str, Importer]:
    """Return the importers of columns that hold old values themselves, by the fields' ids.

    Raises:
        ConfigurationError: one would have to wait where nobody may.
    """
    found: dict[str, Importer] = {}
    for column, field in columns:
        declared = column.type.declaration
        importer = None if declared is None else declared.importer
        if importer is not None and importer.is_remote and isinstance(engine, AsyncEngine):
            raise ConfigurationError(
                f"field {field.id} has an importer of the form {importer.name}, which asks somebody for each value, "
                "and attributes of an async session wait for nobody; leave importer= out of the declaration, read old "
                "values by `await importer.fetch_many(...)`, and convert them with keystead.fields.reencrypt"
            )
        if importer is not None and declared.plaintext is None:
            found[field.id] = importer
    return found


def _bind(
    engine: Engine, km: blocking.KeyManager, binding: Binding, columns: _Columns, database: str | None
) -> Binding:
    km.load_fields(*binding.fields)
    with engine.connect() as connection:
        _locate(connection, binding, columns, database)
    for field in binding.fields:
        if field.id in binding.sources:
            km.register_field(field, binding.sources[field.id])
    _attach(engine, binding)
    with engine.connect() as connection:
        for probe in _probes(connection, binding, columns):
            _check(probe)
    return binding


async def _bind_async(
    engine: Engine | AsyncEngine, km: KeyManager, binding: Binding, columns: _Columns, database: str | None
) -> Binding:
    await km.load_fields(*binding.fields)
    await _connected(engine, lambda connection: _locate(connection, binding, columns, database))
    for field in binding.fields:
        if field.id in binding.sources:
            await km.register_field(field, binding.sources[field.id])
    _attach(engine.sync_engine if isinstance(engine, AsyncEngine) else engine, binding)
    for probe in await _connected(engine, lambda connection: _probes(connection, binding, columns)):
        field, box, _, tenant = probe
        if tenant is not None:
            await km.load_fields(field, tenants=[tenant])
        try:
            await km.prefetch([box])
        except DataKeyNotLoadedError as exc:
            raise _unreadable(field) from exc
        _check(probe)
    return binding


async def _connected(engine: Engine | AsyncEngine, work: Callable[[Connection], T]) -> T:
    """Return what ``work`` does with a connection of an engine of either kind."""
    if isinstance(engine, AsyncEngine):
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    with engine.connect() as own:
        return work(own)


def _attach(engine: Engine, binding: Binding) -> None:
    remember(engine.dialect, binding)
    watch()
    watch_uses()
    # One that was derived by execution_options() hears of its own transactions alone.
    while isinstance(engine, OptionEngine):
        engine = engine._proxied
    watch_commits(engine)
    watch_savepoints(engine)
    watch_ends(engine)


def _declared(sources: Iterable[Any]) -> list[tuple[Column[Any], Field]]:
    found: dict[str, tuple[Column[Any], Field]] = {}
    for source in sources:
        mapper = inspect(source, raiseerr=False)
        if isinstance(mapper, Mapper):
            tables: Iterable[FromClause] = {each.local_table for each in mapper.self_and_descendants} | set(
                mapper.tables
            )
        else:
            metadata = source if isinstance(source, MetaData) else getattr(source, "metadata", None)
            if not isinstance(metadata, MetaData):
                raise InvalidInputError("bind takes declarative bases, mapped classes or MetaData after the manager")
            tables = metadata.tables.values()
        for column, field in (each for table in tables for each in encrypted_columns(table)):
            if found.setdefault(field.id, (column, field))[0] is not column:
                raise ConfigurationError(
                    f"two encrypted columns have the id {field.id!r}, so that each could stand for the other; give one "
                    "of them another id="
                )
    if not found:
        raise ConfigurationError(
            "no encrypted column is declared there; bind(engine, km, Base) takes the declarative base"
        )
    return list(found.values())


def _locate(connection: Connection, binding: Binding, columns: _Columns, database: str | None) -> None:
    """Note in a binding where the rows of each field are looked for, for those that can be."""
    for column, field in columns:
        source = database or source_of(connection, column)
        if source is not None:
            binding.sources[field.id] = source


def _probes(connection: Connection, binding: Binding, columns: _Columns) -> list[_Probe]:
    """Return one value of each field that has any, with whose it is."""
    found: list[_Probe] = []
    inspector = inspect(connection)
    for column, field in columns:
        table = column.table
        names = (column.name, *field.record_columns, *filter(None, (field.tenant,)))
        if not inspector.has_table(table.name, schema=table.schema) or not set(names) <= {
            each["name"] for each in inspector.get_columns(table.name, schema=table.schema)
        }:
            continue
        wanted = [column_named(table, name) for name in names]
        sealed = type_coerce(column, LargeBinary)
        is_ours: ColumnElement[bool] = sealed.is_not(None)
        if field.id in binding.importers:
            is_ours = func.substr(sealed, 1, 1, type_=LargeBinary) == bytes((MAGIC,))
        row = connection.execute(select(*wanted).where(is_ours).limit(1)).first()
        if row is not None:
            box, record = row[0], field.read_record(tuple(row[1 : 1 + len(field.record_columns)]))
            tenant = field.read_tenant(row[-1]) if field.tenant else None
            found.append((field, box, record, tenant))
    return found


def _check(probe: _Probe) -> None:
    field, box, record, tenant = probe
    try:
        box.decrypt(record=record, tenant=tenant)
    except DecryptionError as exc:
        raise _unreadable(field) from exc


def _unreadable(field: Field) -> ConfigurationError:
    return ConfigurationError(
        f"a row of {field.table} does not open as field {field.id}. Either the table or column was renamed, and the "
        "declaration has to keep the former name, encrypted(id='former_table.former_column'); or the manager has "
        "another store than the one these rows were encrypted with; or record=, tenant= or keyring= were changed; or "
        "the row was altered"
    )
