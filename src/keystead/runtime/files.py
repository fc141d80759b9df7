"""Files that stay: what is on disk when a call returns, names included."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import Final

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What an ``OSError`` says of a disk without room."""


def replace_file(path: str | os.PathLike[str], content: bytes, *, mode: int = 0o666) -> None:
    """Put a file in the place of another, or of none. A crash leaves one of the two, whole; errors as of the disk.

    Of several who do so at once the last one's file stays.

    Args:
        mode: of the new file, less what the process masks.
    """
    target = Path(path)
    # Of a name of its own: another thread, or a process of another container, may have the same number.
    staged = target.with_name(f"{target.name}.{secrets.token_hex(8)}.new")
    try:
        file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(file)
        os.replace(staged, target)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those above it, unless it is there; its name is on disk when this returns.

    Where the folder above may not be read, its name is left to the file system.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    # The folder itself as well where it was there: whoever made it may have crashed before it was.
    for each in missing or [path]:
        with contextlib.suppress(PermissionError):
            sync_folder(each.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
