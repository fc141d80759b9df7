"""Which columns of a file are under which keyring."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from keystead.errors import ConfigurationError

_TOLD: Final = 20
_APART: Final = frozenset(":,;")


def leaves_of(schema: pa.Schema) -> list[str]:
    """Return the path of each column of a file of a schema: ``id``, ``address.street``, ``tags.list.element``."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    columns = pq.read_metadata(io.BytesIO(empty.getvalue())).schema
    return [columns.column(number).path for number in range(len(columns))]


class Rules:
    """Names and patterns of columns, and the keyring of each; of those that no rule names one keyring has all.

    A name is a column's, with everything inside of it, or that of what is inside of one (``address.street``); in
    patterns ``*`` stands for anything, ``?`` for one character.
    """

    def __init__(self, others: str, columns: Mapping[str, str | Iterable[str]], plain: str | Iterable[str]) -> None:
        self._others = others
        self._rules = [(pattern, ring) for ring, patterns in columns.items() for pattern in _names(patterns)]
        self._plain = _names(plain)

    def keyrings(self, leaves: Sequence[str]) -> dict[str, list[str]]:
        """Return the columns that are under each keyring.

        Raises:
            ConfigurationError: a rule that names no column, or a column that two rules name: what was meant might be
                left in clear.
        """
        found: dict[str, list[str]] = {}
        unused = {pattern for pattern, _ in self._rules} | {*self._plain}
        for leaf in leaves:
            rings = {pattern: ring for pattern, ring in self._rules if _is_named(leaf, pattern)}
            plain = [pattern for pattern in self._plain if _is_named(leaf, pattern)]
            unused -= {*rings, *plain}
            if len({*rings.values()}) + bool(plain) > 1:
                first, second, *_ = [*plain, *rings]
                raise ConfigurationError(
                    f"column {leaf!r} is named by two rules, {first!r} and {second!r}: leave one out"
                )
            if not plain and not _APART.isdisjoint(leaf):
                raise ConfigurationError(
                    f"column {leaf!r} has a colon, comma or semicolon in its name, by which pyarrow keeps columns "
                    "apart: rename it in the file"
                )
            if not plain:
                found.setdefault(next(iter(rings.values()), self._others), []).append(leaf)
        if unused:
            told = ", ".join(leaves[:_TOLD]) + ("..." if len(leaves) > _TOLD else "")
            raise ConfigurationError(f"no column is named {min(unused)!r}: there are {told}")
        if not found:
            raise ConfigurationError("every column is plain, and needs no keys: write the file with pyarrow itself")
        return found


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _is_named(leaf: str, pattern: str) -> bool:
    parts = leaf.split(".")
    return any(fnmatchcase(".".join(parts[: at + 1]), pattern) for at in range(len(parts)))
