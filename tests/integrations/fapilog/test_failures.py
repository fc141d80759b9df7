"""When it cannot seal: no record goes unsealed, unless that was asked for, and then everybody hears of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fapilog
import pytest
from fapilog.core.errors import SinkWriteError

from keystead.errors import ConfigurationError, KeyNotFoundError, ProviderConnectionError, StorageOperationError
from keystead.integrations.fapilog import AwsKmsProvider, SealedLogRefusedError, SealedSink
from keystead.integrations.fapilog import log as log_module
from keystead.integrations.fapilog.sink import SealedSinkPlugin
from keystead.ledger import Verifier
from keystead.testing import FakeKMS
from tests.integrations.fapilog.apps import VARIABLE, log_file, messages, records, settings_for, verified


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "RETRY_S", 0.0)
    monkeypatch.setattr("keystead.integrations.fapilog.sink.RETRY_S", 0.02)


def sink_of(folder: Path, **options: Any) -> SealedSink:
    return SealedSink(inner_config={"directory": str(folder)}, **options)


def kms_sink(folder: Path, kms: FakeKMS, **options: Any) -> SealedSink:
    kms.create_key("alias/audit")
    return sink_of(folder, provider=AwsKmsProvider("alias/audit", kms=kms.provider("aws")), **options)


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was so")


@pytest.mark.parametrize("value", [None, "", "short", "x" * 32 + "y", "/etc/passwd"])
def test_a_variable_without_a_key_is_an_error_and_nothing_iswritten(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(VARIABLE) if value is None else monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigurationError, match="FAPILOG_TAMPER_KEY holds no key"):
        sink_of(folder).open()
    assert not log_file(folder).exists()


def test_a_key_file_that_is_gone_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError, match="there is no"):
        sink_of(folder, key_provider="file", key_file_path=str(tmp_path / "gone")).open()


def test_another_key_than_the_logs_is_refused_before_a_record_is_sealed_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(written(sink_of(folder), "one"))
    before = log_file(folder).read_bytes()
    own = os.environ[VARIABLE]
    monkeypatch.setenv(VARIABLE, "2e" * 32)
    with pytest.raises(SealedLogRefusedError, match="was sealed under another KEK"):
        fapilog.get_logger(settings=settings_for(folder), reuse=False)
    assert log_file(folder).read_bytes() == before
    monkeypatch.setenv(VARIABLE, f"{'2e' * 32},{own}")
    asyncio.run(written(sink_of(folder), "two"))
    assert messages(log_file(folder)) == ["one", "two"]
    assert verified(log_file(folder)).valid


def test_a_key_that_the_application_takes_out_of_its_environment_goes_on_sealing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(folder)
    sink.open()
    key = os.environ[VARIABLE]
    monkeypatch.delenv(VARIABLE)
    asyncio.run(sink.checkpoint())
    asyncio.run(written(sink, "one"))
    monkeypatch.setenv(VARIABLE, key)
    assert verified(log_file(folder), expect_closed=True).valid


async def test_records_wait_while_the_kms_is_away_and_are_sealed_when_it_is_back(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kms = FakeKMS()
    sink = kms_sink(folder, kms)
    kms.fail_always(ProviderConnectionError("away"))
    with pytest.raises(ProviderConnectionError):
        await sink.start()
    for number in range(10):
        await sink.write({"message": str(number)})
    await until(lambda: "cannot be written" in capfd.readouterr().err or kms.calls["generate_data_key"] > 1)
    assert not await sink.health_check()
    assert not log_file(folder).exists()
    kms.heal()
    await until(log_file(folder).exists)
    await sink.flush()
    assert await sink.health_check()
    policy = await asyncio.to_thread(sink.trust_policy)
    await sink.stop()
    assert messages(log_file(folder)) == [str(number) for number in range(10)]
    assert Verifier(policy, {"aws": kms.provider("aws")}).verify(log_file(folder), expect_closed=True).valid


async def test_no_record_reaches_stderr_while_the_log_cannot_be_opened(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kms = FakeKMS()
    sink = kms_sink(folder, kms)
    kms.fail_always(ProviderConnectionError("away"))
    logger = fapilog.get_logger(
        settings=settings_for(folder, core={"sinks": ["stdout_json"]}), sinks=[sink], reuse=False
    )
    logger.info("confidential")
    await logger.stop_and_drain()
    said = capfd.readouterr()
    assert "confidential" not in said.out + said.err
    assert "keystead: the sealed log fapilog.jsonl: it cannot be written, and records wait" in said.err
    kms.heal()
    await sink.flush()
    assert messages(log_file(folder)) == ["confidential"]


async def test_what_is_lost_beyond_the_bound_is_counted_and_the_count_is_sealed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 3)
    kms = FakeKMS()
    sink = kms_sink(folder, kms)
    kms.fail_always(ProviderConnectionError("away"))
    for number in range(8):
        await sink.write({"message": str(number)})
    assert "records are lost: too many records wait to be sealed" in capfd.readouterr().err
    kms.heal()
    await sink.flush()
    await sink.stop()
    gap, *kept = records(log_file(folder))
    assert [record["message"] for record in kept] == ["0", "1", "2"]
    assert gap["message"] == "5 records could not be sealed, and are lost"
    assert (gap["level"], gap["diagnostics"]["integrity"]["unsealed"]) == ("ERROR", 5)


async def test_by_option_what_cannot_be_sealed_goes_to_stderr_loudly(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kms = FakeKMS()
    kms.create_key("alias/audit")
    kms.fail_always(ProviderConnectionError("away"))
    provider = AwsKmsProvider("alias/audit", kms=kms.provider("aws"))
    sink = await asyncio.to_thread(
        lambda: SealedSinkPlugin(inner_config={"directory": str(folder)}, provider=provider, on_failure="stderr")
    )
    assert "go to stderr unsealed" in capfd.readouterr().err
    with pytest.raises(SinkWriteError, match="not sealed: "):
        await sink.write({"message": "0"})
    settings = settings_for(folder, core={"sinks": ["stdout_json"], "enrichers": []})
    logger = fapilog.get_logger(settings=settings, sinks=[sink], reuse=False)
    logger.info("for everybody to see")
    await logger.stop_and_drain()
    assert "for everybody to see" in capfd.readouterr().err
    kms.heal()
    await sink.write({"message": "2"})
    await sink.stop()
    gap, sealed = records(log_file(folder))
    assert gap["message"] == "2 records could not be sealed, and went to stderr unsealed"
    assert sealed["message"] == "2"


def test_by_option_a_setting_that_cannot_be_is_refused_all_the_same(folder: Path) -> None:
    with pytest.raises(SealedLogRefusedError):
        SealedSinkPlugin(inner_config={"directory": str(folder)}, on_failure="stderr", fsync="x")


async def test_the_event_loop_never_waits_for_the_kms(folder: Path) -> None:
    kms = FakeKMS()
    kms.create_key("alias/audit")
    entered, released = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow:
        provider_name = "aws"

        async def encrypt(self, *given: Any, **named: Any) -> Any:
            loop.call_soon_threadsafe(entered.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(released.wait(), loop))
            return await kms.provider("aws").encrypt(*given, **named)

        async def decrypt(self, *given: Any, **named: Any) -> Any:
            return await kms.provider("aws").decrypt(*given, **named)

    sink = SealedSinkPlugin(inner_config={"directory": str(folder)}, provider=AwsKmsProvider("alias/audit", kms=Slow()))
    assert sink.session_id is None
    await sink.write({"message": "one"})
    await entered.wait()
    await sink.write({"message": "two"})
    released.set()
    await sink.flush()
    await sink.stop()
    assert messages(log_file(folder)) == ["one", "two"]


def test_where_no_event_loop_runs_the_kms_is_waited_for_and_its_denial_ends_the_start(folder: Path) -> None:
    kms = FakeKMS()
    kms.fail_always(ProviderConnectionError("away"))
    with pytest.raises(SealedLogRefusedError):
        SealedSinkPlugin(
            inner_config={"directory": str(folder)}, provider=AwsKmsProvider("alias/audit", kms=kms.provider("aws"))
        )


async def test_a_disk_that_takes_nothing_is_said_and_its_records_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = sink_of(folder)
    await sink.start()
    file = sink._attached().open()

    def full(records: list[bytes]) -> None:
        raise StorageOperationError("the log's disk takes nothing, and too much is waiting for it; make room")

    with monkeypatch.context() as patched:
        patched.setattr(file, "append_many", full)
        await sink.write({"message": "one"})
        await until(lambda: "make room" in capfd.readouterr().err)
    await sink.flush()
    assert messages(log_file(folder)) == ["one"]


async def test_a_fault_of_the_sink_itself_is_said_and_its_records_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = sink_of(folder)
    await sink.start()
    calls = 0

    def broken(records: list[bytes]) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(sink._attached().open(), "append_many", broken)
        await sink.write({"message": "one"})
        await until(lambda: "a fault of the sealed sink itself (ZeroDivisionError)" in capfd.readouterr().err)
    assert calls < 100
    await until(lambda: messages(log_file(folder)) == ["one"])


async def test_a_log_that_somebody_closed_is_opened_again(folder: Path) -> None:
    sink = sink_of(folder, fsync_on_write=True)
    await sink.start()
    await asyncio.to_thread(sink._attached().open().close)
    await sink.write({"message": "one"})
    assert messages(log_file(folder)) == ["one"]


async def test_what_could_not_be_synced_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kms = FakeKMS()
    sink = kms_sink(folder, kms, fsync_on_write=True)
    kms.fail_always(ProviderConnectionError("away"))
    await sink.write({"message": "one"})
    assert "records wait" in capfd.readouterr().err
    kms.heal()
    await until(lambda: log_file(folder).exists() and messages(log_file(folder)) == ["one"])


def test_a_file_that_is_no_log_is_left_alone_and_ends_the_start(folder: Path) -> None:
    folder.mkdir()
    log_file(folder).write_text("something else\n")
    with pytest.raises(SealedLogRefusedError, match="is no log of Keystead"):
        fapilog.get_logger(settings=settings_for(folder), reuse=False)
    assert log_file(folder).read_text() == "something else\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        sink_of(tmp_path / "file").open()


async def test_what_could_not_be_closed_is_said_and_not_raised(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = sink_of(folder)
    await sink.start()
    file = sink._attached().open()

    def refuse() -> None:
        raise StorageOperationError("the log cannot be written: no space")

    with monkeypatch.context() as patched:
        patched.setattr(file, "close", refuse)
        await sink.stop()
    assert "it could not be closed: the log cannot be written" in capfd.readouterr().err


async def test_an_alarm_is_not_repeated_for_every_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 0)
    sink = sink_of(folder)
    for _ in range(50):
        await sink.write({"message": "x"})
    assert capfd.readouterr().err.count("records are lost") == 1


async def written(sink: SealedSink, message: str) -> None:
    await sink.write({"message": message})
    await sink.stop()
