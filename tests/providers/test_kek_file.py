from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderConnectionError,
)
from keystead.providers.local import kek_file
from keystead.providers.local.kek_file import add_version, create_kek_file, read_kek_file, remove_version

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OS_CALLS = ("open", "write", "fsync", "close", "replace", "link", "unlink", "read", "fstat")


@pytest.fixture
def path(tmp_path: Path) -> str:
    target = tmp_path / "kek"
    create_kek_file(target, now=NOW)
    return str(target)


def rotate(path: str) -> list[int]:
    return [version.number for version in add_version(path, random=os.urandom, now=NOW)]


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> Callable[[], bool]:
    """Let the ``number``-th call of the operating system fail, in kek_file only; the result says whether it did."""
    count = 0

    class FailingOs:
        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            if name not in OS_CALLS:
                return real

            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    if name == "close":
                        real(*args)  # a close that fails has closed
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            return call

    monkeypatch.setattr(kek_file, "os", FailingOs())
    return lambda: count >= number


def test_a_new_file_has_one_version_and_is_its_owners_alone(path: str) -> None:
    assert [version.number for version in read_kek_file(path)] == [1]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_an_existing_file_is_never_overwritten(path: str) -> None:
    before = Path(path).read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        create_kek_file(path)
    assert Path(path).read_bytes() == before


def test_a_file_system_without_hard_links_does_not_overwrite_either(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_links)
    before = Path(path).read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        create_kek_file(path)
    create_kek_file(path + "2")
    assert Path(path).read_bytes() == before
    assert [version.number for version in read_kek_file(path + "2")] == [1]


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        create_kek_file(tmp_path / "missing" / "kek")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660])
def test_a_file_open_to_others_is_refused_with_the_command_that_cures_it(path: str, mode: int) -> None:
    os.chmod(path, mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_kek_file(path)


def test_a_file_that_nobody_may_write_is_read(path: str) -> None:
    os.chmod(path, 0o400)
    assert len(read_kek_file(path)) == 1


def test_a_missing_file_names_backup_and_init(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError, match=r"backup.*keystead init"):
        read_kek_file(str(tmp_path / "kek"))


def test_a_file_this_user_may_not_read_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, 1, errno.EACCES)
    with pytest.raises(ConfigurationError, match="cannot be read by this user"):
        read_kek_file(path)


def test_a_file_whose_version_numbers_are_used_up_is_not_rotated(path: str) -> None:
    key = Path(path).read_text().splitlines()[2].removeprefix("1 ")
    write_with_checksum(path, "keystead-kek-file v1", f"{2**32 - 1} {key}")
    with pytest.raises(KeyRotationError, match="another KEK"):
        rotate(path)


def test_rotating_a_missing_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError):
        rotate(str(tmp_path / "kek"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[str], None]) -> None:
    make(str(tmp_path / "kek"))
    with pytest.raises(KMSError):
        read_kek_file(str(tmp_path / "kek"))


def test_every_flipped_bit_of_the_file_is_noticed(path: str) -> None:
    content = Path(path).read_bytes()
    for bit in range(len(content) * 8):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ValueError, kek_file._LaterFormatError)):
            kek_file._parse(bytes(altered))


def test_every_truncation_of_the_file_is_noticed(path: str) -> None:
    content = Path(path).read_bytes()
    for length in range(len(content) - 1):
        with pytest.raises(ValueError):  # noqa: PT011
            kek_file._parse(content[:length])


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["1 2030-01-01T00:00:00.000000Z " + "A" * 44],
        ["1 2030-01-01T00:00:00.000000Z " + "A" * 40],
        ["0 2030-01-01T00:00:00.000000Z " + "A" * 43 + "="],
        ["4294967296 2030-01-01T00:00:00.000000Z " + "A" * 43 + "="],
        ["1 yesterday " + "A" * 43 + "="],
        ["1 2030-01-01T00:00:00.000000Z"],
        ["2 2030-01-01T00:00:00.000000Z " + "A" * 43 + "=", "1 2030-01-01T00:00:00.000000Z " + "A" * 43 + "="],
        ["1 2030-01-01T00:00:00.000000Z " + "A" * 43 + "="] * 2,
    ],
)
def test_a_file_with_a_good_checksum_and_bad_lines_is_refused(path: str, lines: list[str]) -> None:
    write_with_checksum(path, "keystead-kek-file v1", *lines)
    with pytest.raises(ConfigurationError, match="restore it from its backup"):
        read_kek_file(path)


def test_a_file_of_a_later_format_asks_for_a_later_release(path: str) -> None:
    write_with_checksum(path, "keystead-kek-file v2", "whatever")
    with pytest.raises(ConfigurationError, match="update Keystead"):
        read_kek_file(path)


def write_with_checksum(path: str, *lines: str) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()
    Path(path).write_bytes(body + f"sha256 {hashlib.sha256(body).hexdigest()}\n".encode())


def test_an_endless_file_is_refused(path: str) -> None:
    os.truncate(path, 10 * 1024 * 1024)
    with pytest.raises(ConfigurationError):
        read_kek_file(path)


