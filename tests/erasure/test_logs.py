"""Logs of erasures: every acknowledged line is there, in one order, whoever else writes and whoever is killed."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError, ConflictError, ErasureLogError, KMSError, StoreFullError
from keystead.ports import ErasureLog, LogPosition
from keystead.stores.erasure_log_sql import SqlErasureLog
from keystead.stores.erasure_logs import FileErasureLog, MemoryErasureLog, open_erasure_log

Open = Callable[[], ErasureLog]
START = LogPosition()


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """What opens one log that stays, each time as another process would."""
    url = _url(request, tmp_path)
    return lambda: open_erasure_log(url)


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    urls = {"file": f"file://{folder}/outside/erasures.log", "sqlite": f"sqlite:///{folder}/erasures.db"}
    return urls.get(request.param) or str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["file", "sqlite", "postgresql", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> ErasureLog:
    """An empty log of each kind."""
    return MemoryErasureLog() if request.param == "memory" else open_erasure_log(_url(request, tmp_path))


def add(log: ErasureLog, *lines: bytes) -> None:
    for line in lines:
        _, end = log.read(START)
        log.append(end, line)


def test_a_log_that_has_not_begun_is_empty(log: ErasureLog) -> None:
    assert log.read(START) == ([], START)


def test_lines_are_read_in_order_from_any_place_on(log: ErasureLog) -> None:
    add(log, b"one", b"two", b"three")
    lines, end = log.read(START)
    assert lines == [b"one", b"two", b"three"]
    assert log.read(end) == ([], end)
    add(log, b"four")
    more, last = log.read(end)
    assert (more, last.last) == ([b"four"], b"four")
    assert log.read(last) == ([], last)


def test_a_line_is_added_behind_the_last_one_alone(log: ErasureLog) -> None:
    add(log, b"one")
    _, end = log.read(START)
    add(log, b"two")
    for place in (START, end):
        with pytest.raises(ConflictError):
            log.append(place, b"late")
    assert log.read(START)[0] == [b"one", b"two"]


def test_another_process_reads_what_was_added(opened: Open) -> None:
    add(opened(), b"one", b"two")
    assert opened().read(START)[0] == [b"one", b"two"]


def _add_many(opened_url: str, name: str, count: int) -> None:
    log = open_erasure_log(opened_url)
    for number in range(count):
        while True:
            _, end = log.read(START)
            try:
                log.append(end, f"{name} {number}".encode())
            except ConflictError:
                continue
            break


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_processes_that_add_at_once_lose_nothing(kind: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/erasures.log" if kind == "file" else f"sqlite:///{tmp_path}/erasures.db"
    add(open_erasure_log(url), b"begin")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(url, str(name), 20)) for name in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
        assert each.exitcode == 0
    lines, _ = open_erasure_log(url).read(START)
    assert sorted(lines[1:]) == sorted(f"{name} {number}".encode() for name in range(3) for number in range(20))
    for name in range(3):
        mine = [line for line in lines[1:] if line.startswith(f"{name} ".encode())]
        assert mine == [f"{name} {number}".encode() for number in range(20)]


def test_what_a_killed_process_left_of_a_line_is_no_line_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "erasures.log"
    log = FileErasureLog(path)
    add(log, b"one")
    with path.open("ab") as file:
        file.write(b"tw")
    assert log.read(START)[0] == [b"one"]
    add(log, b"three")
    assert path.read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("left", [b"", b"one\n", b"one\ntwx\n", b"one\ntwo", b"two\none\n", b"three\n"])
def test_a_file_that_does_not_have_what_it_had_is_noticed(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "erasures.log"
    log = FileErasureLog(path)
    add(log, b"one", b"two")
    _, end = log.read(START)
    path.write_bytes(left)
    with pytest.raises(ErasureLogError):
        log.read(end)
    with pytest.raises(ErasureLogError):
        log.append(end, b"three")
    assert path.read_bytes() == left


def test_a_file_that_is_gone_is_noticed_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "erasures.log"
    log = FileErasureLog(path)
    add(log, b"one")
    _, end = log.read(START)
    path.unlink()
    with pytest.raises(ErasureLogError, match="gone"):
        log.read(end)
    with pytest.raises(ErasureLogError, match="gone"):
        log.append(end, b"two")
    assert not path.exists()


@pytest.mark.parametrize("edit", ["DELETE FROM keystead_erasures WHERE n = 2", "DROP TABLE keystead_erasures"])
def test_a_database_that_does_not_have_what_it_had_is_noticed(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "erasures.db"
    log = open_erasure_log(f"sqlite:///{path}")
    add(log, b"one", b"two")
    _, end = log.read(START)
    with sqlite3.connect(path, isolation_level=None) as raw:
        raw.execute(edit)
    raw.close()
    with pytest.raises(ErasureLogError):
        log.read(end)
    with pytest.raises(KMSError):
        log.append(end, b"three")


def test_a_gap_in_a_database_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "erasures.db"
    log = open_erasure_log(f"sqlite:///{path}")
    add(log, b"one", b"two", b"three")
    with sqlite3.connect(path, isolation_level=None) as raw:
        raw.execute("DELETE FROM keystead_erasures WHERE n = 2")
    raw.close()
    with pytest.raises(ErasureLogError, match="fewer lines"):
        log.read(START)


def test_a_disk_that_is_full_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "erasures.log"
    log = FileErasureLog(path)
    add(log, b"one")
    whole = os.pwrite

    def half(file: int, data: bytes, at: int) -> int:
        return whole(file, data[: len(data) // 2], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        _, end = log.read(START)
        with pytest.raises(StoreFullError):
            log.append(end, b"a longer line")
    assert log.read(START)[0] == [b"one"]
    add(log, b"two")
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("content", [b"notes without a line feed", b"{", b"a line\n"])
def test_another_file_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(KMSError):
        FileErasureLog(path).append(START, b"line")
    assert path.read_bytes() == content


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "erasures.log"
    add(FileErasureLog(path), b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_no_file_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(ErasureLogError):
        FileErasureLog(tmp_path).read(START)


@pytest.mark.parametrize(
    "url", ["", "erasures.log", "/var/lib/erasures.log", "file://host/a.log", "file:///", "memory://", "http://a/b"]
)
def test_what_is_no_place_for_a_log_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use file:///var"):
        open_erasure_log(url)


def test_a_url_names_a_file_as_urls_do(tmp_path: Path) -> None:
    add(open_erasure_log(f"file://{tmp_path}/a%20log"), b"one")
    assert (tmp_path / "a log").read_bytes() == b"one\n"
    assert open_erasure_log(tmp_path / "a log").read(START)[0] == [b"one"]


def test_a_database_that_is_away_is_said_to_be() -> None:
    log = open_erasure_log("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    assert isinstance(log, SqlErasureLog)
    with pytest.raises(KMSError) as failed:
        log.read(START)
    assert failed.value.retryable
