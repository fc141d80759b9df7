"""``TamperConfig``: every field of the document, its default and its limits."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from keystead.integrations.tamper import TamperConfig

DEFAULTS: dict[str, Any] = {
    "enabled": False,
    "algorithm": "HMAC-SHA256",
    "key_id": "",
    "key_source": "env",
    "key_env_var": "FAPILOG_TAMPER_KEY",
    "key_file_path": None,
    "key_cache_ttl_seconds": 300,
    "use_kms_signing": False,
    "aws_region": None,
    "vault_addr": None,
    "vault_auth_method": "token",
    "vault_role": None,
    "vault_path": None,
    "vault_token": None,
    "vault_secret_id": None,
    "vault_namespace": None,
    "azure_tenant_id": None,
    "azure_client_id": None,
    "state_dir": ".fapilog-chainstate",
    "fsync_on_write": False,
    "fsync_on_rotate": True,
    "compress_rotated": False,
    "rotate_chain": False,
    "verify_on_close": False,
    "alert_on_failure": True,
}


def test_every_field_of_the_document_has_its_default() -> None:
    config = TamperConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "red"},
        {"algorithm": "MD5"},
        {"key_source": "hsm"},
        {"key_cache_ttl_seconds": -5},
        {"key_cache_ttl_seconds": 10**6},
        {"key_cache_ttl_seconds": 1.5},
        {"key_grace_seconds": -1},
        {"key_env_var": ""},
        {"key_env_var": "A=B"},
        {"key_file_path": ""},
        {"vault_addr": ""},
        {"vault_auth_method": "github"},
        {"aws_region": ""},
        {"state_dir": ""},
        {"use_kms_signing": "perhaps"},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TamperConfig(**wrong)


@pytest.mark.parametrize("field", ["key_source", "key_provider"])
def test_kms_alone_names_the_three_to_choose_from(field: str) -> None:
    given: dict[str, Any] = {field: "kms"}
    with pytest.raises(ValidationError, match="'aws-kms', 'gcp-kms' or 'azure-keyvault'"):
        TamperConfig(**given)


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("cache_ttl_seconds", "key_cache_ttl_seconds", 60),
        ("key_provider", "key_source", "vault"),
        ("chain_state_path", "state_dir", "/var/lib/app"),
        ("env_var_name", "key_env_var", "AUDIT_KEY"),
    ],
)
def test_other_names_of_fields_are_taken(alias: str, name: str, value: Any) -> None:
    assert getattr(TamperConfig(**{alias: value}), name) == value
    assert getattr(TamperConfig(**{alias: value, name: value}), name) == value
    with pytest.raises(ValidationError, match=f"{alias} and {name}"):
        TamperConfig(**{alias: value, name: DEFAULTS[name]})


@pytest.mark.parametrize(
    ("given", "algorithm"),
    [
        ("sha256", "HMAC-SHA256"),
        ("HMAC_SHA256", "HMAC-SHA256"),
        ("hmac-sha256", "HMAC-SHA256"),
        ("ed25519", "Ed25519"),
        ("Ed25519", "Ed25519"),
    ],
)
def test_other_names_of_algorithms_are_taken(given: Any, algorithm: str) -> None:
    assert TamperConfig(algorithm=given).algorithm == algorithm


@pytest.mark.parametrize(
    ("key_id", "vault_path", "is_one"),
    [
        ("audit", "transit/keys/audit", True),
        ("transit/audit", "transit/keys/audit", True),
        ("transit/keys/audit", "transit/keys/audit", True),
        ("audit", "teams/transit/keys/audit", True),
        ("other", "transit/keys/audit", False),
        ("other/audit", "transit/keys/audit", False),
        ("../evil", "transit/keys/audit", False),
    ],
)
def test_a_path_and_an_id_of_different_keys_are_refused(key_id: str, vault_path: str, is_one: bool) -> None:
    given: dict[str, Any] = {"key_source": "vault", "key_id": key_id, "vault_path": vault_path}
    if is_one:
        TamperConfig(**given)
    else:
        with pytest.raises(ValidationError):
            TamperConfig(**given)


def test_no_text_and_no_error_shows_a_secret() -> None:
    secret = SecretStr("canary")
    config = TamperConfig(vault_token=secret, vault_secret_id=secret, azure_client_secret=secret)
    for text in (repr(config), str(config), config.model_dump_json(), str(config.model_dump())):
        assert "canary" not in text
    given: dict[str, Any] = {"vault_token": 5, "colour": "canary", "key_source": "canary"}
    with pytest.raises(ValidationError) as caught:
        TamperConfig(**given)
    assert "canary" not in str(caught.value)


def test_a_configuration_does_not_change() -> None:
    config: Any = TamperConfig()
    with pytest.raises(ValidationError):
        config.key_id = "another"
