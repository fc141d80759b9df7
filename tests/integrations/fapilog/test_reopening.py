"""The log behind a sink: opened, lost, taken up by another, closed by somebody, and opened again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from fapilog.core.errors import SinkWriteError

from keystead.errors import ConflictError, ProviderConnectionError, StorageOperationError, SystemShutdownError
from keystead.integrations.fapilog import log as log_module
from keystead.integrations.fapilog.alarm import Alarm
from keystead.integrations.fapilog.opened import open_logs
from keystead.ledger import SealedFile
from keystead.testing import FakeKMS
from tests.integrations.fapilog.apps import log_file, messages, policy_of_key, verified
from tests.integrations.fapilog.conftest import close_all
from tests.integrations.fapilog.test_failures import kms_sink, sink_of, until, written


async def test_a_sink_that_has_no_log_says_so_once_and_not_for_every_record(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sink_of(folder).open()
    other, spilling = sink_of(folder, epoch_s=60), sink_of(folder, epoch_s=60, on_failure="stderr")
    for _ in range(3):
        await other.write({"message": "x"})
        with pytest.raises(SinkWriteError, match="by settings that differ"):
            await spilling.write({"message": "x"})
    said = capfd.readouterr().err
    assert said.count("records are lost: two sealed sinks of this process write") == 1
    assert said.count("records go to stderr unsealed: two sealed sinks of this process write") == 1


async def test_whoever_writes_very_many_at_once_waits_for_them_to_be_sealed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.integrations.fapilog.sink.ENOUGH_AT_ONCE", 3)
    sink = sink_of(folder)
    for number in range(7):
        await sink.write({"message": str(number)})
        assert sink._attached().waiting < 3
    await sink.stop()
    assert messages(log_file(folder)) == [str(number) for number in range(7)]


async def test_a_stream_of_records_without_a_pause_is_sealed_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.integrations.fapilog.sink._MOST_TURNS", 1)
    sink = sink_of(folder)
    await sink.write({"message": "one"})
    await until(lambda: log_file(folder).exists() and messages(log_file(folder)) == ["one"])


async def test_a_log_that_was_closed_while_it_was_written_is_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(folder)
    await sink.start()
    file = sink._attached().open()

    def closed(records: list[bytes]) -> None:
        file.close()
        raise SystemShutdownError("the log is closed")

    monkeypatch.setattr(file, "append_many", closed)
    await sink.write({"message": "one"})
    await sink.flush()
    assert messages(log_file(folder)) == ["one"]


async def test_a_log_that_failed_is_not_tried_for_every_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "RETRY_S", 3600.0)
    kms = FakeKMS()
    sink = kms_sink(folder, kms, on_failure="stderr")
    kms.fail_always(ProviderConnectionError("away"))
    for attempt in (sink.start, sink.start):
        with pytest.raises(ProviderConnectionError):
            await attempt()
    calls = kms.calls["generate_data_key"]
    for _ in range(5):
        with pytest.raises(SinkWriteError):
            await sink.write({"message": "x"})
        with pytest.raises(ProviderConnectionError):
            await asyncio.to_thread(sink._attached().open)
    assert kms.calls["generate_data_key"] == calls
    kms.heal()
    await sink.stop()


async def test_nothing_is_opened_by_a_flush_of_nothing(folder: Path) -> None:
    sink = sink_of(folder)
    await sink.flush()
    await asyncio.to_thread(sink._attached().probe)
    assert not folder.exists()


async def test_a_flush_that_does_not_reach_the_disk_is_an_error_and_no_health(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(folder)
    await sink.start()

    def full() -> None:
        raise StorageOperationError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(sink._attached().open(), "flush", full)
        with pytest.raises(StorageOperationError, match="no space"):
            await sink.flush()
    assert not await sink.health_check()
    await sink.stop()


def test_a_file_that_another_writes_is_left_to_it_or_refused(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    with SealedFile(log_file(folder), stream="fapilog/fapilog", kms=FakeKMS(), key_id="other"):
        with pytest.raises(ConflictError):
            sink_of(folder, on_conflict="refuse", epoch_s=60).open()
        sink = sink_of(folder, stream="example.org/app")
        log_file(folder).rename(folder / "moved")  # whose key is another one
        asyncio.run(written(sink, "two"))
        (folder / "moved").rename(log_file(folder))
    assert messages(folder / "fapilog-2.jsonl") == ["two"]
    assert verified(folder / "fapilog-2.jsonl", policy_of_key("example.org/app"), expect_closed=True).valid


async def test_a_log_that_another_sink_takes_up_while_it_is_closed_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sink_of(folder), sink_of(folder)
    await first.start()
    log = first._attached()
    close = log.close

    def taken_up() -> None:
        second._attached()
        close()

    monkeypatch.setattr(log, "close", taken_up)
    await first.stop()
    assert second._attached() is log
    monkeypatch.setattr(log, "close", close)
    await second.write({"message": "one"})
    await second.stop()
    assert messages(log_file(folder)) == ["one"]


async def test_a_log_that_is_not_of_this_process_any_more_is_not_closed_twice(folder: Path) -> None:
    sink = sink_of(folder)
    await sink.start()
    close_all(open_logs)
    await sink.stop()
    assert verified(log_file(folder), expect_closed=True).valid


def test_an_alarm_reaches_stderr_where_logging_is_not_set_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    Alarm("app.jsonl").say("it burns", "fire")
    assert capfd.readouterr().err == "keystead: the sealed log app.jsonl: it burns\n"
    assert caplog.records == []
