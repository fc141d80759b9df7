"""Variables, files and folders that hold key material: who may read them, and that changes are seen whole."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, KeyNotFoundError, KMSError, ProviderConnectionError
from keystead.providers.key_sources import FileSource, VariableSource
from keystead.providers.local.kek_file import create_kek_file

FIRST, SECOND, THIRD = (bytes([number]) * 31 + b"\x80" for number in range(3))
TEXT = "0123456789abcdef" * 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "key", FIRST)


def written(path: Path, *keys: bytes, mode: int = 0o600) -> Path:
    """Write keys to a file: one as it is, several as lines."""
    path.write_bytes(keys[0] if len(keys) == 1 else "\n".join(key.hex() for key in keys).encode())
    path.chmod(mode)
    return path


def replaced(path: Path, *keys: bytes) -> None:
    """Replace a file by renaming, as whoever rotates should."""
    written(path.with_suffix(".new"), *keys).rename(path)


def keys(source: FileSource | VariableSource) -> list[bytes]:
    return [bytes(each.key) for each in source.read().keys]


def test_a_variable_holds_a_key() -> None:
    assert keys(VariableSource("A_KEY", environ={"A_KEY": FIRST.hex()})) == [FIRST]


def test_a_variable_holds_several_keys() -> None:
    text = f"{FIRST.hex()},{SECOND.hex()}"
    assert keys(VariableSource("A_KEY", environ={"A_KEY": text})) == [FIRST, SECOND]


def test_a_variable_may_hold_bytes_that_are_no_text() -> None:
    key = bytes(range(0x80, 0xA0))
    assert keys(VariableSource("A_KEY", environ={"A_KEY": os.fsdecode(key)})) == [key]


def test_the_environment_of_the_process_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    source = VariableSource("KEYSTEAD_TEST_KEY")
    monkeypatch.setenv("KEYSTEAD_TEST_KEY", FIRST.hex())
    before = source.look()
    monkeypatch.setenv("KEYSTEAD_TEST_KEY", SECOND.hex())
    assert source.look() != before
    assert keys(source) == [SECOND]


@pytest.mark.parametrize(("environ", "problem"), [({}, "not set"), ({"A_KEY": ""}, "empty"), ({"A_KEY": "x"}, "entry")])
def test_a_variable_without_a_key_is_named_and_its_value_is_not(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"A_KEY holds no key \(.*{problem}.*openssl rand"):
        VariableSource("A_KEY", environ=environ).read()


def test_what_looks_like_a_password_is_warned_of_once() -> None:
    source = VariableSource("A_KEY", environ={"A_KEY": TEXT})
    with pytest.warns(UserWarning, match="looks like a password"):
        assert keys(source) == [TEXT.encode()]
    assert keys(source) == [TEXT.encode()]


def test_what_looks_like_a_password_is_refused_in_production(tmp_path: Path) -> None:
    path = written(tmp_path / "key", TEXT.encode())
    for source in (
        VariableSource("A_KEY", environ={"A_KEY": TEXT}, production=True),
        FileSource(str(path), production=True),
    ):
        with pytest.raises(ConfigurationError, match="refused in production"):
            source.read()


def test_a_password_in_use_is_accepted_in_hex_in_production() -> None:
    source = VariableSource("A_KEY", environ={"A_KEY": TEXT.encode().hex()}, production=True)
    assert keys(source) == [TEXT.encode()]


def test_a_file_holds_a_key_or_several(path: Path, tmp_path: Path) -> None:
    assert keys(FileSource(str(path))) == [FIRST]
    assert keys(FileSource(str(written(tmp_path / "keys", SECOND, FIRST)))) == [SECOND, FIRST]


@pytest.mark.parametrize("mode", [0o640, 0o440, 0o604, 0o644, 0o620, 0o602, 0o660, 0o666, 0o610])
def test_a_file_open_to_others_is_refused_with_the_command_that_cures_it(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileSource(str(path)).read()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_group_may_read_where_that_is_allowed(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert keys(FileSource(str(path), allow_group_read=True)) == [FIRST]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o650, 0o444])
def test_more_than_a_reading_group_is_never_allowed(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 640"):
        FileSource(str(path), allow_group_read=True).read()


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for call in (FileSource(str(tmp_path / "key")).read, FileSource(str(tmp_path / "key")).look):
        with pytest.raises(KeyNotFoundError, match="no key file"):
            call()


def test_a_link_that_leads_nowhere_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "gone")
    with pytest.raises(KeyNotFoundError):
        FileSource(str(tmp_path / "key")).read()


def test_a_path_through_a_file_is_a_connection_error(path: Path) -> None:
    with pytest.raises(ProviderConnectionError, match="Not a directory"):
        FileSource(str(path / "below")).read()


def test_a_file_this_user_may_not_read_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("keystead.providers.key_sources.os.open", refuse)
    with pytest.raises(ConfigurationError, match="cannot be read by this user"):
        FileSource(str(path)).read()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, 0o600 | 0o140000)])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[str], None]) -> None:
    make(str(tmp_path / "key"))
    with pytest.raises(KMSError):
        FileSource(str(tmp_path / "key")).read()


def test_an_endless_file_is_refused(path: Path) -> None:
    path.write_bytes(b"#" * 200_000)
    with pytest.raises(ConfigurationError, match="longer than 64 KiB"):
        FileSource(str(path)).read()


def test_a_kek_file_is_no_key_for_signing(tmp_path: Path) -> None:
    create_kek_file(tmp_path / "kek")
    with pytest.raises(ConfigurationError, match="KEK file"):
        FileSource(str(tmp_path / "kek")).read()


def test_a_file_that_is_replaced_looks_otherwise(path: Path) -> None:
    source = FileSource(str(path))
    before = source.look()
    assert source.look() == before
    replaced(path, SECOND, FIRST)
    assert source.look() != before
    assert keys(source) == [SECOND, FIRST]


def test_a_file_written_a_moment_ago_is_read_again_whatever_it_looks_like(path: Path) -> None:
    source = FileSource(str(path))
    assert source.read().state != source.look()


def test_a_file_written_longer_ago_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = path.stat().st_ctime_ns + 60_000_000
    monkeypatch.setattr("keystead.providers.key_sources.time.time_ns", lambda: later)
    source = FileSource(str(path))
    assert source.read().state == source.look()


def test_a_link_that_is_replaced_looks_otherwise(tmp_path: Path) -> None:
    written(tmp_path / "one", FIRST), written(tmp_path / "two", SECOND)
    link = tmp_path / "key"
    link.symlink_to("one")
    source = FileSource(str(link))
    before = source.look()
    assert keys(source) == [FIRST]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    assert source.look() != before
    assert keys(source) == [SECOND]


class SecretVolume:
    """A folder as the kubelet mounts a secret: links to ``..data``, a link to a folder that each update replaces."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        folder.mkdir(mode=0o1777)
        folder.chmod(0o1777)
        self._number = 0
        self.update(files)

    def update(self, files: dict[str, bytes]) -> None:
        self._number += 1
        inside = self.folder / f"..2030_01_01_{self._number}"
        inside.mkdir()
        for name, content in files.items():
            (inside / name).write_bytes(content)
            (inside / name).chmod(0o440)
        before = os.path.realpath(self.folder / "..data") if self._number > 1 else None
        (self.folder / "..data_tmp").symlink_to(inside.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for name in {entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")} - set(files):
            (self.folder / name).unlink()
        if before is not None:
            shutil.rmtree(before)


def test_a_key_of_a_secret_volume_is_read_and_its_update_seen(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path / "keys", {"audit": FIRST})
    source = FileSource(str(volume.folder / "audit"), allow_group_read=True)
    before = source.look()
    assert keys(source) == [FIRST]
    volume.update({"audit": f"{SECOND.hex()}\n{FIRST.hex()}\n".encode()})
    assert source.look() != before
    assert keys(source) == [SECOND, FIRST]


def test_a_whole_secret_volume_is_a_folder_of_keys(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path / "keys", {"v1": FIRST, "v2": SECOND})
    source = FileSource(str(volume.folder), allow_group_read=True)
    before = source.look()
    assert keys(source) == [SECOND, FIRST]
    volume.update({"v1": FIRST, "v2": SECOND, "v10": THIRD})
    assert source.look() != before
    assert keys(source) == [THIRD, SECOND, FIRST]
    volume.update({"v10": THIRD})
    assert keys(source) == [THIRD]


def test_a_volume_that_is_updated_all_the_time_never_shows_a_mixture(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path / "keys", {"a": FIRST, "b": FIRST})
    source = FileSource(str(volume.folder), allow_group_read=True)
    stop = threading.Event()

    def update() -> None:
        while not stop.is_set():
            for key in (SECOND, FIRST):
                volume.update({"a": key, "b": key})

    thread = threading.Thread(target=update)
    thread.start()
    try:
        seen = set()
        for _ in range(100):
            try:
                found = keys(source)
            except (ProviderConnectionError, KeyNotFoundError):
                continue  # it says so instead, and the next look may have more luck
            assert len(found) == 1  # the same key in both files counts once; a mixture has two
            seen.update(found)
    finally:
        stop.set()
        thread.join()
    assert seen
    assert seen <= {FIRST, SECOND}


def test_a_folder_without_files_holds_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        FileSource(str(tmp_path)).read()


def test_a_file_of_a_folder_that_holds_no_key_is_named(tmp_path: Path) -> None:
    written(tmp_path / "key", FIRST), written(tmp_path / "README", b"these are the keys")
    with pytest.raises(ConfigurationError, match="README: its entry 1"):
        FileSource(str(tmp_path)).read()


def test_folders_in_a_folder_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    written(tmp_path / "key", FIRST), written(tmp_path / ".key.swp", b"no key")
    (tmp_path / "lost+found").mkdir()
    assert keys(FileSource(str(tmp_path))) == [FIRST]


def test_too_many_files_are_no_folder_of_keys(tmp_path: Path) -> None:
    for number in range(257):
        (tmp_path / str(number)).touch(0o600)
    with pytest.raises(ConfigurationError, match="more than 256 files"):
        FileSource(str(tmp_path)).read()


def test_a_stranger_cannot_add_a_key_to_a_folder_open_to_everybody(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, who alone can give files away and read them then")
    tmp_path.chmod(0o1777)
    written(tmp_path / "v1", FIRST)
    os.chown(written(tmp_path / "v2", SECOND), 12345, 12345)
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        FileSource(str(tmp_path)).read()
    tmp_path.chmod(0o755)
    assert keys(FileSource(str(tmp_path))) == [SECOND, FIRST]


@pytest.mark.parametrize("source", [FileSource("/key"), VariableSource("A_KEY", environ={"A_KEY": TEXT})])
def test_no_source_shows_what_it_holds(source: FileSource | VariableSource) -> None:
    assert TEXT not in repr(source)
