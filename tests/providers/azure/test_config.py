"""Configuration, key ids, URIs, and a missing SDK."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import keystead
from keystead import ports
from keystead.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from keystead.providers.azure import session as azure_session
from keystead.providers.azure.config import AzureKeyId
from keystead.providers.azure.credentials import authority_of
from keystead.providers.azure.provider import AzureKMSConfig, AzureKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.sdk import Sdk
from keystead.providers.uri import ProviderSettings

VAULT = "https://acme.vault.azure.net"
VERSION = "0123456789abcdef0123456789abcdef"
SECRET = "a client secret that must never be seen"


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.vault.azure.net",
        "https://ACME.vault.azure.net/",
        "https://acme.vault.azure.net:443",
        "https://acme.managedhsm.azure.net",
        "https://acme.vault.azure.cn",
        "https://acme.managedhsm.azure.cn",
        "https://acme.vault.usgovcloudapi.net",
        "https://acme.managedhsm.usgovcloudapi.net",
    ],
)
def test_the_hosts_of_azure_need_not_be_listed(url: str) -> None:
    assert AzureKMSConfig(url).vault_url == url.lower().removesuffix("/").removesuffix(":443")


@pytest.mark.parametrize(
    "url",
    [
        "https://kv.example.org",
        "https://acme.vault.azure.net.example.org",
        "https://vault.azure.net",
        "https://a.b.vault.azure.net",
        "https://-.vault.azure.net",
        "https://acme.vault.azure.net:8443",
        "https://acmevault.azure.net",
        "https://127.0.0.1",
    ],
)
def test_other_hosts_are_refused_unless_they_are_listed(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        AzureKMSConfig(url)
    host = url.removeprefix("https://")
    assert AzureKMSConfig(url, allowed_hosts=[host.upper()]).vault_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.vault.azure.net",
        "acme.vault.azure.net",
        "https://user@acme.vault.azure.net",
        "https://acme.vault.azure.net?x=1",
        "https://acme.vault.azure.net#x",
        "https://evil.example.org\\.vault.azure.net",
        "https://[::1",
        "https://acme.vault.azure.net/keys/kek",
        "",
    ],
)
def test_what_is_no_vault_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        AzureKMSConfig(url)


@pytest.mark.parametrize("hosts", ["kv.example.org", ["https://kv.example.org"], ["kv.example.org/path"], [""]])
def test_allowed_hosts_are_a_list_of_host_names(hosts: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        AzureKMSConfig(allowed_hosts=hosts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kek", AzureKeyId("acme.vault.azure.net", "kek")),
        (f"kek/{VERSION}", AzureKeyId("acme.vault.azure.net", "kek", VERSION)),
        (f"{VAULT}/keys/kek", AzureKeyId("acme.vault.azure.net", "kek")),
        (f"{VAULT}/keys/Kek/{VERSION}", AzureKeyId("acme.vault.azure.net", "Kek", VERSION)),
        ("https://OTHER.managedhsm.azure.net:443/keys/kek", AzureKeyId("other.managedhsm.azure.net", "kek")),
    ],
)
def test_a_key_id_is_short_or_complete(text: str, expected: AzureKeyId) -> None:
    config = AzureKMSConfig(VAULT)
    assert config.key_id(text) == expected
    assert config.key_id(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a key",
        "k" * 128,
        "kek/1/2",
        "kek/",
        "../secrets/x",
        "kek%2f1",
        f"{VAULT}/secrets/kek",
        f"{VAULT}/keys",
        f"{VAULT}/keys/",
        f"{VAULT}/keys/kek/{VERSION}/sign",
        "schl\u00fcssel",
        "lone \ud800 surrogate",
        None,
        7,
    ],
)
def test_what_is_no_key_id_is_refused(text: Any) -> None:
    with pytest.raises(InvalidInputError):
        AzureKMSConfig(VAULT).key_id(text)


def test_a_short_key_id_needs_a_vault() -> None:
    with pytest.raises(ConfigurationError, match="vault_url"):
        AzureKMSConfig().key_id("kek")


def test_a_key_at_a_host_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        AzureKMSConfig(VAULT).key_id("https://kv.example.org/keys/kek")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"client_secret": SECRET}, "tenant_id"),
        ({"client_secret": SECRET, "client_id": "c"}, "tenant_id"),
        ({"tenant_id": "t"}, "client_id"),
        ({"tenant_id": "t", "client_id": ""}, "client_id"),
        ({"client_id": ""}, "client_id"),
        ({"credential": object, "client_id": "c"}, "not both"),
        ({"sign_key": f"{VAULT}/keys/s/{VERSION}"}, "newest version signs"),
        ({"authority": "http://login.example.org"}, "https"),
        ({"key_max_age_s": 0}, "key_max_age_s"),
        ({"read_timeout_s": float("nan")}, "read_timeout_s"),
        ({"max_connections": 0}, "max_connections"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        AzureKMSConfig(**given)
    assert SECRET not in str(caught.value)


def test_the_secret_is_hidden_and_the_configuration_is_not_copied() -> None:
    config = AzureKMSConfig(VAULT, "t", "c", SECRET)
    provider = AzureKMSProvider(config)
    for text in (repr(config), str(config), f"{config}", repr(provider), f"{config.client_secret}"):
        assert SECRET not in text
    copying: tuple[Callable[[Any], Any], ...] = (pickle.dumps, copy.copy, copy.deepcopy, dataclasses.asdict, json.dumps)
    for each in copying:
        with pytest.raises(TypeError):
            each(config)


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        ({"vault_url": VAULT}, {}, "https://login.microsoftonline.com"),
        ({"vault_url": "https://a.managedhsm.azure.cn"}, {}, "https://login.chinacloudapi.cn"),
        ({"vault_url": "https://a.vault.usgovcloudapi.net"}, {}, "https://login.microsoftonline.us"),
        ({"vault_url": VAULT}, {"AZURE_AUTHORITY_HOST": "login.example.org"}, None),
        ({"vault_url": VAULT, "authority": "https://login.example.org"}, {}, "https://login.example.org"),
        ({}, {}, None),
    ],
)
def test_tokens_come_from_the_clouds_own_authority(
    given: dict[str, Any], environ: dict[str, str], expected: str | None
) -> None:
    assert authority_of(AzureKMSConfig(**given), environ) == expected


@pytest.mark.parametrize(
    ("uri", "key_id"),
    [
        ("azurekms://acme.vault.azure.net/kek", f"{VAULT}/keys/kek"),
        ("AzureKMS://ACME.vault.azure.net/kek", f"{VAULT}/keys/kek"),
        (f"azurekms://acme.vault.azure.net/kek/{VERSION}", f"{VAULT}/keys/kek/{VERSION}"),
        ("azurekms://acme.vault.azure.net/keys", f"{VAULT}/keys/keys"),
        ("azurekms://acme.vault.azure.net/kek?sign_key=signer", f"{VAULT}/keys/kek"),
        ("azurekms://kv.example.org:8443/kek?allow_host=true", "https://kv.example.org:8443/keys/kek"),
    ],
)
def test_a_uri_names_vault_and_key(uri: str, key_id: str) -> None:
    opened = open_provider(uri, ProviderSettings(environ={}))
    assert isinstance(opened.provider, AzureKMSProvider)
    assert (opened.name, opened.default_key_id) == ("azure", key_id)


def test_a_uri_can_name_who_signs() -> None:
    opened = open_provider("azurekms://acme.vault.azure.net/kek?sign_key=new,https://other.vault.azure.net/keys/old")
    assert isinstance(opened.provider, AzureKMSProvider)
    assert opened.provider._config.sign_key == (f"{VAULT}/keys/new", "https://other.vault.azure.net/keys/old")


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("azurekms:kek", "takes a host and a key"),
        ("azurekms:acme.vault.azure.net/kek", "takes a host and a key"),
        ("azurekms://acme.vault.azure.net", "takes a host and a key"),
        ("azurekms://acme.vault.azure.net/", "names no key"),
        ("azurekms://acme.vault.azure.net/keys/kek", "takes a host and a key"),
        ("azurekms://acme.vault.azure.net/kek/1/2", "names no key"),
        ("azurekms://acme.vault.azure.net/a%20key", "names no key"),
        ("azurekms://kv.example.org/kek", "allowed_hosts"),
        ("azurekms://acme.vault.azure.net/kek?color=red", "has no option 'color'"),
        ("azurekms://acme.vault.azure.net/kek?allow_host=yes", "true or false"),
        ("azurekms://acme.vault.azure.net/kek?client_secret=hunter2", "carries a credential"),
        ("azurekms://id:hunter2@acme.vault.azure.net/kek", "carries a credential"),
        ("azure-kv://acme.vault.azure.net/kek", "azurekms:"),
        ("azurekeyvault://acme.vault.azure.net/kek", "azurekms:"),
    ],
)
def test_a_uri_that_cannot_be_says_what_can(uri: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        open_provider(uri)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "has_macs"),
    [
        ({"vault_url": VAULT}, False),
        ({"vault_url": "https://acme.managedhsm.azure.net"}, True),
        ({"vault_url": "https://hsm.example.org", "allowed_hosts": ["hsm.example.org"]}, False),
        ({"vault_url": "https://hsm.example.org", "allowed_hosts": ["hsm.example.org"], "managed_hsm": True}, True),
        ({}, False),
    ],
)
def test_macs_are_a_capability_of_managed_hsms_only(given: dict[str, Any], has_macs: bool) -> None:
    assert isinstance(AzureKMSProvider(AzureKMSConfig(**given)), ports.ComputesMacs) is has_macs


def test_the_names_are_exported() -> None:
    assert keystead.AzureKMSProvider is AzureKMSProvider
    assert keystead.AzureKMSConfig is AzureKMSConfig


def test_importing_and_making_a_provider_loads_no_sdk() -> None:
    program = (
        "import sys\n"
        "from keystead import AzureKMSConfig, AzureKMSProvider\n"
        "AzureKMSProvider(AzureKMSConfig('https://acme.vault.azure.net', client_id='c'))\n"
        "loaded = {'aiohttp', 'azure.core', 'azure.identity', 'msal', 'ssl', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded - {'ssl'} else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={})


@pytest.mark.parametrize(("index", "package"), [(0, "azure-keyvault-keys"), (1, "azure-identity"), (2, "aiohttp")])
def test_a_missing_sdk_is_named_with_its_extra(index: int, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sdks = list(azure_session.SDKS)
    sdks[index] = dataclasses.replace(sdks[index], module="no_such_sdk")
    monkeypatch.setattr(importlib.import_module("keystead.providers.azure.provider"), "SDKS", sdks)
    with pytest.raises(MissingDependencyError) as caught:
        AzureKMSProvider()
    assert str(caught.value) == (
        f"Azure Key Vault support requires {package}. Install with: pip install keystead[azure]"
    )


def test_each_sdk_is_asked_for_by_the_name_it_is_installed_by() -> None:
    assert [(sdk.package, sdk.module) for sdk in azure_session.SDKS] == [
        ("azure-keyvault-keys", "azure.keyvault.keys"),
        ("azure-identity", "azure.identity"),
        ("aiohttp", "aiohttp"),
    ]
    for sdk in azure_session.SDKS:
        assert isinstance(sdk, Sdk)
        sdk.require()
