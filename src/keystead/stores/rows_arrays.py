"""Arrays for PostgreSQL in its binary form, made in a fraction of the time that psycopg takes member by member.

Form: https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES and ``array_recv`` in the
server: dimensions, whether there are nulls, the members' type, length, lower bound, then each member with its size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

BYTEA: Final = 17
INT8: Final = 20
BYTEA_ARRAY: Final = 1001
INT8_ARRAY: Final = 1016

_HEAD: Final = struct.Struct("!iiIii")
_SIZE: Final = struct.Struct("!i")
_NULL: Final = _SIZE.pack(-1)


class ByteaArray(bytes):
    """Values of ``bytea[]``, ready to be sent."""


class Int8Array(bytes):
    """Values of ``int8[]``, ready to be sent."""


def bytea_array(values: Sequence[bytes | None]) -> ByteaArray:
    """Return an array of bytes and nulls."""
    parts = ((_NULL, b"") if value is None else (_size(len(value)), value) for value in values)
    has_null = int(None in values)
    return ByteaArray(_HEAD.pack(1, has_null, BYTEA, len(values), 1) + b"".join(chain.from_iterable(parts)))


def int8_array(values: Sequence[int]) -> Int8Array:
    """Return an array of integers of 64 bits."""
    members = _int8_layout(len(values)).pack(*chain.from_iterable((8, value) for value in values))
    return Int8Array(_HEAD.pack(1, 0, INT8, len(values), 1) + members)


def register(connection: Any) -> None:
    """Teach a psycopg connection to send these."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class ByteaArrayDumper(Dumper):
        format = Format.BINARY
        oid = BYTEA_ARRAY

        def dump(self, obj: bytes) -> bytes:
            return obj

    class Int8ArrayDumper(ByteaArrayDumper):
        oid = INT8_ARRAY

    connection.adapters.register_dumper(ByteaArray, ByteaArrayDumper)
    connection.adapters.register_dumper(Int8Array, Int8ArrayDumper)


@lru_cache(1024)
def _size(size: int) -> bytes:
    return _SIZE.pack(size)


@lru_cache(16)
def _int8_layout(count: int) -> struct.Struct:
    return struct.Struct("!" + "iq" * count)
