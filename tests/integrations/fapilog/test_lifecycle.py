"""fapilog never stops a sink: however a process ends, what it was told is safe is there, and the log verifies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fapilog
import pytest

from keystead.integrations.fapilog import SealedSink, opened, require_sealed
from keystead.integrations.fapilog.opened import open_logs
from keystead.ledger import Verifier
from tests.docs.blocks import ROOT
from tests.integrations.fapilog.apps import (
    KEY_TEXT,
    log_file,
    messages,
    policy_of_key,
    records,
    settings_for,
    verified,
)

PROGRAM = Path(__file__).with_name("program.py")
KILLS = 100 if os.environ.get("KEYSTEAD_SOAK") else 2
WITHOUT_ENRICHER = {"enrichers": ["runtime_info"]}


def started(folder: Path, count: int, how: str, *options: dict[str, Any]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_CORE")}
    environment |= {"FAPILOG_CORE__ATEXIT_DRAIN_TIMEOUT_SECONDS": "60", "FAPILOG_TAMPER_KEY": KEY_TEXT}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, str(PROGRAM), str(folder), str(count), how, *(json.dumps(each) for each in options)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder: Path, count: int, how: str, *options: dict[str, Any]) -> tuple[int, str]:
    process = started(folder, count, how, *options)
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def test_a_process_that_exits_without_a_word_leaves_every_record_in_a_closed_log(folder: Path) -> None:
    assert run(folder, 300, "exit", WITHOUT_ENRICHER) == (0, "")
    assert verified(log_file(folder), expect_closed=True).valid
    assert messages(log_file(folder)) == [f"record {number}" for number in range(300)]


@pytest.mark.parametrize("core", [{}, WITHOUT_ENRICHER], ids=["integrity", "sink alone"])
def test_a_process_that_is_terminated_leaves_every_record_that_fapilog_drained(
    folder: Path, core: dict[str, Any]
) -> None:
    status, errors = run(folder, 300, "term", core)
    assert (status, errors) == (-signal.SIGTERM, "")
    report = verified(log_file(folder))
    assert (report.valid, report.closed) == (True, not core)
    assert messages(log_file(folder)) == [f"record {number}" for number in range(300)]


def test_a_second_start_goes_on_with_the_log(folder: Path) -> None:
    for _ in range(2):
        assert run(folder, 20, "drain") == (0, "")
    report = verified(log_file(folder), expect_closed=True)
    assert (report.valid, report.sessions) == (True, 2)
    assert messages(log_file(folder)) == [f"record {number}" for number in range(20)] * 2


@pytest.mark.parametrize("how", ["synced", "flushed"])
def test_a_process_that_is_killed_loses_nothing_it_was_told_is_safe(folder: Path, how: str) -> None:
    expected = 0
    for kill in range(KILLS):
        process = started(folder, 5_000, how)
        assert process.stdout is not None
        acknowledged = -1
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= 30 + 13 * kill:
                break
        process.kill()
        rest = process.communicate(timeout=240)[0].splitlines()
        acknowledged = int(rest[-1]) if rest and rest[-1].isdecimal() else acknowledged
        report = verified(log_file(folder))
        assert (report.errors, report.closed) == ([], False)
        found = [record["data"]["number"] for record in records(log_file(folder))][expected:]
        assert found == list(range(len(found)))
        assert len(found) > acknowledged
        expected += len(found)
    assert run(folder, 1, "drain") == (0, "")
    assert verified(log_file(folder), expect_closed=True).valid


def test_processes_that_write_one_file_each_get_a_stream_of_their_own(folder: Path) -> None:
    processes = [started(folder, 200, "drain") for _ in range(2)]
    assert [(process.communicate(timeout=240)[1], process.returncode) for process in processes] == [("", 0)] * 2
    files = sorted(folder.glob("*.jsonl"))
    policy = policy_of_key()
    assert all(Verifier(policy).verify(file, expect_closed=True).valid for file in files)
    assert sum(len(messages(file)) for file in files) == 400
    assert len(list(folder.glob("*.key"))) == 1


def test_a_file_that_another_process_writes_is_refused_where_that_was_asked_for(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    sink.open()
    status, errors = run(folder, 1, "drain", {}, {"on_conflict": "refuse"})
    assert status == 1
    assert "SealedLogRefusedError: no record would be sealed" in errors
    assert "one log has one writer" in errors


def test_a_forked_worker_writes_a_stream_of_its_own(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    sink.open()
    policy = sink.trust_policy()
    _write_in_child(sink)
    asyncio.run(_write(sink, "parent"))
    files = sorted(folder.glob("*.jsonl"))
    assert sorted(messages(file) for file in files) == [["child"], ["parent"]]
    assert all(Verifier(policy).verify(file, expect_closed=True).valid for file in files)


def test_records_that_waited_in_the_parent_are_not_written_by_its_child(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    sink._attached().take(b'{"message":"parent"}')
    _write_in_child(sink)
    asyncio.run(_write(sink, "after"))
    found = {tuple(messages(file)) for file in folder.glob("*.jsonl")}
    assert found == {("child", "parent", "after")}


def _write_in_child(sink: SealedSink) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.run(_write(sink, "child"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


async def _write(sink: SealedSink, message: str) -> None:
    await sink.write({"message": message})
    await sink.stop()


class Stuck:
    """Holds fapilog's worker up where a record is encoded, until it is told to go on."""

    def __init__(self) -> None:
        self.is_held = threading.Event()
        self.goes_on = threading.Event()

    def of_entry(self, entry: object) -> bytes:
        self.is_held.set()
        self.goes_on.wait(30)
        return b"{}"


