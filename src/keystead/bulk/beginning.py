"""What every operation on a dataset begins with: its files, who works, and the names of what is done."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeAlias

from keystead import blocking
from keystead.bulk.datasets import STATE, FoundFile, files_of
from keystead.bulk.engines import BulkEngine, Inline
from keystead.bulk.job import ToDo
from keystead.bulk.manifest import Manifest
from keystead.bulk.report import OnProgress, Tally
from keystead.bulk.tasks import KeyRules, Operation
from keystead.bulk.worker import Worker
from keystead.errors import DecryptionError, InvalidInputError
from keystead.parquet.client import KMS

Folder: TypeAlias = str | os.PathLike[str]

_NOT_THE_SAME: Final = "it is not as the manifest says: changed, or put in its place, since it was written"
_NOT_NAMED: Final = "it is not in the manifest"


@dataclass(frozen=True, slots=True)
class Beginning:
    """The files of a dataset, and who does the work."""

    folder: Path
    files: Sequence[FoundFile]
    engine: BulkEngine
    home: Worker

    @classmethod
    def of(cls, km: blocking.KeyManager, folder: Folder, engine: BulkEngine | None, settings: Folder | None) -> Self:
        """Look at a folder.

        Raises:
            InvalidInputError: there are no Parquet files, or something else, in it.
        """
        files = files_of(Path(folder))
        if not files:
            raise InvalidInputError(f"there is no Parquet file below {folder}")
        home = Worker(km, None if settings is None else str(Path(settings).absolute()))
        return cls(Path(folder), files, engine or Inline(), home)

    def tally(self, operation: Operation, dataset: str, on_progress: OnProgress | None) -> Tally:
        """Return what counts the files of a run."""
        return Tally(
            operation=operation,
            engine=self.engine.name,
            files=len(self.files),
            dataset=dataset,
            on_progress=on_progress,
        )

    def known_ones(self, operation: Operation, known: Manifest, files: Sequence[FoundFile], tally: Tally) -> list[ToDo]:
        """Return what is to be done with files that are what their manifest says; the others have failed."""
        todo = []
        for each in files:
            entry = known.current(each.name)
            if entry is not None:
                todo.append(ToDo(operation, each, entry.sha256))
            elif known.find(each.name):
                tally.fail(each.name, DecryptionError.code, _NOT_THE_SAME)
            elif known.is_known:
                tally.fail(each.name, DecryptionError.code, _NOT_NAMED)
            else:
                todo.append(ToDo(operation, each))
        return todo


def require_ours(target: Path) -> None:
    """Raise ``InvalidInputError`` where files are in a folder that no run has begun to write."""
    if target.exists() and not (target / STATE).is_dir() and any(target.iterdir()):
        raise InvalidInputError(f"{target} holds files that no run has written: name a folder that is new or empty")


def require_noted(target: Path, known: Manifest) -> None:
    """Raise ``InvalidInputError`` where a file is in a target of which no run has noted anything."""
    for each in files_of(target):
        if not known.find(each.name):
            raise InvalidInputError(f"{target / each.name} was written by no run: move it elsewhere first")


def name_of_work(*what: object, again: bool = False) -> str:
    """Return a name for what is done; ``again`` makes it one that nothing was ever done under."""
    told = [*what, secrets.token_hex(8) if again else ""]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def active_versions(km: blocking.KeyManager, rules: KeyRules) -> str:
    """Return a name for rules and the active version of each keyring of theirs.

    A key of the KMS itself has no version that could be asked for.
    """
    names = [name for name in rules.keyrings if not name.startswith(KMS)]
    return name_of_work(rules.arguments(), {name: km.keyring(name).ring.snapshot.active for name in names})
