"""A set of KEKs as a URI: it names its members by theirs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from keystead.errors import ConfigurationError
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from tests.fakes.clock import FakeClock

MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def uri_of(policy: str = "", **members: str) -> str:
    options = [f"policy={policy}"] if policy else []
    return "multi:?" + "&".join([*options, *(f"kek.{name}={quote(uri, '')}" for name, uri in members.items())])


async def test_each_member_is_opened_as_its_own_uri_says(tmp_path: Path) -> None:
    settings = ProviderSettings(folder=str(tmp_path), environ={"TEST_KEK": MASTER_KEY}, clock=FakeClock())
    opened = open_provider(uri_of(home="local:kek?key=orders", work="env:TEST_KEK", third="local:"), settings)
    assert isinstance(opened.provider, MultiKMSProvider)
    assert (opened.name, opened.default_key_id) == ("multi", "default")
    assert list(opened.provider.members) == ["home", "work", "third"]
    assert [opened.provider.member_key_id(name) for name in opened.provider.members] == ["orders", "default", "default"]
    assert list(tmp_path.iterdir()) == []


def test_a_member_may_be_named_after_a_secret_while_its_own_uri_may_hold_none() -> None:
    names = {"shipping": "env:A", "token-vault": "env:B", "secrets": "env:C"}
    opened = open_provider(uri_of(**names)).provider
    assert isinstance(opened, MultiKMSProvider)
    assert list(opened.members) == list(names)
    with pytest.raises(ConfigurationError, match="carries a credential") as caught:
        open_provider(uri_of(cloud="awskms:///alias/x?secret_key=hunter2"))
    assert "hunter2" not in str(caught.value)


async def test_a_set_from_a_uri_encrypts_and_each_of_its_keks_opens_it_alone(tmp_path: Path) -> None:
    settings = ProviderSettings(folder=str(tmp_path), environ={"TEST_KEK": MASTER_KEY})
    whole = open_provider(uri_of(home="local:", work="env:TEST_KEK"), settings).provider
    sealed = await whole.encrypt(b"value", "default")
    for alone in (uri_of(home="local:"), uri_of(work="env:TEST_KEK")):
        assert await open_provider(alone, settings).provider.decrypt(sealed) == b"value"


@pytest.mark.parametrize(("policy", "told"), [("", "'all'"), ("all", "'all'"), ("any", "'any'"), ("2", "2")])
def test_the_policy_stands_in_the_uri(policy: str, told: str) -> None:
    provider = open_provider(uri_of(policy, a="env:A", b="env:B")).provider
    assert repr(provider) == f"MultiKMSProvider(['a', 'b'], policy={told})"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("multi:", "names its members by options"),
        ("multi:?policy=any", "names its members by options"),
        ("multi:cloud?kek.a=env%3AA", "names its members by options"),
        ("multi:?kek.a=env%3AA&colour=red", "has no option 'colour'; it knows kek.a, policy"),
        ("multi:?colour=red", "has no option 'colour'; it knows kek.NAME, policy"),
        ("multi:?kek.a=env%3AA&kek.a=env%3AB", "twice"),
        ("multi:?kek.=env%3AA", "no colon"),
        (uri_of("0", a="env:A"), "how many of the 1 members"),
        (uri_of("-1", a="env:A"), "how many of the 1 members"),
        (uri_of("most", a="env:A"), "how many of the 1 members"),
        (uri_of("3", a="env:A", b="env:B"), "how many of the 2 members"),
        (uri_of(a=uri_of(b="env:B")), "'a' is a set of KEKs itself"),
        (uri_of(a="nonsense:x"), "no provider has the scheme nonsense:"),
        (uri_of(a="local:x?colour=red"), "has no option 'colour'"),
    ],
)
def test_a_uri_that_cannot_be_says_why(uri: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        open_provider(uri)


def test_a_credential_in_a_members_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="carries a credential") as caught:
        open_provider(uri_of(a="hashivault://root:hunter2@host/transit/key"))
    assert "hunter2" not in str(caught.value)


def test_the_rules_for_production_hold_for_every_member() -> None:
    settings = ProviderSettings(production=True)
    with pytest.raises(ConfigurationError, match="allow_in_production"):
        open_provider(uri_of(a="local:kek"), settings)
    open_provider(uri_of(a="local:kek?allow_in_production=true"), settings)
