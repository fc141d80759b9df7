"""Settings: flag over environment over file over default, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import KeyManager
from keystead.config import is_production
from keystead.config.durations import duration_text, parse_duration
from keystead.config.settings import ServerSettings
from keystead.config.sources import LoadedSettings, load
from keystead.errors import (
    ConfigurationError,
    InvalidAlgorithmError,
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidSaltError,
    InvalidSeedError,
)
from keystead.manager.configured import manager_parts, store_url

SEED = "test seed of the test suite, never use it"
SALT = "test salt of the test suite"
ROOT_KEY_YAML = """\
kms:
  seed: "${KMS_SEED}"
  salt: "${KMS_SALT}"
  iterations: 10000
  key_length: 32
  rotate_interval: "24h"
  algorithm: "AES-GCM-256"
  storage_type: "database"
  store: "sqlite:///keys.db"
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings_of(text: str, environ: Mapping[str, str] | None = None, **flags: Any) -> LoadedSettings:
    Path("keystead.yaml").write_text(text)
    return load(flags=flags, environ=environ or {})


def root_key_settings(change: str = "", to: str = "", **environ: str) -> LoadedSettings:
    variables = {"KMS_SEED": SEED, "KMS_SALT": SALT, **environ}
    return settings_of(ROOT_KEY_YAML.replace(change, to) if change else ROOT_KEY_YAML, variables)


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    text = "keyring: file\nstore: memory://\nkms: 'local:'\n"
    environ = {"KEYSTEAD_KEYRING": "environment", "KEYSTEAD_STORE": "sqlite:///e.db"}
    loaded = settings_of(text, environ, store="sqlite:///f.db")
    assert (loaded.settings.kms, loaded.settings.keyring, loaded.settings.store) == (
        "local:",
        "environment",
        "sqlite:///f.db",
    )
    assert loaded.origins["kms"] == "keystead.yaml"
    assert loaded.origins["keyring"] == "environment KEYSTEAD_KEYRING"
    assert loaded.origins["store"] == "flag --store"
    assert "grace" not in loaded.origins


def test_without_any_source_the_defaults_hold() -> None:
    settings = load(environ={}).settings
    assert (settings.store, settings.kms, settings.keyring) == (None, None, "default")
    assert settings.rotation_period == timedelta(days=90)
    assert settings.epoch_max_age == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("text", "named", "near"),
    [
        ("stroe: memory://", "'stroe'", "store"),
        ("rotation:\n  perod: 30d", "'rotation.perod'", "rotation.period"),
        ("kms:\n  sede: x", "'kms.sede'", "kms.seed"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_near_ones(text: str, named: str, near: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(text)
    assert named in str(caught.value)
    assert near in str(caught.value)


def test_a_variable_that_is_nearly_a_setting_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"KEYSTEAD_STOER.*KEYSTEAD_STORE"):
        load(environ={"KEYSTEAD_STOER": "memory://"})


def test_other_variables_of_ours_are_passed_over_and_told() -> None:
    assert load(environ={"KEYSTEAD_KEK": "x", "KEYSTEAD_REQUIRE": "all"}).ignored == [
        "KEYSTEAD_KEK",
        "KEYSTEAD_REQUIRE",
    ]


def test_rotation_is_set_from_the_environment_too() -> None:
    rotation = load(environ={"KEYSTEAD_ROTATION_PERIOD": "7d", "KEYSTEAD_ROTATION_MAX_MESSAGES": "5"}).settings.rotation
    assert (rotation.period, rotation.max_messages) == (timedelta(days=7), 5)


def test_aliases_are_set_from_the_environment_as_pairs() -> None:
    aliases = load(environ={"KEYSTEAD_PROVIDER_ALIASES": "old=new, older=new"}).settings.provider_aliases
    assert aliases == {"old": "new", "older": "new"}
    with pytest.raises(ConfigurationError, match="old=new"):
        load(environ={"KEYSTEAD_PROVIDER_ALIASES": "old"})


def test_the_settings_file_is_named_by_a_variable() -> None:
    Path("other.yaml").write_text("keyring: other\n")
    assert load(environ={"KEYSTEAD_CONFIG": "other.yaml"}).settings.keyring == "other"


def test_a_named_settings_file_must_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml.*keystead init"):
        load("absent.yaml", environ={})


@pytest.mark.parametrize("text", ["a: [", "- store", "just text", "1: x", "store: a\nstore: b", "\tx: y"])
def test_a_file_that_is_no_plain_mapping_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"keystead\.yaml"):
        settings_of(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("? [a]\n: b", id="a list as a key"),
        pytest.param("kms: {? {} : 1}", id="a mapping as a key"),
        pytest.param("store: 2020-13-45", id="no such day"),
        pytest.param("store: " + "9" * 5_000, id="a number too long"),
        pytest.param("store: !!bool x", id="no bool"),
        pytest.param("store: !!timestamp x", id="no time"),
        pytest.param("store: " + "[" * 5_000, id="too deep"),
        pytest.param("kms: &kms {seed: *kms}", id="in itself"),
    ],
)
def test_values_that_the_reader_of_yaml_stumbles_over_are_an_error_that_names_the_file(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"keystead\.yaml"):
        settings_of(text)


