"""What a provider is given: configuration, URI, module, PIN sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    KeyStateError,
    MissingDependencyError,
    ProviderAuthError,
)
from keystead.providers import registry
from keystead.providers.pkcs11.config import KeyName, PinSource, config_from_uri
from keystead.providers.pkcs11.provider import Pkcs11KMSConfig, Pkcs11KMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings, ProviderUri
from tests.services.softhsm import PIN, SoftHsm

MODULE = "/usr/lib/vendor/libpkcs11.so"
VARIABLE = "PKCS11_MODULE_PATH"


def parsed(uri: str) -> tuple[Pkcs11KMSConfig, str | None]:
    return config_from_uri(ProviderUri.parse(uri), "/folder", 10.0)


def read_pin(folder: Path, content: bytes, mode: int = 0o600, **settings: Any) -> str:
    file = folder / "pin"
    file.write_bytes(content)
    file.chmod(mode)
    return PinSource(Pkcs11KMSConfig(pin_file=file, **settings)).read().reveal()


def test_a_uri_of_rfc_7512_names_token_key_module_and_pin_file() -> None:
    config, key_id = parsed(
        "pkcs11:token=My%20token;serial=12ab;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=kek"
        ";type=secret-key?module-path=/usr/lib/c++/lib.so&pin-source=file:/run/secrets/the%20pin"
    )
    assert (config.token_label, config.token_serial) == ("My token", "12ab")
    assert (config.token_manufacturer, config.token_model) == ("SoftHSM project", "SoftHSM v2")
    assert (config.module, config.pin_file) == ("/usr/lib/c++/lib.so", "/run/secrets/the pin")
    assert key_id == "kek"


@pytest.mark.parametrize(
    ("path", "key_id"),
    [
        ("object=kek", "kek"),
        ("object=a%3Bb", "a;b"),
        ("object=kek;id=%01", "object=kek;id=%01"),
        ("id=%01%AB", "id=%01%ab"),
        ("id=01", "id=%30%31"),
        ("object=id%3D%2501", "object=id%3D%2501"),
        ("token=kms", None),
        ("", None),
    ],
)
def test_the_key_of_a_uri_is_a_key_id_that_names_the_same(path: str, key_id: str | None) -> None:
    assert parsed(f"pkcs11:{path}")[1] == key_id
    if key_id is not None:
        assert str(KeyName.parse(key_id)) == key_id


@pytest.mark.parametrize("name", ["kek", "a;b=c", "ключ", "object=x;id=%01", "id=%01", "object=object%3Dx"])
def test_a_key_name_survives_its_text(name: str) -> None:
    assert KeyName.parse(str(KeyName.parse(name))) == KeyName.parse(name)


@pytest.mark.parametrize("name", ["object=", "object=a;token=b", "id=%0", "id=%01;id=%02", "object=a;pin-value=1", ""])
def test_a_key_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        KeyName.parse(name)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=kms?pin-value=1234",
        "pkcs11:token=kms;pin-value=1234",
        "pkcs11:token=kms;pin=1234",
        "pkcs11:pinvalue=1234",
    ],
)
def test_a_pin_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_provider(uri, ProviderSettings(environ={VARIABLE: MODULE}))
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:slot-id=1",
        "pkcs11:token",
        "pkcs11:token=",
        "pkcs11:token=a;token=b",
        "pkcs11:token=%zz",
        "pkcs11:object=kek;type=public",
        "pkcs11:token=a?module-name=softhsm",
        "pkcs11:token=a?module-path=lib.so",
        "pkcs11:token=a?pin-source=|/usr/bin/pin",
        "pkcs11:token=a?pin-source=pin",
        "pkcs11:token=a?pin-source=file://host/pin",
        "pkcs11:token=a?pin-source=https://host/pin",
    ],
)
def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        open_provider(uri, ProviderSettings(environ={VARIABLE: MODULE}))


@pytest.mark.parametrize("source", ["file:/run/pin", "file:///run/pin", "file://localhost/run/pin", "/run/pin"])
def test_a_pin_source_is_a_file(source: str) -> None:
    assert parsed(f"pkcs11:token=kms?pin-source={source}")[0].pin_file == "/run/pin"


def test_what_a_provider_waits_stays_below_the_guards_deadline() -> None:
    assert config_from_uri(ProviderUri.parse("pkcs11:"), "", 5.0)[0].timeout_s == 4.0
    assert config_from_uri(ProviderUri.parse("pkcs11:"), "", 60.0)[0].timeout_s == 8.0


@pytest.mark.parametrize("option", ["allow_extractable", "allow_group_read"])
def test_what_is_allowed_is_allowed_by_the_uri(option: str) -> None:
    assert getattr(parsed(f"pkcs11:token=a?{option}=true")[0], option)
    assert not getattr(parsed("pkcs11:token=a")[0], option)
    with pytest.raises(ConfigurationError, match=option):
        parsed(f"pkcs11:token=a?{option}=yes")


def test_the_scheme_of_others_is_told_ours() -> None:
    with pytest.raises(ConfigurationError, match="pkcs11:"):
        open_provider("hsm:token=a")


def test_construction_opens_nothing() -> None:
    opened = open_provider(f"pkcs11:token=a;object=kek?module-path={MODULE}&pin-source=file:/nowhere/pin")
    assert (opened.name, opened.default_key_id) == ("pkcs11", "kek")


def test_without_a_module_it_says_where_one_can_be_named() -> None:
    with pytest.raises(ConfigurationError, match=VARIABLE):
        Pkcs11KMSProvider(environ={})


def test_the_environment_names_the_module_unless_the_configuration_does() -> None:
    environ = {VARIABLE: "/from/environment.so"}
    assert Pkcs11KMSConfig().module_path(environ) == "/from/environment.so"
    assert Pkcs11KMSConfig(MODULE).module_path(environ) == MODULE
    assert Pkcs11KMSConfig(Path(MODULE)).module_path(environ) == MODULE
    with pytest.raises(ConfigurationError, match="absolute"):
        Pkcs11KMSConfig().module_path({VARIABLE: "lib.so"})


def test_the_processs_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, MODULE)
    assert Pkcs11KMSConfig().module_path(None) == MODULE


@pytest.mark.parametrize(
    "settings",
    [
        {"pin": "1234", "pin_file": "/run/pin"},
        {"pin": ""},
        {"pin": "1" * 256},
        {"pin": b"1234"},
        {"module": "lib.so"},
        {"token_label": ""},
        {"token_serial": 12},
        {"timeout_s": 0},
        {"messages_per_key": 0},
        {"messages_per_key": 2**31 + 1},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Pkcs11KMSConfig(**settings)


@pytest.mark.parametrize("content", ["the user pin", "the user pin\n", "the user pin\r\n"])
def test_a_pin_file_holds_one_line(content: str, tmp_path: Path) -> None:
    assert read_pin(tmp_path, content.encode()) == "the user pin"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe", b"a\0b", b"1" * 256])
def test_a_pin_file_with_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        read_pin(tmp_path, content)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_pin_file_that_others_may_read_is_refused_with_the_cure(mode: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_pin(tmp_path, b"1234", mode)


def test_a_group_may_read_the_pin_file_where_that_is_accepted(tmp_path: Path) -> None:
    assert read_pin(tmp_path, b"1234", 0o640, allow_group_read=True) == "1234"


def test_a_pin_file_that_is_missing_or_a_pipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        PinSource(Pkcs11KMSConfig(pin_file=tmp_path / "none")).read()
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="regular file"):
        PinSource(Pkcs11KMSConfig(pin_file=tmp_path / "pipe")).read()


def test_a_relative_pin_file_counts_from_where_the_provider_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = PinSource(Pkcs11KMSConfig(pin_file="pin"))
    monkeypatch.chdir("/")
    (tmp_path / "pin").write_text("1234")
    (tmp_path / "pin").chmod(0o600)
    assert source.read().reveal() == "1234"


def test_a_function_is_asked_at_every_login() -> None:
    pins = iter(["1234", "5678"])
    source = PinSource(Pkcs11KMSConfig(pin=lambda: next(pins)))
    assert [source.read().reveal(), source.read().reveal()] == ["1234", "5678"]


@pytest.mark.parametrize("answer", ["", None, 1234, "1" * 256])
def test_a_function_that_returns_no_pin_is_an_error(answer: Any) -> None:
    with pytest.raises(ProviderAuthError):
        PinSource(Pkcs11KMSConfig(pin=lambda: answer)).read()


def test_a_function_that_fails_is_named_by_the_class_of_its_error_alone() -> None:
    def fails() -> str:
        raise RuntimeError("the pin is 1234")

    with pytest.raises(ProviderAuthError, match="RuntimeError") as caught:
        PinSource(Pkcs11KMSConfig(pin=fails)).read()
    assert "1234" not in str(caught.value)
    assert caught.value.__context__ is None


def test_an_error_of_ours_from_the_function_is_passed_on() -> None:
    def fails() -> str:
        raise KeyStateError("the secret manager is sealed")

    with pytest.raises(KeyStateError):
        PinSource(Pkcs11KMSConfig(pin=fails)).read()


async def test_a_provider_without_a_pin_says_how_to_give_one(softhsm: SoftHsm) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(pin=None))
    with pytest.raises(ProviderAuthError, match="pin-source"):
        await provider.describe("kek")
    await provider.aclose()


async def test_a_uri_alone_is_enough(softhsm: SoftHsm, key: str, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(f"{PIN}\n")
    (tmp_path / "pin").chmod(0o600)
    uri = f"pkcs11:token=kms;object={key}?module-path={softhsm.path}&pin-source=file:{tmp_path}/pin"
    opened = open_provider(uri)
    sealed = await opened.provider.encrypt(b"value", opened.default_key_id or "")
    assert await opened.provider.decrypt(sealed) == b"value"
    await opened.provider.aclose()  # type: ignore[attr-defined]  # it closes


def test_a_missing_binding_is_named_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [_NoBinding(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pkcs11"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError) as caught:
        Pkcs11KMSProvider(Pkcs11KMSConfig(MODULE))
    assert str(caught.value) == ("PKCS#11 support requires python-pkcs11. Install with: pip install keystead[pkcs11]")
    assert registry._REGISTRY["pkcs11"].extra == "pkcs11"


class _NoBinding:
    def find_spec(self, name: str, *_: object) -> None:
        if name == "pkcs11":
            raise ModuleNotFoundError("No module named 'pkcs11'", name="pkcs11")


def test_importing_the_provider_loads_no_binding() -> None:
    program = "import sys, keystead; keystead.Pkcs11KMSProvider; print('pkcs11' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
