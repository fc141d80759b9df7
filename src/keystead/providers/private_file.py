"""Files that hold secrets: who else may read them, and their content."""

from __future__ import annotations

import os
import stat
from typing import Final

from keystead.errors import ConfigurationError

_OTHERS: Final = 0o077
_BUT_GROUP_READ: Final = 0o037


def require_private(status: os.stat_result, path: str, what: str, *, allow_group_read: bool) -> None:
    """Refuse what is no regular file, and a file that is open to more than its owner (and group, where allowed).

    Raises:
        ConfigurationError: naming the command that cures it.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path} is not a regular file")
    if not status.st_mode & (_BUT_GROUP_READ if allow_group_read else _OTHERS):
        return
    cure = f"chmod {'640' if allow_group_read else '600'} {path}"
    if not allow_group_read and not status.st_mode & _BUT_GROUP_READ:
        cure += ", or accept a readable group with allow_group_read"
    raise ConfigurationError(
        f"the {what} {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); run: {cure}"
    )


def read_content(fd: int, limit: int) -> bytes:
    """Return what is left to read of an open file, at most one byte more than ``limit``."""
    content = b""
    while len(content) <= limit and (chunk := os.read(fd, 65536)):
        content += chunk
    return content[: limit + 1]