@pytest.mark.parametrize(
    "text", ["grace: soon", "messages_per_salt: 0", "epoch_max_age: -1", "store: 5", "rotation: 5"]
)
def test_a_value_that_cannot_be_used_names_its_key_and_its_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"keystead\.yaml: {text.partition(':')[0]}"):
        settings_of(text)


def test_no_error_shows_a_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of("kms: {seed: [not-to-be-shown], salt: other-not-to-be-shown}")
    assert "not-to-be-shown" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_reference_to_a_variable_that_is_not_set_names_it() -> None:
    with pytest.raises(ConfigurationError, match="DB_PASSWORD is not set"):
        settings_of("store: postgresql://app:${DB_PASSWORD}@db.example.org/keys")


def test_references_are_expanded_inside_text() -> None:
    loaded = settings_of("store: sqlite:///${NAME}.db", {"NAME": "here"})
    assert loaded.settings.store == "sqlite:///here.db"


def test_a_reference_with_a_default_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"kms\.seed"):
        settings_of("kms: {seed: '${KMS_SEED:-secret}', salt: x}")


def test_paths_in_a_file_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "k.yaml").write_text("store: sqlite:///keys.db\nkms: file:kek\nstate_dir: state\n")
    loaded = load("etc/k.yaml", environ={})
    arguments = manager_parts(loaded).arguments
    assert arguments["store"] == f"sqlite:///{tmp_path}/etc/keys.db"
    assert arguments["state_dir"] == f"{tmp_path}/etc/state"
    assert store_url(load("etc/k.yaml", environ={"KEYSTEAD_STORE": "sqlite:///x.db"})) == f"sqlite:///{tmp_path}/x.db"


def test_the_root_key_section_of_older_services_makes_a_manager_that_rotates_daily() -> None:
    loaded = root_key_settings()
    assert loaded.settings.rotation_period == timedelta(hours=24)
    assert manager_parts(loaded).arguments["rotation_policy"].period == timedelta(hours=24)


async def test_the_same_seed_opens_the_store_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("k.yaml").write_text(ROOT_KEY_YAML)
    monkeypatch.setenv("KMS_SEED", SEED)
    monkeypatch.setenv("KMS_SALT", SALT)
    async with KeyManager.from_config("k.yaml") as km:
        blob = km.local_encrypt(b"plain")
    async with KeyManager.from_config("k.yaml") as km:
        assert km.local_decrypt(blob) == b"plain"
        assert km.get_rotation_policy().period == timedelta(hours=24)


def test_a_manager_from_a_file_is_not_initialised_and_has_opened_nothing() -> None:
    Path("keystead.yaml").write_text("store: sqlite:///keys.db\nkms: file:keystead.kek\n")
    assert not KeyManager.from_config().is_initialized
    assert [path.name for path in Path().iterdir()] == ["keystead.yaml"]


def test_arguments_win_over_the_file() -> None:
    Path("keystead.yaml").write_text("store: sqlite:///keys.db\nkms: file:keystead.kek\nkeyring: file\n")
    assert KeyManager.from_config(keyring="argument").default.name == "argument"


