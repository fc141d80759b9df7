"""The names of fapilog-tamper are there, and lead somewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import keystead
import keystead.integrations.fapilog as names
from keystead import ledger
from keystead.errors import MissingDependencyError
from keystead.integrations import tamper

REFERENCE = {
    "AwsKmsProvider",
    "AzureKeyVaultProvider",
    "EnvKeyProvider",
    "EnvKeyStore",
    "FileKeyProvider",
    "FileKeyStore",
    "GENESIS_HASH",
    "GcpKmsProvider",
    "IntegrityEnricher",
    "IntegrityEnricherConfig",
    "KeyProvider",
    "KeyStore",
    "SealedSink",
    "SealedSinkConfig",
    "TamperConfig",
    "VaultProvider",
    "Verifier",
    "VerifyError",
    "VerifyReport",
    "b64url_decode",
    "b64url_encode",
    "canonicalize",
    "coerce_tamper_config",
    "create_key_provider",
    "run_self_check",
    "verify_chain_across_files",
    "write_manifest",
}


def test_every_name_of_fapilog_tamper_is_there() -> None:
    assert set(names.__all__) >= REFERENCE
    assert all(getattr(names, name) is not None for name in names.__all__)
    assert dir(names) == sorted(names.__all__)


def test_names_that_others_share_are_others_elsewhere() -> None:
    found: set[object] = {names.Verifier, ledger.Verifier}
    assert len(found) == 2
    assert names.KeyStore.__module__.startswith("keystead.integrations.fapilog")
    assert names.TamperConfig is tamper.TamperConfig
    assert not REFERENCE & set(keystead.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(names, "TamperSealedPlugin")


def test_a_module_of_ones_own_that_is_missing_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names._HOMES, "Gone", "keystead.integrations.gone")
    with pytest.raises(ModuleNotFoundError, match="gone"):
        _ = names.Gone  # type: ignore[attr-defined]  # made for this test


def test_without_fapilog_the_sink_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "fapilog.core.serialization", None)
        with pytest.raises(MissingDependencyError, match=r"pip install keystead\[fapilog\]"):
            names.SealedSink(path=str(tmp_path / "app.log"))
    monkeypatch.setitem(sys.modules, "fapilog.core.types", None)
    with pytest.raises(MissingDependencyError, match=r"pip install keystead\[fapilog\]"):
        names.SealedSink(inner_config={"max_bytes": "1 MB"})
