from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from keystead.errors import ConfigurationError, KeyNotFoundError, MissingDependencyError
from keystead.ports import KmsProvider
from keystead.providers import registry
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.provider import LocalKMSProvider
from keystead.providers.registry import open_provider, register, schemes
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.testing import FakeKMS
from tests.docs.blocks import ROOT

GUIDE = ROOT / "docs" / "guides"


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


async def test_local_alone_makes_its_file_in_the_working_directory_at_the_first_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = open_provider("local:")
    assert (opened.name, opened.default_key_id) == ("local", "default")
    assert list(tmp_path.iterdir()) == []
    await opened.provider.encrypt(b"value", "default")
    assert (tmp_path / "keystead.kek").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("form", ["local:{}", "file:{}", "FILE:{}", "local://{}", "file://{}"])
async def test_a_uri_with_a_path_uses_that_file(form: str, tmp_path: Path) -> None:
    create_kek_file(tmp_path / "a kek")
    opened = open_provider(form.format(str(tmp_path / "a kek").replace(" ", "%20")))
    assert await opened.provider.decrypt(await opened.provider.encrypt(b"value", "default")) == b"value"


@pytest.mark.parametrize("form", ["local:{}", "file:{}"])
async def test_a_file_that_is_named_must_exist(form: str, tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError):
        await open_provider(form.format(tmp_path / "kek")).provider.encrypt(b"value", "default")


async def test_an_env_uri_reads_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_provider("env:TEST_KEK", ProviderSettings(environ={"TEST_KEK": "00" * 32}))
    assert opened.name == "local"
    assert await opened.provider.decrypt(await opened.provider.encrypt(b"value", "default")) == b"value"


def test_the_key_id_can_be_named() -> None:
    assert open_provider("local:?key=billing%3Aeu").default_key_id == "billing:eu"


def test_only_the_first_colon_divides() -> None:
    assert ProviderUri.parse("local:/a:b?key=c:d") == ProviderUri("local", "/a:b", {"key": "c:d"})


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("", "begins with its scheme"),
        ("/path/to/kek", "begins with its scheme"),
        ("no scheme:x", "begins with its scheme"),
        ("nonsense:x", "this release knows .*env:, file:, .*local:"),
        ("aws-kms://arn:aws:kms:x", "awskms:"),
        ("hcvault://host/key", "hashivault:"),
        ("base64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4=", "Keystead's is env:"),
        ("file2:key", "Keystead's is file:"),
        ("local:/kek?color=red", "has no option 'color'; it knows allow_in_production, key"),
        ("local:/kek?key=a&key=b", "twice"),
        ("local:/kek?key", "name=value"),
        ("local:/kek?allow_in_production=yes", "true or false"),
        ("local://host/kek", "on this machine"),
        ("file:", "takes the path"),
        ("env:", "name of an environment variable"),
        ("env:c2VjcmV0LWtleQ==", "name of an environment variable"),
    ],
)
def test_a_uri_that_cannot_be_says_what_can(uri: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        open_provider(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "local://user:hunter2@host/kek",
        "anything://hunter2@host/key",
        "local:?token=hunter2",
        "hashivault://transit/key?password=hunter2",
        "pkcs11:token=x?pin-value=hunter2",
        "awskms:///key?aws_secret_access_key=hunter2",
        "local:?Client_Secret=hunter2",
    ],
)
def test_a_uri_with_a_credential_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="carries a credential") as caught:
        open_provider(uri)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("uri", ["env:c2VjcmV0LWtleQ==", "base64key://c2VjcmV0LWtleQ==", "other:c2VjcmV0LWtleQ=="])
def test_no_message_repeats_what_may_be_a_key(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_provider(uri)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("uri", ["local:", "file:/kek", "env:TEST_KEK"])
def test_production_refuses_the_local_schemes_unless_the_uri_allows_them(uri: str) -> None:
    production = ProviderSettings(production=True)
    with pytest.raises(ConfigurationError, match="allow_in_production"):
        open_provider(uri, production)
    assert isinstance(open_provider(uri + "?allow_in_production=true", production).provider, LocalKMSProvider)


class OwnProvider(FakeKMS):
    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[KmsProvider, str | None]:
        return cls(name="own"), uri.body or None


def test_a_provider_of_ones_own_joins_by_registration(own_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_kms")
    module.__dict__["OwnProvider"] = OwnProvider
    monkeypatch.setitem(sys.modules, "own_kms", module)
    register("Own", "own_kms:OwnProvider")
    opened = open_provider("own:billing")
    assert (opened.name, opened.default_key_id, "own" in schemes()) == ("own", "billing", True)


def test_every_scheme_stands_in_the_guide_and_those_of_key_services_lead_to_their_pages() -> None:
    rows = [line for line in (GUIDE / "deploy.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for scheme in schemes():
        own = [row for row in rows if f"`{scheme}:" in row.split(" | ")[0]]
        pages = re.findall(r"\((\.\./kms/\w+\.md)\)", "".join(own))
        assert own
        assert len(pages) == (0 if scheme in {"local", "file", "env"} else 1)
        assert all((GUIDE / page).is_file() for page in pages)


def test_registering_a_scheme_twice_is_refused(own_registry: None) -> None:
    with pytest.raises(ConfigurationError, match="registered already"):
        register("local", "own_kms:OwnProvider")


def test_a_target_of_another_form_is_refused(own_registry: None) -> None:
    with pytest.raises(ConfigurationError, match="module:Class"):
        register("own", "own_kms.OwnProvider")


def test_a_missing_dependency_names_the_extra(own_registry: None) -> None:
    register("own", "keystead_test_missing:OwnProvider", "own")
    with pytest.raises(MissingDependencyError, match=r"pip install 'keystead\[own\]'"):
        open_provider("own:x")


@pytest.mark.parametrize("target", ["keystead_test_missing:OwnProvider", "keystead.providers.local.provider:Missing"])
def test_a_registration_that_leads_nowhere_says_so(own_registry: None, target: str) -> None:
    register("own", target)
    with pytest.raises(ConfigurationError, match="is registered for"):
        open_provider("own:x")
