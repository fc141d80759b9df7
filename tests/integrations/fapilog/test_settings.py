"""Settings of both plugins: the names and defaults of fapilog-tamper, and what cannot be is refused by a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fapilog.core.settings import IntegrityEnricherSettings, SealedSinkSettings
from fapilog.plugins.sinks.rotating_file import RotatingFileSink, RotatingFileSinkConfig
from fapilog.plugins.sinks.stdout_json import StdoutJsonSink

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog import (
    IntegrityEnricher,
    IntegrityEnricherConfig,
    SealedSink,
    SealedSinkConfig,
    TamperConfig,
    coerce_tamper_config,
)
from keystead.integrations.fapilog.settings import SinkSettings, sink_settings

SINK_DEFAULTS: dict[str, Any] = {
    "inner_sink": "rotating_file",
    "inner_config": {},
    "manifest_path": None,
    "sign_manifests": True,
    "key_id": None,
    "key_provider": "env",
    "chain_state_path": None,
    "rotate_chain": False,
    "fsync_on_write": False,
    "fsync_on_rotate": True,
    "compress_rotated": False,
    "use_kms_signing": False,
}
ENRICHER_DEFAULTS = {
    "algorithm": "sha256",
    "key_id": None,
    "key_provider": "env",
    "chain_state_path": None,
    "rotate_chain": False,
    "use_kms_signing": False,
}


def test_the_models_have_the_fields_and_defaults_of_the_reference() -> None:
    assert SealedSinkConfig().model_dump(include=set(SINK_DEFAULTS)) == SINK_DEFAULTS
    assert IntegrityEnricherConfig().model_dump(include=set(ENRICHER_DEFAULTS)) == ENRICHER_DEFAULTS


def test_every_field_of_fapilogs_own_models_is_taken_as_fapilog_hands_it_over(tmp_path: Path) -> None:
    dumped = SealedSinkSettings(inner_config={"directory": str(tmp_path)}).model_dump(exclude_none=True)
    assert SealedSink(**dumped).path == tmp_path / "fapilog.jsonl"
    IntegrityEnricher(**IntegrityEnricherSettings().model_dump(exclude_none=True))


def test_every_field_of_both_is_taken_flat_in_a_dict_and_in_a_model(tmp_path: Path) -> None:
    fields = {
        **SINK_DEFAULTS,
        **TamperConfig(enabled=True, verify_on_close=True).model_dump(exclude={"key_source", "state_dir", "key_id"}),
        "inner_config": {"directory": str(tmp_path)},
    }
    by_name = sink_settings(**fields)
    assert sink_settings(config=fields) == by_name
    assert by_name.keys.verify_on_close
    config = SealedSinkConfig(inner_config={"directory": str(tmp_path)}, compress_rotated=True)
    assert sink_settings(config=config).compress
    assert sink_settings(config=config, key_id="audit").keys.key_id == "audit"
    assert sink_settings(config=TamperConfig(key_source="file", key_file_path="k")).keys.key_file_path == "k"


def test_what_is_given_by_name_wins_over_the_config(tmp_path: Path) -> None:
    assert sink_settings(config={"key_id": "one", "path": str(tmp_path / "x")}, key_id="two").keys.key_id == "two"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fsync_on_wrte": True}, "no setting 'fsync_on_wrte'; did you mean 'fsync_on_write'"),
        ({"nothing_like_it": 1}, "no setting 'nothing_like_it'; there are "),
        ({"key_source": "env", "key_provider": "file"}, "key_provider and key_source are names of one setting"),
        ({"key_provider": "kms"}, "'kms' does not say which"),
        ({"key_cache_ttl_seconds": -5}, "key_cache_ttl_seconds: "),
        ({"algorithm": "md5"}, "algorithm: "),
        ({"enabled": False}, "take 'sealed' out of core.sinks"),
        ({"on_failure": "ignore"}, "on_failure: "),
        ({"on_failure": "stderr", "alert_on_failure": False}, "leave alert_on_failure out"),
        ({"inner_sink": "stdout_json"}, "does not wrap 'stdout_json': a sealed log is a file of its own"),
        ({"inner_sink": StdoutJsonSink()}, "does not wrap StdoutJsonSink"),
        ({"inner_config": {"dir": "x"}}, "inner_config has no 'dir'; there are compress_rotated, directory"),
        ({"inner_config": {"mode": "text"}}, "a sealed record is JSON"),
        ({"inner_config": {"strict_envelope_mode": True}}, "drops no record that is hard to serialize"),
        ({"inner_config": {"max_bytes": 100}}, "max_bytes is at least 4096"),
        ({"inner_config": {"max_bytes": "ten"}}, "max_bytes: Invalid size format"),
        ({"inner_config": {"max_files": "many"}}, "max_files is a number of files"),
        ({"inner_config": {"filename_prefix": "../evil"}}, "filename_prefix is the beginning of a file's name"),
        ({"path": "a.log", "inner_config": {"directory": "b"}}, "path, or directory and filename_prefix"),
        ({"stream": "with spaces"}, "stream: "),
        ({"stream": "a\nb"}, "stream: "),
        ({"key": b"short"}, "key is exactly 32 bytes"),
        ({"key": bytes(32), "provider": object()}, "a key or a provider, not both"),
        ({"key": bytes(32), "use_kms_signing": True}, "use_kms_signing=True needs a KMS"),
        ({"use_kms_signing": True}, "the key source 'env' is none"),
        ({"key_provider": "file"}, "the key source 'file' needs key_file_path"),
        ({"key_provider": "aws-kms"}, "the key source 'aws-kms' needs key_id"),
        ({"key_provider": "vault", "key_id": "k", "algorithm": "ed25519"}, "add use_kms_signing=True"),
        ({"config": object()}, "takes its settings as TamperConfig"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SealedSink(**given)
    assert said in str(refused.value)


def test_no_refusal_shows_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SealedSink(vault_token={"hvs.secret": 1})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("given", [{"rotate_chain": True}, {"sign_manifests": False}, {"fsync_on_rotate": False}])
def test_what_would_weaken_the_log_is_taken_and_weakens_nothing(tmp_path: Path, given: dict[str, Any]) -> None:
    sink = SealedSink(path=str(tmp_path / "a.log"), **given)
    sink.open()
    assert sink.trust_policy().signers


def settings_of(sink: object) -> SinkSettings:
    return sink_settings(sink)


def test_an_inner_sink_that_is_made_takes_no_settings_besides(tmp_path: Path) -> None:
    made = RotatingFileSink(RotatingFileSinkConfig(directory=tmp_path))
    with pytest.raises(ConfigurationError, match="inner_config is for an inner_sink that is named"):
        sink_settings(made, inner_config={"directory": str(tmp_path)})


def test_the_file_is_the_one_that_the_rotating_sink_would_write(tmp_path: Path) -> None:
    config = RotatingFileSinkConfig(tmp_path, "shop", max_bytes=8192, max_files=3, compress_rotated=True)
    for given in (config, RotatingFileSink(config)):
        found = settings_of(given)
        assert (found.path, found.stream) == (tmp_path / "shop.jsonl", "fapilog/shop")
        assert (found.max_bytes, found.max_files, found.compress) == (8192, 3, True)
    dumped = {"config": {"directory": tmp_path, "filename_prefix": "shop"}}
    assert sink_settings(inner_config=dumped).path == tmp_path / "shop.jsonl"


def test_sizes_and_times_read_as_fapilog_reads_them(tmp_path: Path) -> None:
    inner = {"directory": str(tmp_path), "max_bytes": "5 MB", "interval_seconds": "daily", "max_total_bytes": "1 GB"}
    found = sink_settings(inner_config=inner)
    assert (found.max_bytes, found.interval_s, found.max_total_bytes) == (5 << 20, 86_400.0, 1 << 30)
    nothing = {"interval_seconds": 0, "max_files": 0, "max_total_bytes": None}
    found = sink_settings(inner_config=nothing)
    assert (found.interval_s, found.max_files, found.max_total_bytes, found.max_bytes) == (None, None, None, 10 << 20)


def test_the_signing_key_lies_where_the_chain_state_lay_if_that_was_said(tmp_path: Path) -> None:
    sink = SealedSink(path=str(tmp_path / "a.log"), chain_state_path=str(tmp_path / "state"))
    sink.open()
    assert (tmp_path / "state" / "a.log.key").exists()
    assert not (tmp_path / "a.log.key").exists()


def test_a_prefix_of_any_kind_gives_a_stream_that_can_be(tmp_path: Path) -> None:
    assert settings_of(RotatingFileSinkConfig(tmp_path, "my shop+é")).stream == "fapilog/my-shop--"


def test_settings_come_to_a_tamper_config_as_in_the_reference() -> None:
    config = coerce_tamper_config(
        SealedSinkConfig(key_provider="file", chain_state_path="s"), enabled_if_unspecified=True
    )
    assert (config.enabled, config.key_source, config.state_dir) == (True, "file", "s")
    assert coerce_tamper_config({"algorithm": "ED25519", "inner_sink": "x"}).algorithm == "Ed25519"
    assert coerce_tamper_config(None).enabled is False
    with pytest.raises(ConfigurationError, match="no setting 'algoritm'"):
        coerce_tamper_config({"algoritm": "x"})


def test_none_means_that_nothing_is_said_except_where_it_says_for_ever() -> None:
    assert sink_settings(key_id=None, manifest_path=None).keys.key_id == ""
    assert sink_settings(key_grace_seconds=None).keys.key_grace_seconds is None
