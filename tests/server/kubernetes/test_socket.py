"""The socket: of its owner alone from its first moment, in nobody's place, and gone at the end."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError
from keystead.server.kubernetes.socket import placed, require_safe_folder, socket_path


@contextmanager
def listening(seen: list[int] | None = None) -> Iterator[Callable[[str], None]]:
    """Give what binds a socket, and close it at the end."""
    with socket.socket(socket.AF_UNIX) as server:

        def bind(path: str) -> None:
            if seen is not None:
                seen.append(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode))
            server.bind(path)
            server.listen()

        yield bind


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
    return True


def test_a_socket_is_reached_by_its_owner_alone_and_before_that_by_nobody(sockets: Path) -> None:
    path, seen = sockets / "kms.sock", list[int]()
    before = os.umask(0)
    try:
        with listening(seen) as bind, placed(path, bind):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert [each.name for each in sockets.iterdir()] == ["kms.sock"]
            assert answers(path)
    finally:
        os.umask(before)
    assert seen == [0o700]
    assert list(sockets.iterdir()) == []


def test_one_that_nobody_listens_on_is_replaced(sockets: Path) -> None:
    path = sockets / "kms.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening() as bind, placed(path, bind):
        assert answers(path)


def test_one_that_somebody_listens_on_stays_his(sockets: Path) -> None:
    path = sockets / "kms.sock"
    with listening() as bind, placed(path, bind):
        own = path.lstat().st_ino
        with (
            listening() as second,
            pytest.raises(ConfigurationError, match="another program listens"),
            placed(path, second),
        ):
            pytest.fail("it was placed")
        assert path.lstat().st_ino == own
        assert answers(path)
        assert [each.name for each in sockets.iterdir()] == ["kms.sock"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_replaced(sockets: Path, kind: str) -> None:
    path = sockets / "kms.sock"
    if kind == "file":
        path.write_text("a file")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(sockets / "elsewhere")
    with listening() as bind, pytest.raises(ConfigurationError, match="is no socket"), placed(path, bind):
        pytest.fail("it was placed")
    assert path.is_symlink() or path.exists()


def test_at_the_end_a_socket_of_somebody_else_stays(sockets: Path) -> None:
    path = sockets / "kms.sock"
    with listening() as bind, listening() as other:
        with placed(path, bind):
            path.unlink()
            other(str(path))
        assert answers(path)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o720])
def test_a_folder_that_others_may_write_to_is_refused(sockets: Path, mode: int) -> None:
    sockets.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may write"):
        require_safe_folder(sockets)
    below = sockets / "below"
    below.mkdir()
    below.chmod(0o700)
    if mode & stat.S_ISVTX:
        require_safe_folder(below)
    else:
        with pytest.raises(ConfigurationError, match="others may write"):
            require_safe_folder(below)


def test_a_folder_of_another_user_is_refused(sockets: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes folders of others")
    os.chown(sockets, 12345, 12345)
    with pytest.raises(ConfigurationError, match="others may write"):
        require_safe_folder(sockets)


def test_a_folder_that_is_none_is_refused(sockets: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        require_safe_folder(sockets / "absent")
    (sockets / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        require_safe_folder(sockets / "file")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("kms.sock", "absolute"),
        ("@keystead", "abstract"),
        ("unix:///@keystead", "abstract"),
        ("/" + "x" * 90, "at most 90 bytes"),
    ],
)
def test_a_path_that_cannot_be_used_is_refused(given: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        socket_path(given)


def test_a_path_may_be_written_as_the_endpoint_of_an_api_server() -> None:
    assert socket_path("unix:///run/keystead/kms.sock") == socket_path("/run/keystead/kms.sock")
