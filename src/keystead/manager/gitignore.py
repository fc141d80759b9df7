"""What must not come under version control: the KEK, the store, and what lies beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

KEK_ENTRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "/keystead.kek": ("keystead.kek",),
    "/keystead.kek.*": ("keystead.kek.lock", "keystead.kek.new"),
}
"""Patterns of a KEK file, and names that each has to match."""

STORE_ENTRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "/keys.db": ("keys.db",),
    "/keys.db-*": ("keys.db-wal", "keys.db-shm", "keys.db-journal"),
    "/.keystead/": (".keystead",),
}
"""Patterns of an SQLite store, and names that each has to match."""

_HEAD: Final = "# Keystead's keys. Whoever has the KEK and the store can read everything.\n"


def text_of(entries: Collection[str]) -> str:
    """Return the text of a ``.gitignore`` with these entries."""
    return _HEAD + "".join(f"{entry}\n" for entry in entries)


def missing_from(text: str, entries: Mapping[str, Collection[str]]) -> list[str]:
    """Return the entries whose names the text of a ``.gitignore`` does not match.

    Patterns with a folder in them are passed over, so that an entry may be called missing that is not, and never the
    other way round.
    """
    lines = [line.strip() for line in text.splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    return [entry for entry, names in entries.items() if not all(_is_ignored(name, patterns) for name in names)]


def _is_ignored(name: str, patterns: Collection[str]) -> bool:
    is_ignored = False
    for pattern in patterns:
        is_taken_back = pattern.startswith("!")
        plain = pattern.removeprefix("!").removeprefix("**/").removeprefix("/")
        if plain.endswith("/"):
            # Of folders alone, and one name here is a folder's.
            plain = plain.removesuffix("/") if name == ".keystead" or is_taken_back else ""
        if fnmatchcase(name, plain):
            is_ignored = not is_taken_back
    return is_ignored
