"""The real fapilog writes through the sink: whatever enrichers, redactors, processors and workers do before it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import fapilog
import pytest
from fapilog import LoggerBuilder
from fapilog.core.serialization import serialize_envelope

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog import SealedSink, require_sealed
from tests.integrations.fapilog.apps import log_file, messages, records, settings_for, verified

COUNT = 100_000 if os.environ.get("KEYSTEAD_SOAK") else 1_000


def drain(logger: Any) -> Any:
    return asyncio.run(logger.stop_and_drain())


def test_an_application_of_settings_and_redactors_writes_records_that_all_verify(folder: Path) -> None:
    settings = settings_for(
        folder,
        core={"redactors": ["url_credentials", "field_mask", "regex_mask"]},
        inner_config={"directory": str(folder), "max_bytes": "64 MB"},
    )
    settings.redactor_config.field_mask.fields_to_mask = ["data.card"]
    logger = fapilog.get_logger("shop", settings=settings)
    policy = require_sealed(logger).trust_policy()
    for number in range(COUNT):
        logger.info("paid", number=number, card="4111 1111", page="https://ada:secret@example.org/x")
    assert drain(logger).dropped == 0
    report = verified(log_file(folder), policy, expect_closed=True)
    assert (report.errors, report.closed, report.vouched) == ([], True, report.size - 1)
    found = records(log_file(folder))
    assert [record["data"]["number"] for record in found] == list(range(COUNT))
    assert {(record["data"]["card"], record["data"]["page"]) for record in found} == {("***", "https://example.org/x")}


def test_an_application_of_the_builder_writes_records_that_all_verify(folder: Path) -> None:
    builder = LoggerBuilder().with_name("built").with_level("INFO").with_plugins(allow_external=True).reuse(False)
    builder.with_enrichers("runtime_info", "integrity").with_redaction(preset="CREDENTIALS")
    builder._sinks.append({"name": "sealed", "config": {"inner_config": {"directory": str(folder)}}})
    logger = builder.build()
    for number in range(50):
        logger.info("built", number=number, password="secret")
    drain(logger)
    assert verified(log_file(folder), expect_closed=True).valid
    assert [record["data"]["password"] for record in records(log_file(folder))] == ["***"] * 50


def test_the_bytes_that_are_sealed_are_those_fapilogs_own_sinks_write(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    entry = {"timestamp": "2026-01-02T03:04:05Z", "level": "INFO", "message": "é", "data": {"b": 1, "a": 2}}
    asyncio.run(_write(sink, [entry]))
    assert serialize_envelope(entry).data in log_file(folder).read_bytes()


@pytest.mark.parametrize(
    "enrichers", [["runtime_info", "integrity"], ["integrity", "context_vars", "runtime_info"], []]
)
def test_enrichers_in_any_order_change_nothing_of_what_verifies(folder: Path, enrichers: list[str]) -> None:
    logger = fapilog.get_logger(settings=settings_for(folder, core={"enrichers": enrichers}), reuse=False)
    logger.info("one")
    drain(logger)
    assert verified(log_file(folder)).valid
    assert messages(log_file(folder)) == ["one"]


def test_the_enricher_says_which_stream_and_session_seal_the_record(folder: Path) -> None:
    logger = fapilog.get_logger(settings=settings_for(folder), reuse=False)
    sink = require_sealed(logger)
    session = sink.session_id
    logger.info("one")
    drain(logger)
    (record,) = records(log_file(folder))
    assert record["diagnostics"]["integrity"] == {"stream": "fapilog/fapilog", "session": session}
    assert session is not None
    assert session.encode() in log_file(folder).read_bytes().splitlines()[0]


def test_a_logger_that_serializes_first_is_sealed_and_closed_as_well(folder: Path) -> None:
    core = {"serialize_in_flush": True, "processors": ["zero_copy"]}
    logger = fapilog.get_logger(settings=settings_for(folder, core=core), reuse=False)
    for number in range(20):
        logger.info("serialized", number=number)
    drain(logger)
    assert verified(log_file(folder), expect_closed=True).valid
    assert [record["data"]["number"] for record in records(log_file(folder))] == list(range(20))


def test_bytes_of_a_processor_that_are_no_json_are_sealed_within_json(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    asyncio.run(_write_views(sink, [b'{"a":1}', b'{"a":\n1}', b"plain text", b"\xff\x00", b'{"a":1}\n', b""]))
    assert verified(log_file(folder)).valid
    lines = [json.loads(line)["d"] for line in log_file(folder).read_bytes().splitlines()]
    sealed = [each for each in lines if not isinstance(each, dict) or set(each) <= {"a", "base64"}]
    assert sealed[:6] == [{"a": 1}, '{"a":\n1}', "plain text", {"base64": "/wA="}, {"a": 1}, ""]


def test_several_workers_and_concurrent_writes_lose_nothing(folder: Path) -> None:
    core = {"worker_count": 2, "sink_concurrency": 8, "batch_max_size": 16}
    logger = fapilog.get_logger(settings=settings_for(folder, core=core), reuse=False)
    for number in range(300):
        logger.info("concurrent", number=number)
    drain(logger)
    assert verified(log_file(folder)).valid
    assert sorted(record["data"]["number"] for record in records(log_file(folder))) == list(range(300))


def test_other_sinks_beside_it_get_what_they_always_get(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    core = {"sinks": ["stdout_json", "sealed"], "sink_parallel_writes": True}
    logger = fapilog.get_logger(settings=settings_for(folder, core=core), reuse=False)
    logger.info("both")
    drain(logger)
    assert '"message":"both"' in capfd.readouterr().out
    assert messages(log_file(folder)) == ["both"]


def test_two_loggers_with_the_same_settings_share_one_log(folder: Path) -> None:
    settings = settings_for(folder)
    first, second = (fapilog.get_logger(name, settings=settings, reuse=False) for name in ("first", "second"))
    first.info("one")
    drain(first)
    second.info("two")
    drain(second)
    assert verified(log_file(folder), expect_closed=True).valid
    assert messages(log_file(folder)) == ["one", "two"]
    assert log_file(folder).read_bytes().count(b'"k":"session"') == 0


def test_sinks_that_write_one_file_by_settings_that_differ_are_refused(folder: Path) -> None:
    SealedSink(inner_config={"directory": str(folder)}).open()
    with pytest.raises(ConfigurationError, match="by settings that differ"):
        SealedSink(inner_config={"directory": str(folder)}, epoch_s=60).open()


def test_an_async_logger_in_the_applications_own_loop_is_sealed(folder: Path) -> None:
    async def serve() -> None:
        logger = await fapilog.get_async_logger("served", settings=settings_for(folder), reuse=False)
        for number in range(20):
            await logger.info("served", number=number)
        await logger.drain()

    asyncio.run(serve())
    assert verified(log_file(folder), expect_closed=True).valid
    assert len(records(log_file(folder))) == 20


def test_a_record_after_the_end_opens_the_log_again(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    asyncio.run(_write(sink, [{"message": "before"}]))
    asyncio.run(_write(sink, [{"message": "after"}]))
    assert verified(log_file(folder), expect_closed=True).sessions == 2
    assert messages(log_file(folder)) == ["before", "after"]


async def _write(sink: SealedSink, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        await sink.write(entry)
    await sink.stop()


async def _write_views(sink: SealedSink, contents: list[bytes]) -> None:
    for content in contents:
        await sink.write_serialized(content)
    await sink.stop()
