"""Configuration, URIs and key ids; nothing here reaches a server."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import socket
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, InvalidInputError, ProviderAuthError
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.providers.vault.config import VaultConfig, target_of
from keystead.providers.vault.keys import split_key_path
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making

ADDRESS = "https://vault.example.org:8200"
SECRET = "s.acanarythatmustneverbeseen"


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ("vault_addr", "addr", ADDRESS),
        ("vault_addr", "url", ADDRESS),
        ("token", "vault_token", SECRET),
        ("mount_path", "mount_point", "teams/transit"),
        ("namespace", "vault_namespace", "team-a"),
        ("tls_verify", "verify_tls", True),
        ("timeout", "timeout_s", 3.0),
        ("auth_method", "vault_auth_method", "approle"),
        ("role", "vault_role", "app"),
        ("secret_id", "vault_secret_id", SECRET),
    ],
)
def test_both_spellings_of_a_setting_say_the_same(first: str, second: str, value: Any) -> None:
    assert getattr(VaultConfig(**{second: value}), first) == value
    assert getattr(VaultConfig(**{first: value}), second) == value
    assert getattr(VaultConfig(**{first: value, second: value}), first) == value


def test_two_spellings_that_differ_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="vault_addr and addr are spellings of one setting"):
        VaultConfig(ADDRESS, addr="https://other.example.org")


def test_the_samples_of_the_documents_are_configurations() -> None:
    config = VaultConfig(
        vault_addr="https://vault.example.com:8200",
        token=SECRET,
        mount_path="transit",
        namespace="my-namespace",
        tls_verify=True,
        tls_ca_cert="/path/to/ca.pem",
    )
    assert (config.mount_path, config.namespace, config.timeout) == ("transit", "my-namespace", 5.0)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "   ",
        "vault.example.org:8200",
        "http://vault.example.org:8200",
        "http://10.0.0.1:8200",
        "http://127.0.0.1.example.org",
        "ftp://127.0.0.1",
        "https://",
        "https://user:password@vault.example.org",
        "https://vault.example.org?x=1",
        "https://vault.example.org:port",
        "https://[::1",
    ],
)
def test_an_address_that_is_none_or_would_send_the_token_in_clear_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        VaultConfig(address)
    assert "password" not in str(caught.value)
    if address.strip():
        with pytest.raises(ConfigurationError):
            target_of(VaultConfig(), {"VAULT_ADDR": address})


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8200", "http://localhost:8200", "http://[::1]:8200", "https://10.0.0.1/behind/"]
)
def test_http_is_for_this_machine_only(address: str) -> None:
    assert VaultConfig(address).vault_addr == address.rstrip("/")


@pytest.mark.parametrize("environ", [{}, {"VAULT_ADDR": ""}, {"BAO_ADDR": ""}])
async def test_without_an_address_nothing_is_called_not_even_localhost(
    environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: connections.append(address))
    monkeypatch.setenv("VAULT_ADDR", "http://localhost:8200")
    # The address is missed first, whatever else is missing.
    for config in (VaultConfig(token=SECRET), VaultConfig(), VaultConfig(auth_method="jwt", role="orders")):
        provider = VaultKMSProvider(config, environ=environ)
        with pytest.raises(ConfigurationError, match="VAULT_ADDR"):
            await provider.encrypt(b"value", "orders")
        await provider.aclose()
    assert connections == []


@pytest.mark.parametrize(
    ("environ", "address", "namespace"),
    [
        ({"VAULT_ADDR": ADDRESS, "VAULT_NAMESPACE": "/team-a/"}, ADDRESS, "team-a"),
        ({"BAO_ADDR": ADDRESS, "BAO_NAMESPACE": "team-b"}, ADDRESS, "team-b"),
        ({"VAULT_ADDR": ADDRESS, "BAO_ADDR": "https://other.example.org"}, ADDRESS, None),
    ],
)
def test_address_and_namespace_come_from_the_environment(
    environ: Mapping[str, str], address: str, namespace: str | None
) -> None:
    target = target_of(VaultConfig(), environ)
    assert (target.address, target.namespace) == (address, namespace)


def test_what_the_configuration_says_wins() -> None:
    environ = {"VAULT_ADDR": "https://other.example.org", "VAULT_NAMESPACE": "other"}
    target = target_of(VaultConfig(ADDRESS, namespace="team-a"), environ)
    assert (target.address, target.namespace) == (ADDRESS, "team-a")


def test_authorities_and_client_certificates_come_from_configuration_or_environment(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    assert target_of(VaultConfig(ADDRESS, tls_ca_cert=file), {}).verify == str(file)
    assert target_of(VaultConfig(ADDRESS), {"VAULT_CACERT": str(file)}).verify == str(file)
    assert target_of(VaultConfig(ADDRESS), {"VAULT_CAPATH": str(tmp_path)}).verify == str(tmp_path)
    assert target_of(VaultConfig(ADDRESS), {}).verify is True
    environ = {"VAULT_CLIENT_CERT": str(file), "VAULT_CLIENT_KEY": str(file)}
    assert target_of(VaultConfig(ADDRESS), environ).client_cert == (str(file), str(file))
    assert target_of(VaultConfig(ADDRESS, tls_client_cert=file), environ).client_cert == str(file)


def test_a_file_of_certificates_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="CA certificate does not exist: /no/such/file"):
        target_of(VaultConfig(ADDRESS, tls_ca_cert="/no/such/file"), {})


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "VAULT_PROXY_ADDR": "http://own:3128"}, "http://own:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other.org, .example.org"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "vault.example.org:8200"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "vault.example.org:1"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "*"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "ample.org"}, "http://proxy:3128"),
        ({}, None),
    ],
)
def test_a_proxy_is_used_as_the_environment_says(environ: Mapping[str, str], proxy: str | None) -> None:
    assert target_of(VaultConfig(ADDRESS), environ).proxy == proxy


def test_this_machine_is_reached_without_a_proxy() -> None:
    environ = {"VAULT_PROXY_ADDR": "http://own:3128", "HTTPS_PROXY": "http://proxy:3128"}
    assert target_of(VaultConfig("http://127.0.0.1:8200"), environ).proxy is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"auth_method": "ldap"}, "auth_method is one of token, approle, kubernetes, jwt"),
        ({"auth_method": "kubernetes"}, "needs role"),
        ({"auth_method": "jwt"}, "needs role"),
        ({"auth_method": "approle", "token": SECRET}, "takes no token"),
        ({"token": SECRET, "token_file": "/file"}, "not both"),
        ({"secret_id": SECRET, "secret_id_file": "/file"}, "not several"),
        ({"wrapped_secret_id": SECRET, "secret_id": SECRET}, "not several"),
        ({"tls_client_key": "/file"}, "tls_client_cert"),
        ({"tls_verify": False, "tls_ca_cert": "/file"}, "has no effect"),
        ({"tls_verify": "yes"}, "True or False"),
        ({"timeout": 0}, "seconds"),
        ({"timeout": "5"}, "seconds"),
        ({"mount_path": "a//b"}, "mount_path is a path"),
        ({"mount_path": "a/../b"}, "mount_path is a path"),
        ({"mount_path": "a?b"}, "mount_path is a path"),
        ({"token": ""}, "token is a text"),
        ({"auth_mount": "a b"}, "auth_mount is a path"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        VaultConfig(ADDRESS, **given)
    assert SECRET not in str(caught.value)


def test_slashes_around_paths_are_of_no_matter() -> None:
    config = VaultConfig(mount_path="/teams/transit/", auth_mount="auth/approle/")
    assert (config.mount_path, config.auth_mount) == ("teams/transit", "approle")


def test_a_configuration_shows_no_secret_and_is_not_copied() -> None:
    config = VaultConfig(ADDRESS, token=SECRET, secret_id=SECRET)
    assert SECRET not in f"{config!r} {config} {config.token}"
    for copying in (pickle.dumps, copy.deepcopy, dataclasses.asdict):
        with pytest.raises(TypeError):
            copying(config)


@pytest.mark.parametrize(
    ("uri", "mount", "key"),
    [
        ("hashivault://orders", "transit", "orders"),
        ("hashivault://transit/orders", "transit", "orders"),
        ("hashivault://transit/keys/orders", "transit", "orders"),
        ("hashivault://teams/payments/transit/orders", "teams/payments/transit", "orders"),
        ("HASHIVAULT://teams/keys/orders/", "teams", "orders"),
        ("hashivault://keys/orders", "keys", "orders"),
    ],
)
async def test_a_uri_names_mount_and_key(uri: str, mount: str, key: str) -> None:
    opened = open_provider(uri, ProviderSettings(environ={}))
    assert isinstance(opened.provider, VaultKMSProvider)
    assert (opened.name, opened.default_key_id) == ("vault", key)
    assert mount in repr(opened.provider)
    await opened.provider.aclose()


@pytest.mark.parametrize(
    "uri",
    [
        "hashivault:orders",
        "hashivault://",
        "hashivault:///orders",
        "hashivault://transit//orders",
        "hashivault://orders?namespace=a",
        "hashivault://user@transit/orders",
        "hashivault://orders?token=x",
        "hashivault://transit/a%20b",
        "hashivault://transit/%2e%2e",
        "hashivault://a%3Fb/orders",
    ],
)
def test_a_uri_of_another_form_is_refused_with_the_form(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"hashivault"):
        open_provider(uri, ProviderSettings(environ={}))


@pytest.mark.parametrize("spelling", ["vault://orders", "hv://orders", "hcvault://orders"])
def test_other_projects_schemes_are_answered_with_ours(spelling: str) -> None:
    with pytest.raises(ConfigurationError, match="Keystead's is hashivault:"):
        open_provider(spelling)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("orders", (None, "orders")),
        ("transit/orders", ("transit", "orders")),
        ("transit/keys/orders", ("transit", "orders")),
        ("/transit/keys/orders/", ("transit", "orders")),
        ("teams/a/transit/orders", ("teams/a/transit", "orders")),
        ("a.b-c_d", (None, "a.b-c_d")),
    ],
)
def test_a_key_is_named_alone_or_with_its_mount(path: str, parts: tuple[str | None, str]) -> None:
    assert split_key_path(path) == parts


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "a b",
        "transit/a b",
        "..",
        "a/..",
        "../a",
        "a//b",
        "-a",
        "a-",
        "a%2Fb",
        "a?b",
        "a\n",
        "é",
        "a/b\x00/c",
        5,
    ],
)
def test_a_name_that_transit_cannot_have_is_refused_before_anything_is_sent(path: Any) -> None:
    with pytest.raises(InvalidInputError):
        split_key_path(path)


async def test_the_servers_own_idea_of_a_name_is_ours(making: Making) -> None:
    for name in ("a.b-c_d", "_", "0", "a..b", "A" * 100):
        making.bao.do("POST", f"transit/keys/{name}")
        assert making.bao.key(name)["name"] == name
    for name in ("a%20b", "-a", "a-", "a.", "%C3%A9", "a%2Fb", "%2E%2E"):
        assert making.bao.ask("POST", f"transit/keys/{name}").status in {400, 404}


def test_verification_that_is_off_is_warned_about_once_and_refused_in_production() -> None:
    with pytest.warns(UserWarning, match="tls_verify=False") as seen:
        VaultKMSProvider(VaultConfig(ADDRESS, tls_verify=False), environ={})
    assert len(seen) == 1
    with pytest.raises(ConfigurationError, match="refused in production"):
        VaultKMSProvider(VaultConfig(ADDRESS, tls_verify=False), environ={}, production=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VaultKMSProvider(VaultConfig(ADDRESS), environ={}, production=True)


class Untouched(Mapping[str, str]):
    """An environment that must not be looked at."""

    def __getitem__(self, name: str) -> str:
        raise AssertionError(name)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError


def test_construction_reads_nothing_and_connects_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*given: object) -> None:
        raise AssertionError(given)

    monkeypatch.setattr(socket.socket, "connect", connect)
    VaultKMSProvider(VaultConfig(token_file="/no/such/file", tls_ca_cert="/no/such/file"), environ=Untouched())


@pytest.mark.parametrize(
    ("given", "environ", "told"),
    [
        ({}, {}, "VAULT_TOKEN"),
        ({}, {"HOME": "/no/such/home"}, "VAULT_TOKEN"),
        ({"token_file": "/no/such/file"}, {"VAULT_TOKEN": SECRET}, "token_file"),
        ({"auth_method": "approle"}, {}, "role_id"),
        ({"auth_method": "approle", "role_id": "r", "secret_id_file": "/no/such/file"}, {}, "/no/such/file"),
        ({"auth_method": "kubernetes", "role": "r"}, {}, "/var/run/secrets/kubernetes.io/serviceaccount/token"),
        ({"auth_method": "jwt", "role": "r", "jwt_path": "/no/such/file"}, {}, "/no/such/file"),
        ({}, {"VAULT_AUTH_METHOD": "kubernetes"}, "VAULT_ROLE"),
    ],
)
async def test_a_missing_credential_is_an_error_at_the_first_call_that_says_where_it_was_looked_for(
    given: Mapping[str, Any], environ: Mapping[str, str], told: str
) -> None:
    provider = VaultKMSProvider(VaultConfig("http://127.0.0.1:1", **given), environ=environ)
    with pytest.raises(ProviderAuthError, match=told):
        await provider.encrypt(b"value", "orders")
    await provider.aclose()


async def test_a_method_that_the_environment_names_and_there_is_not_is_refused() -> None:
    provider = VaultKMSProvider(VaultConfig("http://127.0.0.1:1"), environ={"VAULT_AUTH_METHOD": "ldap"})
    with pytest.raises(ConfigurationError, match="VAULT_AUTH_METHOD is one of"):
        await provider.encrypt(b"value", "orders")
    await provider.aclose()
