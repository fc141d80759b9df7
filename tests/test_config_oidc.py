"""The settings of an identity provider: whole, encrypted, and never by a key that others have."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keystead.config.settings import OidcSettings
from keystead.config.sources import load
from keystead.errors import ConfigurationError
from keystead.model.jws import JWS_ALGORITHMS

WHOLE = {"ISSUER": "https://id.example.com/realms/main", "AUDIENCE": "keystead"}


def oidc(**given: str) -> OidcSettings:
    return load(environ={f"KEYSTEAD_OIDC_{name}": value for name, value in given.items()}).settings.oidc


@pytest.fixture(autouse=True)
def _folder(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))


def test_there_is_none_unless_it_is_named() -> None:
    assert oidc().issuer is None


def test_an_issuer_and_an_audience_are_enough() -> None:
    found = oidc(**WHOLE)
    assert found.algorithms == "RS256,ES256,PS256,EdDSA"
    assert (found.subject_claim, found.tenant_claim, found.scope_claim, found.scopes) == ("sub", None, "scope", {})
    assert (found.leeway_s, found.max_lifetime, found.jwks_uri) == (30, timedelta(days=1), None)


def test_scopes_of_others_are_read_as_pairs() -> None:
    found = oidc(**WHOLE, SCOPES="kms-app=devices:use,kms-support=devices:admin secrets:reset")
    assert found.scopes == {"kms-app": "devices:use", "kms-support": "devices:admin secrets:reset"}


@pytest.mark.parametrize("given", [{"AUDIENCE": "keystead"}, {"ISSUER": WHOLE["ISSUER"]}, {"LEEWAY_S": "5"}])
def test_half_of_it_is_an_error(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="oidc cannot be used"):
        oidc(**given)


@pytest.mark.parametrize("name", ["HS256", "HS384", "HS512", "none", "None", "ES256K", "RS1", "", "RS256,HS256"])
def test_an_algorithm_by_a_shared_key_or_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="neither by nothing nor by a shared key"):
        oidc(**WHOLE, ALGORITHMS=name or ",")
    assert not any(name.startswith("HS") or name == "none" for name in JWS_ALGORITHMS)


def test_algorithms_may_have_spaces_between() -> None:
    assert oidc(**WHOLE, ALGORITHMS="RS512, EdDSA").algorithms == "RS512,EdDSA"


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com",
        "http://127.0.0.1.example.com",
        "http://192.168.1.1",
        "ftp://id.example.com",
        "id.example.com",
        "https://",
        "https:///path",
        "https://user:password@id.example.com",
        "https://id.example.com#part",
        "https://id.example.com/?query",
        "https://id.example.com/a b",
        "https://id.example.com\n",
        "https://id.example.com:port",
        "https://id.example.com:0",
        "https://[::1",
        "https://ïd.example.com",
    ],
)
def test_an_issuer_is_read_over_https(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"oidc\.issuer cannot be used") as caught:
        oidc(ISSUER=url, AUDIENCE="keystead")
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_an_issuer_on_this_machine_needs_no_certificate(host: str) -> None:
    assert oidc(ISSUER=f"http://{host}:8080/realms/main", AUDIENCE="keystead").issuer is not None


def test_a_key_set_may_be_asked_for_with_a_query() -> None:
    assert oidc(**WHOLE, JWKS_URI="https://id.example.com/keys?p=policy").jwks_uri is not None
    with pytest.raises(ConfigurationError, match=r"oidc\.jwks_uri cannot be used"):
        oidc(**WHOLE, JWKS_URI="http://id.example.com/keys")


@pytest.mark.parametrize(
    ("name", "value"),
    [("LEEWAY_S", "301"), ("LEEWAY_S", "-1"), ("MAX_LIFETIME", "59s"), ("MAX_LIFETIME", "31d"), ("SCOPES", "a")],
)
def test_what_would_weaken_it_has_bounds(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError):
        oidc(**WHOLE, **{name: value})
