"""Databases of a PostgreSQL server that tests get empty, one after another."""

from __future__ import annotations

import itertools
import os
import time
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

USES: Final = 40
"""So often a database is handed out: what was dropped in it stays in its catalogs until they are vacuumed."""

_END_S: Final = 10.0
_FIRST_OF_USERS: Final = 16384
_CATALOGS: Final = (
    *("pg_am", "pg_cast", "pg_class", "pg_collation", "pg_constraint", "pg_conversion", "pg_event_trigger"),
    *("pg_extension", "pg_foreign_data_wrapper", "pg_foreign_server", "pg_language", "pg_largeobject_metadata"),
    *("pg_opclass", "pg_operator", "pg_opfamily", "pg_policy", "pg_proc", "pg_publication", "pg_rewrite"),
    *("pg_statistic_ext", "pg_transform", "pg_trigger", "pg_ts_config", "pg_ts_dict", "pg_ts_parser"),
    *("pg_ts_template", "pg_type"),
)
_CONTENT: Final = " UNION ALL ".join(
    [
        *(f"SELECT '{name}', oid::text FROM {name} WHERE oid >= {_FIRST_OF_USERS}" for name in _CATALOGS),
        "SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole), nspacl::text FROM pg_namespace "
        "WHERE nspname !~ '^pg_(toast_)?temp_'",
        "SELECT 'defaults', defaclacl::text FROM pg_default_acl",
        "SELECT concat_ws(' ', 'database', datdba::regrole, datallowconn, datconnlimit), datacl::text FROM pg_database "
        "WHERE datname = current_database()",
        "SELECT 'setting', s.setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
        "WHERE d.datname = current_database()",
        "SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database()",
    ]
)
_CLEAN: Final = """
SET lock_timeout = '5s';
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  CREATE SCHEMA public AUTHORIZATION pg_database_owner;
  GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""


class Databases:
    """Makes databases of a server, and makes one empty again instead, where a test left nothing else behind."""

    _numbers = itertools.count(1)

    def __init__(self, server_url: str) -> None:
        self._url = server_url
        self._free: list[str] = []
        self._uses: dict[str, int] = {}
        self._content_of_new: list[tuple[object, ...]] | None = None

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    def take(self) -> str:
        """Return the name of an empty database that nobody else uses."""
        if self._free:
            return self._free.pop()
        name = f"keystead_test_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self._url, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{name}"'.encode())
        self._uses[name] = 0
        if self._content_of_new is None:
            with psycopg.connect(self.url(name), autocommit=True) as connection:
                self._content_of_new = _content(connection)
        return name

    def give_back(self, name: str) -> None:
        """Take a database back, whatever is in it and whoever is connected to it."""
        self._uses[name] += 1
        if self._uses[name] < USES and self._is_clean(name):
            self._free.append(name)
        else:
            self._drop(name)

    def close(self) -> None:
        """Drop every database."""
        for name in list(self._uses):
            self._drop(name)

    def _is_clean(self, name: str) -> bool:
        """Empty a database, and return whether it is now as a new one."""
        try:
            with psycopg.connect(self.url(name), autocommit=True) as connection:
                if not _is_alone(connection):
                    return False
                connection.execute(_CLEAN.encode())
                return _content(connection) == self._content_of_new
        except psycopg.Error:
            return False

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        self._free = [each for each in self._free if each != name]
        del self._uses[name]


def _content(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return sorted(connection.execute(_CONTENT.encode()).fetchall(), key=repr)


def _is_alone(connection: psycopg.Connection) -> bool:
    """End the sessions of everybody else, and return whether they are over."""
    query = (
        b"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    until = time.monotonic() + _END_S
    while time.monotonic() < until:
        if connection.execute(query).fetchone() == (0,):
            return True
        time.sleep(0.005)
    return False