class TestExit:
    """What is done where the interpreter exits, called here without one that does."""

    def test_a_logger_that_does_not_end_is_said_and_leaves_a_log_that_is_signed_and_open(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        logger = fapilog.get_logger(settings=settings_for(folder, core=WITHOUT_ENRICHER), reuse=False)
        sink = require_sealed(logger)
        policy = sink.trust_policy()
        stuck = Stuck()
        monkeypatch.setattr(sink, "_encoder", stuck)
        logger.info("one")
        assert stuck.is_held.wait(10)
        thread = logger._worker_thread
        assert thread is not None
        monkeypatch.setattr(opened, "EXIT_S", 0.02)
        open_logs._at_exit()
        assert "a logger did not end within 0.02 s; what it still held is lost" in capfd.readouterr().err
        report = Verifier(policy).verify(log_file(folder))
        assert (report.valid, report.closed, report.vouched) == (True, False, 1)
        stuck.goes_on.set()
        thread.join(10)

    def test_a_logger_is_waited_for_beyond_the_time_after_which_fapilog_throws_records_away(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logger = fapilog.get_logger(settings=settings_for(folder), reuse=False)
        require_sealed(logger)
        logger.info("one")
        waits: list[float | None] = []
        join = threading.Thread.join

        def joined(thread: threading.Thread, timeout: float | None = None) -> None:
            waits.append(timeout)
            join(thread, timeout)

        monkeypatch.setattr(threading.Thread, "join", joined)
        open_logs._at_exit()
        assert waits[0] is not None
        assert waits[0] >= opened.EXIT_S > 5.0
        assert messages(log_file(folder)) == ["one"]
        assert verified(log_file(folder), expect_closed=True).valid

    def test_a_logger_that_was_drained_is_left_as_it_is(self, folder: Path) -> None:
        logger = fapilog.get_logger(settings=settings_for(folder, core=WITHOUT_ENRICHER), reuse=False)
        require_sealed(logger)
        logger._drain_thread_mode(warn_on_timeout=False)
        open_logs._at_exit()
        assert verified(log_file(folder), expect_closed=True).valid

    def test_a_logger_that_cannot_be_drained_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        logger = fapilog.get_logger(settings=settings_for(folder), reuse=False)
        require_sealed(logger)
        with monkeypatch.context() as patched:
            patched.delattr(type(logger).__mro__[1], "_drain_thread_mode")
            open_logs._at_exit()
        assert "a logger of this fapilog cannot be drained here" in capfd.readouterr().err
        assert not verified(log_file(folder)).closed
        asyncio.run(logger.stop_and_drain())

    def test_a_fapilog_without_what_is_used_of_it_leaves_logs_open(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink = SealedSink(inner_config={"directory": str(folder)})
        sink.open()
        monkeypatch.delattr("fapilog.core.shutdown._registered_loggers")
        open_logs._at_exit()
        assert verified(log_file(folder)).valid
        assert b'"k":"close"' not in log_file(folder).read_bytes()

    def test_what_could_not_be_sealed_at_the_end_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        sink = SealedSink(inner_config={"directory": str(folder)})
        sink._attached().take(b"{}")
        with monkeypatch.context() as patched:
            patched.delenv("FAPILOG_TAMPER_KEY")
            open_logs._at_exit()
        assert "it could not be ended well: " in capfd.readouterr().err