def test_rotation_appends_and_keeps_the_keys_that_were_there(path: str) -> None:
    before = read_kek_file(path)
    assert rotate(path) == [1, 2]
    assert read_kek_file(path)[:1] == before


def test_rotation_keeps_the_file_its_owners_alone(path: str) -> None:
    rotate(path)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_rotation_through_a_symbolic_link_changes_the_file_and_keeps_the_link(path: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    rotate(str(link))
    assert link.is_symlink()
    assert len(read_kek_file(path)) == 2


def test_what_a_killed_writer_left_is_cleared_away(path: str) -> None:
    Path(path + ".new").write_text("half a fi")
    rotate(path)
    assert not os.path.exists(path + ".new")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can give files away")
def test_what_root_rotates_stays_readable_by_its_owner(path: str) -> None:
    os.chown(path, 12345, 12345)
    rotate(path)
    assert {os.stat(name).st_uid for name in (path, path + ".lock")} == {12345}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failure_at_any_system_call_of_a_rotation_loses_no_version(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    usable = {1: read_kek_file(path)[0].key}
    for number in range(1, 200):
        with monkeypatch.context() as patch:
            has_failed = fail_at(patch, number, code)
            with suppress(KeyRotationError, ConfigurationError, ProviderConnectionError):
                usable.update((v.number, v.key) for v in add_version(path, random=os.urandom, now=NOW))
            reached = has_failed()
        found = {version.number: version.key for version in read_kek_file(path)}
        assert usable.items() <= found.items()
        if not reached:
            return
    pytest.fail("a rotation takes fewer than 200 system calls")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failure_at_any_system_call_of_a_creation_leaves_no_file_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for number in range(1, 200):
        path = str(tmp_path / str(number))
        with monkeypatch.context() as patch:
            has_failed = fail_at(patch, number, code)
            with suppress(ConfigurationError, ProviderConnectionError):
                create_kek_file(path)
            reached = has_failed()
        assert not os.path.exists(path) or len(read_kek_file(path)) == 1
        if not reached:
            return
    pytest.fail("a creation takes fewer than 200 system calls")


def test_a_full_disk_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KeyRotationError, match=r"No space left on device.*every earlier version is still there"):
        rotate(path)


def test_a_disk_that_writes_a_little_at_a_time_still_writes_everything(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    assert rotate(path) == [1, 2]


def test_a_file_that_reads_back_differently_is_not_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda source, target: None)
    with pytest.raises(KeyRotationError, match="read back"):
        rotate(path)


def test_a_retired_version_is_gone_and_the_others_stay(path: str) -> None:
    rotate(path)
    later = NOW + timedelta(hours=1)
    assert [v.number for v in remove_version(path, 1, now=later, superseded_for_s=300)] == [2]
    assert rotate(path) == [2, 3]


def test_a_retirement_that_cannot_be_written_changes_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate(path)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyRotationError, match="No space left"):
        remove_version(path, 1, now=NOW, superseded_for_s=0)
    assert len(read_kek_file(path)) == 2


def test_the_newest_version_cannot_be_retired(path: str) -> None:
    with pytest.raises(KeyStateError, match="rotate first"):
        remove_version(path, 1, now=NOW, superseded_for_s=0)


def test_a_version_replaced_a_moment_ago_cannot_be_retired(path: str) -> None:
    rotate(path)
    with pytest.raises(KeyStateError, match="try again later"):
        remove_version(path, 1, now=NOW + timedelta(seconds=299), superseded_for_s=300)


def test_retiring_what_is_not_there_is_key_not_found(path: str) -> None:
    with pytest.raises(KeyNotFoundError):
        remove_version(path, 5, now=NOW, superseded_for_s=0)


def test_a_lock_held_for_too_long_is_retryable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kek_file, "LOCK_WAIT_S", 0.0)
    with kek_file._turn_to_write(path), pytest.raises(ProviderConnectionError, match="another process"):
        rotate(path)


def test_threads_that_rotate_together_lose_no_version(path: str) -> None:
    threads = [threading.Thread(target=rotate, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in read_kek_file(path)] == list(range(1, 10))


def test_processes_that_rotate_together_lose_no_version(path: str) -> None:
    script = (
        "import os, sys; from datetime import UTC, datetime\n"
        "from keystead.providers.local.kek_file import add_version\n"
        "for _ in range(10): add_version(sys.argv[1], random=os.urandom, now=datetime.now(UTC))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert [version.number for version in read_kek_file(path)] == list(range(1, 42))


def test_processes_that_create_together_make_one_file(tmp_path: Path) -> None:
    script = (
        "import sys; from keystead.errors import ConfigurationError\n"
        "from keystead.providers.local.kek_file import create_kek_file\n"
        "try: create_kek_file(sys.argv[1])\n"
        "except ConfigurationError: sys.exit(3)"
    )
    path = str(tmp_path / "kek")
    processes = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(4)]
    assert sorted(process.wait(60) for process in processes) == [0, 3, 3, 3]
