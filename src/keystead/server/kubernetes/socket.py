"""The plugin's socket: appears at its path with its mode, takes the place of nobody who listens, and goes with us."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from keystead.errors import ConfigurationError

MODE: Final = 0o600
LONGEST: Final = 90
"""Bytes of the path: with what it is bound by at first, less than any system takes."""
_ANSWER_S: Final = 2.0


def socket_path(given: str) -> Path:
    """Return the path of a socket that is named as a path, or as ``unix://`` and one.

    Raises:
        ConfigurationError: none that can be used.
    """
    text = given.removeprefix("unix://")
    if text.removeprefix("/").startswith("@"):
        raise ConfigurationError(
            "an abstract socket has no owner and no mode, so that every program in its network namespace could have "
            "secrets decrypted; name a path"
        )
    path = Path(text)
    if not path.is_absolute():
        raise ConfigurationError("the socket's path is absolute, as the API server's `endpoint` names it")
    if len(os.fsencode(path)) > LONGEST:
        raise ConfigurationError(f"the socket's path has at most {LONGEST} bytes; name a shorter one")
    return path


def require_safe_folder(folder: Path) -> None:
    """Refuse a folder in which somebody else could put a socket of his own, and be sent what is to be encrypted.

    Raises:
        ConfigurationError: it is one, or none.
    """
    try:
        real = folder.resolve(strict=True)
        states = [(each, each.stat()) for each in (real, *real.parents)]
    except OSError as exc:
        raise ConfigurationError(f"the socket's folder {folder} cannot be used: {exc.strerror}") from None
    if not stat.S_ISDIR(states[0][1].st_mode):
        raise ConfigurationError(f"the socket's folder {folder} is not a folder")
    for each, state in states:
        is_ours = state.st_uid in (0, os.geteuid())
        is_open = state.st_mode & 0o022
        # Above the folder itself a sticky one will do: nobody renames there what is not his.
        if not is_ours or (is_open and (each == real or not state.st_mode & stat.S_ISVTX)):
            raise ConfigurationError(
                f"others may write to {each}, and could put a socket of theirs in the place of the plugin's: use a "
                f"folder of root or of the plugin's user alone, such as one made by `install -d -m 0700 {folder}`"
            )


@contextmanager
def placed(path: Path, bind: Callable[[str], None]) -> Iterator[None]:
    """Have ``bind`` listen on a socket, put it at ``path`` while the block runs, and remove it at its end.

    A socket that is there already is replaced, if nobody listens on it.

    Raises:
        ConfigurationError: somebody does; the path is something else; or the folder is not safe.
    """
    require_safe_folder(path.parent)
    # In a folder that nobody else enters: between its making and its mode it is reached by nobody.
    with tempfile.TemporaryDirectory(prefix=".ks-", dir=path.parent) as folder:
        first = Path(folder) / "s"
        bind(str(first))
        first.chmod(MODE)
        own = _identity(first)
        with _locked(path.parent):
            _require_free(path)
            first.rename(path)
    try:
        yield
    finally:
        with _locked(path.parent), contextlib.suppress(FileNotFoundError):
            if _identity(path) == own:
                path.unlink()


def _require_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path} is there and is no socket; name another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ANSWER_S)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # somebody is there, and too busy to answer
    raise ConfigurationError(f"another program listens on {path}; stop it first, or name another path")


def _identity(path: Path) -> tuple[int, int]:
    state = path.lstat()
    return state.st_dev, state.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep out other plugins that are about to put a socket here, or to remove theirs."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
