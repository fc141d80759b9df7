"""The enricher: it says who seals, agrees with the sink or is refused, and ends the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import fapilog
import pytest
from fapilog.core.settings import RoutingRule

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog import (
    IntegrityEnricher,
    IntegrityEnricherConfig,
    SealedSink,
    TamperConfig,
    require_sealed,
)
from tests.integrations.fapilog.apps import log_file, messages, policy_of_key, records, settings_for, verified


@pytest.fixture
def sink(folder: Path) -> SealedSink:
    return SealedSink(inner_config={"directory": str(folder)})


async def test_it_adds_stream_and_session_and_nothing_else(sink: SealedSink) -> None:
    enricher = IntegrityEnricher()
    event = {"message": "m", "diagnostics": {"origin": "native"}}
    assert await enricher.enrich(event) == {"diagnostics": {"integrity": {"stream": sink.stream, "session": None}}}
    sink.open()
    assert await enricher.enrich(event) == {
        "diagnostics": {"integrity": {"stream": sink.stream, "session": sink.session_id}}
    }
    assert event == {"message": "m", "diagnostics": {"origin": "native"}}


async def test_alone_it_says_loudly_that_nothing_is_sealed() -> None:
    enricher = IntegrityEnricher()
    with pytest.warns(RuntimeWarning, match="alone seals nothing"):
        await enricher.start()
    assert await enricher.enrich({"message": "m"}) == {}
    assert not await enricher.health_check()


async def test_of_several_sinks_it_belongs_to_the_one_whose_stream_it_is_told(tmp_path: Path) -> None:
    first = SealedSink(path=str(tmp_path / "a.log"), stream="example.org/a")
    second = SealedSink(path=str(tmp_path / "b.log"), stream="example.org/b")
    for made, stream in (
        (IntegrityEnricher(), second.stream),
        (IntegrityEnricher(stream_id="example.org/a"), first.stream),
        (IntegrityEnricher(IntegrityEnricherConfig(stream="example.org/a")), first.stream),
    ):
        assert (await made.enrich({}))["diagnostics"]["integrity"]["stream"] == stream


async def test_its_end_closes_the_log_that_fapilog_leaves_open(sink: SealedSink) -> None:
    enricher = IntegrityEnricher()
    await sink.write({"message": "one"})
    await enricher.stop()
    await enricher.stop()
    assert verified(sink.path, expect_closed=True).valid


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"key_provider": "aws-kms", "key_id": "alias/x"}, "key_provider='aws-kms'"),
        ({"use_kms_signing": True}, "use_kms_signing=True"),
        ({"algorithm": "ed25519"}, "algorithm='Ed25519'"),
    ],
)
def test_what_it_says_of_keys_has_to_be_what_the_sink_says(sink: SealedSink, config: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        IntegrityEnricher(config)
    assert name in str(refused.value)
    assert "sink_config.extra['sealed']" in str(refused.value)


def test_a_key_id_that_differs_from_the_sinks_is_refused(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)}, key_id="one")
    with pytest.raises(ConfigurationError, match="key_id='two' and the sink 'one'"):
        IntegrityEnricher(key_id="two")
    del sink


def test_a_label_for_a_key_of_this_machine_may_stand_here_alone(sink: SealedSink) -> None:
    IntegrityEnricher(key_id="audit-key", chain_state_path="/var/lib/x", rotate_chain=True)


async def test_disabled_it_adds_nothing_and_the_sink_seals_all_the_same(folder: Path, sink: SealedSink) -> None:
    enricher = IntegrityEnricher(TamperConfig(enabled=False))
    assert await enricher.enrich({}) == {}
    await enricher.start()
    await sink.write({"message": "one"})
    await sink.stop()
    assert verified(log_file(folder)).valid


def test_a_redactor_that_takes_its_fields_away_takes_nothing_from_the_seal(folder: Path) -> None:
    settings = settings_for(folder, core={"redactors": ["field_blocker"]})
    settings.redactor_config.field_blocker.blocked_fields = ["integrity"]
    logger = fapilog.get_logger(settings=settings, reuse=False)
    logger.info("one")
    asyncio.run(logger.stop_and_drain())
    assert verified(log_file(folder), expect_closed=True).valid


def test_it_claims_no_seal_for_a_logger_without_the_sink_where_another_logger_has_one(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sealing = fapilog.get_logger("sealing", settings=settings_for(folder), reuse=False)
    unsealed = fapilog.get_logger(
        "unsealed", settings=settings_for(folder, core={"sinks": ["stdout_json"]}), reuse=False
    )
    unsealed.info("not sealed")
    asyncio.run(unsealed.stop_and_drain())
    said = capfd.readouterr()
    assert "not sealed" in said.out
    assert "fapilog/fapilog" not in said.out
    assert "nothing is sealed: add the sink 'sealed' to core.sinks" in said.err
    sealing.info("sealed")
    asyncio.run(sealing.stop_and_drain())
    assert messages(log_file(folder)) == ["sealed"]
    assert verified(log_file(folder), expect_closed=True).valid


def test_it_names_the_sink_of_its_own_logger_and_not_the_one_made_last(tmp_path: Path) -> None:
    loggers = [
        fapilog.get_logger(name, settings=settings_for(tmp_path / name, extra={"stream": f"s/{name}"}), reuse=False)
        for name in ("a", "b")
    ]
    bound: Any = loggers[0]._enrichers[1]
    bound._sink = SealedSink(path=str(tmp_path / "c.log"), stream="s/c")  # as if that had been made last
    for name, logger in zip(("a", "b"), loggers, strict=True):
        logger.info("one")
        asyncio.run(logger.stop_and_drain())
        (record,) = records(log_file(tmp_path / name))
        assert record["diagnostics"]["integrity"]["stream"] == f"s/{name}"
        assert verified(log_file(tmp_path / name), policy_of_key(f"s/{name}"), expect_closed=True).valid


def test_sinks_that_levels_are_routed_to_seal_as_well(folder: Path) -> None:
    settings = settings_for(folder)
    settings.sink_routing.enabled = True
    settings.sink_routing.rules = [RoutingRule(levels=["ERROR"], sinks=["sealed"])]
    settings.sink_routing.fallback_sinks = ["stdout_json"]
    logger = fapilog.get_logger(settings=settings, reuse=False)
    require_sealed(logger)
    logger.info("elsewhere")
    logger.error("here")
    asyncio.run(logger.stop_and_drain())
    assert messages(log_file(folder)) == ["here"]
    assert verified(log_file(folder), expect_closed=True).valid


async def test_a_sink_made_later_that_contradicts_it_is_told_at_the_start(folder: Path) -> None:
    enricher = IntegrityEnricher(algorithm="ed25519")
    sink = SealedSink(inner_config={"directory": str(folder)})
    with pytest.raises(ConfigurationError, match="algorithm='Ed25519'"):
        await enricher.start()
    assert await enricher.enrich({}) == {}
    del sink
