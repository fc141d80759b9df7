"""A dataset as a folder: its files, and the folder of Keystead's own in it, where a run prepares what it commits.

A new file is made in a folder of the run, and gets its name by a rename out of it. A later run takes the folders of
earlier ones away before anything else; of a run that was only paused nothing can then be renamed any more.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystead.errors import ConflictError, InvalidInputError
from keystead.runtime.files import make_folder, sync_folder

STATE: Final = "_keystead"
"""Readers of datasets pass by what begins with an underscore or a dot."""
_PASSED_BY: Final = ("_", ".")
_SUFFIX: Final = ".parquet"
_RUN: Final = "run-"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a dataset: its name below the folder, with ``/``, its size and when it was changed."""

    name: str
    size: int
    mtime_ns: int


def files_of(folder: Path) -> list[FoundFile]:
    """Return the Parquet files below a folder by name; what begins with ``_`` or ``.`` is passed by.

    Raises:
        InvalidInputError: there is no folder, or something in it of which nobody knows what it is: to leave it out
            could lose data.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is no folder; a single file is written by ParquetKeys")
    found = []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and path.is_dir():
            raise InvalidInputError(f"{name} is a link to a folder: name that as a dataset of its own")
        if path.suffix != _SUFFIX or not path.is_file():
            raise InvalidInputError(
                f"{name} is no {_SUFFIX} file, and would be left out: put it elsewhere, or rename it"
            )
        stat = path.stat()
        found.append(FoundFile(name, stat.st_size, stat.st_mtime_ns))
    return sorted(found, key=lambda each: each.name)


def _walk(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_PASSED_BY)]
        links = [name for name in folders if Path(above, name).is_symlink()]
        yield from (Path(above, name) for name in (*links, *files) if not name.startswith(_PASSED_BY))


def require_apart(source: Path, target: Path) -> None:
    """Raise ``InvalidInputError`` where one of two datasets lies in the other."""
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InvalidInputError(f"{target} and {source} lie in each other: name a folder of its own for what is new")


class Staging:
    """The folder of one run in a dataset. Made under the lease of the dataset, which says that no other run is on.

    Args:
        dataset: its folder.
        token: the run's fencing token.
    """

    def __init__(self, dataset: Path, token: int) -> None:
        self._dataset = dataset
        state = dataset / STATE
        make_folder(state)
        for stale in state.glob(f"{_RUN}*"):
            _remove(stale)
        self.folder = state / f"{_RUN}{token}-{secrets.token_hex(4)}"
        make_folder(self.folder)

    def commit(self, staged: str, name: str) -> None:
        """Give a file of this run its name in the dataset, in the place of one that has it; it lasts.

        Raises:
            ConflictError: a later run has taken over.
        """
        target = self._dataset / name
        try:
            # Whoever has no folder any more makes none in the dataset either.
            source = self.folder / staged
            source.stat()
            if not target.parent.is_dir():
                make_folder(target.parent)
            os.replace(source, target)
        except FileNotFoundError:
            raise ConflictError("a later run of this dataset has taken over; leave the work to it") from None
        sync_folder(target.parent)

    def close(self) -> None:
        """Take the folder away, and what was left in it."""
        _remove(self.folder)


def _remove(folder: Path) -> None:
    """Take a folder away at once, by a rename, and then what is in it, to which somebody may be writing still."""
    gone = folder.with_name(f"{_RUN}gone-{secrets.token_hex(4)}")
    try:
        os.replace(folder, gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)
