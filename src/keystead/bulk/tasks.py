"""What travels between the process that runs a job and its workers: plain data, as JSON.

No key, no URI of a KMS and no value of a file is among it: names of files, rules, counts and digests are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self


class Operation(StrEnum):
    """What is done to the files of a dataset."""

    ENCRYPT = "encrypt"
    REENCRYPT = "reencrypt"
    ROTATE = "rotate"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class KeyRules:
    """Which columns of the files that are written are under which keyring; the arguments of ``ParquetKeys``.

    ``in_file`` keeps the wrapped keys in the files themselves, so that pyarrow, polars and DuckDB read the dataset as
    one; otherwise they are in a small file beside each, and rotated without touching the data.
    """

    footer: str = "parquet"
    columns: Mapping[str, str | Iterable[str]] = field(default_factory=dict)
    plain: str | Iterable[str] = ()
    plaintext_footer: bool = False
    in_file: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", {ring: _names(names) for ring, names in self.columns.items()})
        object.__setattr__(self, "plain", _names(self.plain))

    def arguments(self) -> dict[str, Any]:
        """Return them by name, in types that JSON has."""
        return asdict(self)

    @property
    def keyrings(self) -> list[str]:
        """The master keys that are named, by name."""
        return sorted({self.footer, *self.columns})


@dataclass(frozen=True, slots=True)
class FileToDo:
    """One file of a task, by its name below the source; ``sha256`` is what it must have, empty where nobody knows."""

    name: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """Some files, and what to do with them.

    ``token`` is the fencing token of the run. ``staged`` is a folder of that run alone, which no worker makes: when a
    later run has taken it away, nothing more can be written there. ``store_id`` is the store that workers must open.
    """

    number: int
    operation: Operation
    token: int
    store_id: str
    source: str
    staged: str
    files: tuple[FileToDo, ...]
    rules: KeyRules | None = None

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the task of a text."""
        given = json.loads(text)
        rules = None if given["rules"] is None else KeyRules(**given["rules"])
        files = tuple(FileToDo(**each) for each in given["files"])
        return cls(**{**given, "operation": Operation(given["operation"]), "files": files, "rules": rules})

    def split(self) -> list[Self]:
        """Return a task for each of its files."""
        return [replace(self, files=(each,)) for each in self.files]


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: what was written or read, or why it was not.

    Attributes:
        staged: the new file, below the run's own folder; empty where none was made.
        keys_staged: the small file of its keys, likewise.
        sha256: of the new file, or of the one that was verified.
        code: of the error; empty where there was none.
        is_disk_full: nothing more can be written until somebody makes room.
    """

    name: str
    rows: int = 0
    staged: str = ""
    keys_staged: str = ""
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    keys_sha256: str = ""
    source_size: int = 0
    source_mtime_ns: int = 0
    code: str = ""
    reason: str = ""
    is_disk_full: bool = False


def results_text(results: Iterable[FileResult]) -> str:
    """Return results as JSON."""
    return json.dumps([asdict(each) for each in results], separators=(",", ":"))


def parse_results(text: str) -> list[FileResult]:
    """Return the results of a text."""
    return [FileResult(**each) for each in json.loads(text)]


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
