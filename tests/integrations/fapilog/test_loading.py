"""How the real fapilog finds and loads the plugins, and what it takes them for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import fapilog
import pytest
from fapilog import Settings
from fapilog.core.plugin_config import validate_plugin_configuration
from fapilog.plugins.loader import ValidationMode, list_available_plugins, load_plugin
from fapilog.plugins.metadata import PluginInfo, PluginMetadata, validate_fapilog_compatibility
from fapilog.plugins.versioning import is_plugin_api_compatible, parse_api_version
from fapilog.testing import validators

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog import IntegrityEnricher, SealedLogRefusedError, SealedSink, require_sealed
from keystead.integrations.fapilog import enricher as enricher_module
from keystead.integrations.fapilog import sink as sink_module
from tests.integrations.fapilog.apps import log_file, settings_for

METADATA = [sink_module.PLUGIN_METADATA, enricher_module.PLUGIN_METADATA]


def test_both_are_found_in_the_groups_that_fapilog_reads() -> None:
    assert "sealed" in list_available_plugins("fapilog.sinks")
    assert "integrity" in list_available_plugins("fapilog.enrichers")
    (sealed,) = entry_points(group="fapilog.sinks", name="sealed")
    (integrity,) = entry_points(group="fapilog.enrichers", name="integrity")
    assert issubclass(sealed.load(), SealedSink)
    assert issubclass(integrity.load(), IntegrityEnricher)


@pytest.mark.parametrize("metadata", METADATA, ids=lambda each: str(each["name"]))
def test_the_metadata_are_what_fapilog_asks_for(metadata: dict[str, Any]) -> None:
    checked = PluginMetadata.model_validate(metadata)
    assert validate_fapilog_compatibility(checked)
    assert is_plugin_api_compatible(parse_api_version(checked.api_version))
    assert validate_plugin_configuration(PluginInfo(metadata=checked, source="entry_point")).ok
    (found,) = [
        each
        for group in ("fapilog.sinks", "fapilog.enrichers")
        for each in entry_points(group=group, name=checked.name)
    ]
    assert checked.entry_point == found.value


def test_fapilogs_own_validators_pass(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    for found in (validators.validate_sink(sink), validators.validate_enricher(IntegrityEnricher())):
        assert (found.valid, found.errors, found.warnings) == (True, [], [])


async def test_the_lifecycle_holds_as_fapilog_checks_it(folder: Path) -> None:
    sink = SealedSink(inner_config={"directory": str(folder)})
    for plugin in (sink, IntegrityEnricher()):
        found = await validators.validate_plugin_lifecycle(plugin)
        assert (found.valid, found.errors, found.warnings) == (True, [], [])


def test_the_loader_makes_them_in_its_strictest_mode(folder: Path) -> None:
    config = {"inner_config": {"directory": str(folder)}}
    sink = load_plugin("fapilog.sinks", "Sealed", config, validation_mode=ValidationMode.STRICT, allow_external=True)
    assert isinstance(sink, SealedSink)
    assert log_file(folder).exists()
    enricher = load_plugin("fapilog.enrichers", "integrity", {}, validation_mode=ValidationMode.STRICT)
    assert isinstance(enricher, IntegrityEnricher)


def test_without_a_key_the_application_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FAPILOG_TAMPER_KEY")
    with pytest.raises(SealedLogRefusedError, match="FAPILOG_TAMPER_KEY holds no key") as refused:
        fapilog.get_logger(settings=settings_for(folder), reuse=False)
    assert refused.value.code == "sealed_log_refused"
    assert isinstance(refused.value.reason, ConfigurationError)
    assert capfd.readouterr().out == ""


def test_a_setting_that_is_misspelt_ends_the_start_as_well(folder: Path) -> None:
    with pytest.raises(SealedLogRefusedError, match="no setting 'steam'; did you mean 'stream'"):
        fapilog.get_logger(settings=settings_for(folder, extra={"steam": "x"}), reuse=False)
    settings = settings_for(folder)
    settings.enricher_config.extra["integrity"] = {"algoritm": "sha256"}
    with pytest.raises(SealedLogRefusedError, match="did you mean 'algorithm'"):
        fapilog.get_logger(settings=settings, reuse=False)


def test_a_refusal_is_no_exception_that_the_loader_could_contain() -> None:
    assert not issubclass(SealedLogRefusedError, Exception)


def test_a_logger_without_the_sink_is_told_from_one_that_seals(folder: Path) -> None:
    settings = settings_for(folder)
    settings.plugins.allow_external = False
    unsealed = fapilog.get_logger(settings=settings, reuse=False)
    with pytest.raises(ConfigurationError, match="FAPILOG_PLUGINS__ALLOW_EXTERNAL=true"):
        require_sealed(unsealed)
    assert isinstance(require_sealed(fapilog.get_logger(settings=settings_for(folder), reuse=False)), SealedSink)


def test_the_documented_settings_load(folder: Path) -> None:
    fields: dict[str, Any] = {
        "core": {"enrichers": ["runtime_info", "integrity"], "sinks": ["sealed"]},
        "plugins": {"allow_external": True},
        "enricher_config": {
            "integrity": {
                "algorithm": "sha256",
                "chain_state_path": str(folder / "chainstate"),
                "key_provider": "env",
                "key_id": "audit-key",
            }
        },
        "sink_config": {
            "sealed": {
                "inner_sink": "rotating_file",
                "inner_config": {"directory": str(folder)},
                "manifest_path": str(folder / "manifests"),
                "sign_manifests": True,
            }
        },
    }
    settings = Settings(**fields)
    assert require_sealed(fapilog.get_logger(settings=settings, reuse=False)).path == log_file(folder)


def test_what_reads_old_files_needs_neither_fapilog_nor_pydantic() -> None:
    program = (
        "import sys; sys.modules['fapilog'] = sys.modules['pydantic'] = sys.modules['orjson'] = None\n"
        "from keystead.integrations.fapilog import FileKeyStore, Verifier, canonicalize, write_manifest\n"
        "from keystead.errors import MissingDependencyError\n"
        "Verifier(FileKeyStore('k'))\n"
        "try:\n    from keystead.integrations.fapilog import SealedSink\n"
        "except MissingDependencyError as exc:\n    print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SealedSink requires fapilog. Install with: pip install keystead[fapilog]"


def test_importing_the_names_loads_nothing() -> None:
    program = (
        "import sys, keystead.integrations.fapilog\n"
        "print([name for name in ('fapilog', 'pydantic', 'orjson', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