@pytest.mark.parametrize(
    ("change", "to", "error"),
    [
        ('seed: "${KMS_SEED}"', "rotate_interval: 1h", InvalidSeedError),
        ('salt: "${KMS_SALT}"\n', "\n", InvalidSaltError),
        ("${KMS_SEED}", "default-seed-value", InvalidSeedError),
        ("${KMS_SALT}", "default-salt-value", InvalidSaltError),
        ("iterations: 10000", "iterations: 9999", InvalidIterationsError),
        ("iterations: 10000", "iterations: many", InvalidIterationsError),
        ("key_length: 32", "key_length: 20", InvalidKeyLengthError),
        ("AES-GCM-256", "SM4-GCM", InvalidAlgorithmError),
        ("${KMS_SEED}", "", InvalidSeedError),
        ('"database"', '"file"\n  store: "postgresql://db.example.org/keys"\n  #', ConfigurationError),
        ('  store: "sqlite:///keys.db"\n', "", ConfigurationError),
        ('"database"', '"cloud"', ConfigurationError),
    ],
)
def test_a_root_key_section_that_cannot_work_is_refused(change: str, to: str, error: type[ConfigurationError]) -> None:
    text = ROOT_KEY_YAML.replace(change, to)
    if to == "rotate_interval: 1h":
        text = text.replace('  rotate_interval: "24h"\n', "")
    with pytest.raises(error):
        manager_parts(settings_of(text, {"KMS_SEED": SEED, "KMS_SALT": SALT}))


def test_a_seed_that_is_not_set_is_an_invalid_seed() -> None:
    with pytest.raises(InvalidSeedError, match="KMS_SEED is not set"):
        settings_of(ROOT_KEY_YAML, {"KMS_SALT": SALT})


def test_storage_in_a_file_needs_no_url(tmp_path: Path) -> None:
    loaded = root_key_settings('"database"\n  store: "sqlite:///keys.db"', '"file"')
    assert store_url(loaded) == f"sqlite:///{tmp_path}/keys.db"


def test_two_different_stores_in_one_file_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"store and kms\.store"):
        store_url(root_key_settings("kms:", "store: memory://\nkms:"))


def test_a_short_seed_warns() -> None:
    with pytest.warns(UserWarning, match="seed is under 16 bytes"):
        manager_parts(root_key_settings(KMS_SEED="short"))


def test_a_short_seed_is_refused_in_production() -> None:
    with pytest.raises(InvalidSeedError):
        manager_parts(root_key_settings(KMS_SEED="short", KEYSTEAD_ENV="production"))


@pytest.mark.parametrize("text", [ROOT_KEY_YAML, "store: sqlite:///keys.db\nkms: file:kek\n"])
def test_a_local_kek_is_refused_in_production_unless_it_is_allowed(text: str) -> None:
    environ = {"KMS_SEED": SEED, "KMS_SALT": SALT, "KEYSTEAD_ENV": "production"}
    with pytest.raises(ConfigurationError, match="allow_in_production"):
        manager_parts(settings_of(text, environ))
    allowed = text.replace("kms:\n", "kms:\n  allow_in_production: true\n").replace(
        "file:kek", "file:kek?allow_in_production=true"
    )
    assert manager_parts(settings_of(allowed, environ)).provider.provider_name == "local"


@pytest.mark.parametrize("name", ["production", "Production", "prod", " PROD "])
def test_production_has_few_names(name: str) -> None:
    assert is_production({"KEYSTEAD_ENV": name})
    assert not is_production({"KEYSTEAD_ENV": "development"})
    assert not is_production({})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("90d", 7776000), ("1h30m", 5400), ("45s", 45), ("500ms", 0.5), ("2w", 1209600), ("1.5h", 5400),
     ("0", 0), ("30", 30), (30, 30), (0.5, 0.5), ("24h0m0s", 86400)],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "5x", "-5s", "h", "1h 30m", None, True, [], "1e9d", "999999999d"])
def test_a_text_that_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ConfigurationError):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_survives_its_text_form(seconds: int) -> None:
    assert parse_duration(duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("url", ["https://keys.example.com", "https://10.0.0.7:8443", "http://localhost:3000"])
def test_where_browsers_reach_the_service_is_an_origin(url: str) -> None:
    assert ServerSettings(url=url).url == url
    for wrong in (f"{url}/", f"{url}/keys", url.upper(), "http://keys.example.com", "keys.example.com", ""):
        with pytest.raises(ValueError, match="without a path"):
            ServerSettings(url=wrong)
