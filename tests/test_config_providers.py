"""Several providers in the settings: named instances, and sets of KEKs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.config.sources import LoadedSettings, load
from keystead.errors import ConfigurationError
from keystead.manager import admin
from keystead.manager.configured import ManagerParts, manager_parts
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.multi.provider import MultiKMSProvider

STORE = "store: sqlite:///keys.db\n"
TWO = f"""\
{STORE}
providers:
  home: file:home.kek
  work: env:WORK_KEK?key=orders
default_provider: work
"""
SET = f"""\
{STORE}
kms:
  multi:
    policy: any
    members:
      home: local:home.kek
      work: env:WORK_KEK
"""
KEK = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings_of(text: str, environ: Mapping[str, str] | None = None, **flags: Any) -> LoadedSettings:
    Path("keystead.yaml").write_text(text)
    return load(flags=flags, environ=environ or {})


def parts_of(text: str, environ: Mapping[str, str] | None = None, **flags: Any) -> ManagerParts:
    return manager_parts(settings_of(text, environ, **flags))


def test_each_provider_has_its_name_and_one_of_them_wraps() -> None:
    arguments = parts_of(TWO).arguments
    assert list(arguments["providers"]) == ["home", "work"]
    assert (arguments["default_provider"], arguments["default_key_id"]) == ("work", "orders")


def test_the_key_id_of_the_settings_is_the_default_providers() -> None:
    assert parts_of(TWO + "default_key_id: letters\n").arguments["default_key_id"] == "letters"


def test_one_provider_needs_no_default() -> None:
    arguments = parts_of(f"{STORE}providers: {{mine: 'local:'}}").arguments
    assert (arguments["default_provider"], list(arguments["providers"])) == ("mine", ["mine"])


def test_relative_paths_count_from_the_settings_file(tmp_path: Path) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/keystead.yaml").write_text(TWO)
    parts = manager_parts(load("elsewhere/keystead.yaml", environ={}))
    with pytest.raises(Exception, match=str(tmp_path / "elsewhere" / "home.kek")):
        parts.arguments["providers"]["home"]._source.peek()


def test_providers_stand_in_a_variable_as_pairs() -> None:
    environ = {"KEYSTEAD_PROVIDERS": "a=local:a.kek,b=local:b.kek?key=x", "KEYSTEAD_DEFAULT_PROVIDER": "b"}
    arguments = parts_of(STORE, environ).arguments
    assert (list(arguments["providers"]), arguments["default_key_id"]) == (["a", "b"], "x")
    with pytest.raises(ConfigurationError, match="name=uri"):
        parts_of(STORE, {"KEYSTEAD_PROVIDERS": "local:"})


async def test_several_instances_of_one_kind_are_told_apart_by_their_names() -> None:
    for name in ("old.kek", "new.kek"):
        create_kek_file(name)
    text = f"{STORE}providers:\n  old: file:old.kek\n  new: file:new.kek\n"
    async with KeyManager.from_config(settings_of(text + "default_provider: old\n")) as km:
        sealed = await km.encrypt(b"value", provider="old")
        blob = km.local_encrypt(b"x")
    async with KeyManager.from_config(settings_of(text + "default_provider: new\n")) as km:
        assert sealed.key_reference.provider == "old"
        assert await km.decrypt(sealed) == b"value"
        assert km.local_decrypt(blob) == b"x"
        assert (await km.encrypt(b"value")).key_reference.provider == "new"


def test_a_set_of_keks_is_a_section_or_a_uri() -> None:
    uri = "multi:?policy=any&kek.home=local%3Ahome.kek&kek.work=env%3AWORK_KEK"
    for parts in (parts_of(SET), parts_of(f"{STORE}kms: '{uri}'"), parts_of(STORE, kms=uri)):
        assert repr(parts.provider) == "MultiKMSProvider(['home', 'work'], policy='any')"
        assert parts.arguments["default_key_id"] == "default"
        assert list(parts.arguments["providers"]) == ["multi"]


def test_a_quorum_is_a_number() -> None:
    assert repr(parts_of(SET.replace("any", "2")).provider) == "MultiKMSProvider(['home', 'work'], policy=2)"


def test_all_have_to_wrap_where_nothing_is_said() -> None:
    assert repr(parts_of(SET.replace("    policy: any\n", "")).provider).endswith("policy='all')")


def test_a_set_may_be_one_of_several_providers() -> None:
    text = f"{STORE}providers:\n  old: 'local:'\n  both:\n    multi: {{members: {{a: 'local:', b: 'env:B'}}}}\n"
    parts = parts_of(text + "default_provider: both\n")
    assert isinstance(parts.provider, MultiKMSProvider)
    assert parts.arguments["default_provider"] == "both"
    assert [type(each).__name__ for each in parts.providers] == ["LocalKMSProvider", "MultiKMSProvider"]


def test_members_get_their_share_of_the_time_a_call_has() -> None:
    provider = parts_of(f"{SET}provider_deadline: 5s\n").provider
    assert isinstance(provider, MultiKMSProvider)
    assert {guard._deadline_s for guard in provider.members.values()} == {4.0}


async def test_a_store_moves_from_one_kek_to_several_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    create_kek_file("home.kek")
    monkeypatch.setenv("WORK_KEK", KEK)
    async with KeyManager.from_config(settings_of(f"{STORE}kms: file:home.kek\n")) as km:
        blob = km.local_encrypt(b"x")
    members = "{multi: {members: {home: 'file:home.kek', work: 'env:WORK_KEK'}}}"
    text = f"{STORE}providers:\n  local: file:home.kek\n  both: {members}\ndefault_provider: both\n"
    async with KeyManager.from_config(settings_of(text)) as km:
        assert km.local_decrypt(blob) == b"x"
        await admin.rewrap(km, new_wrap_key=False)
        assert [kek.provider for kek in (await admin.store_status(km)).keks] == ["both"]
    Path("home.kek").unlink()
    async with KeyManager.from_config(settings_of(f"{STORE}providers: {{both: {members}}}\n")) as km:
        assert km.local_decrypt(blob) == b"x"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TWO.replace("default_provider: work\n", ""), "name the one that wraps as default_provider"),
        (TWO.replace("default_provider: work", "default_provider: wokr"), "'wokr', and providers has home, work"),
        (TWO + "kms: 'local:'\n", r"kms \(keystead.yaml\) and providers \(keystead.yaml\) are both set"),
        (f"{STORE}providers: {{}}\n", "no KEK is set here"),
        (f"{STORE}providers: {{a: 5}}\n", "providers.a cannot be used"),
        (f"{STORE}providers: 5\n", "providers cannot be used"),
        (
            f"{STORE}providers: {{a: {{mutli: {{}}}}}}\n",
            r"unknown key 'providers.a.mutli'; did you mean providers.a.multi",
        ),
        (
            f"{STORE}kms: {{multi: {{membres: {{}}}}}}\n",
            r"unknown key 'kms.multi.membres'; did you mean kms.multi.members",
        ),
        (f"{STORE}kms: {{multi: {{policy: any}}}}\n", "kms.multi.members is missing"),
        (f"{STORE}kms: {{multi: {{members: {{}}}}}}\n", "1 to 16 members"),
        (f"{STORE}kms: {{multi: {{policy: most, members: {{a: 'local:'}}}}}}\n", "kms.multi"),
        (f"{STORE}kms: {{multi: {{policy: 3, members: {{a: 'local:'}}}}}}\n", "how many of the 1 members"),
        (f"{STORE}kms: {{multi: {{members: {{a: 'multi:?kek.b=local%3A'}}}}}}\n", "is a set of KEKs itself"),
        (f"{STORE}kms: {{multi: {{members: {{a: 'local:'}}}}, seed: x}}\n", "'kms.seed'"),
        (f"{STORE}default_provider: a\n", "no KEK is set here"),
    ],
)
def test_what_cannot_be_says_what_can(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parts_of(text)


def test_a_flag_and_a_file_that_name_different_keks_are_both_told() -> None:
    with pytest.raises(ConfigurationError, match=r"kms \(flag --kms\) and providers \(keystead.yaml\)"):
        parts_of(TWO, kms="local:")


def test_the_members_of_a_set_obey_the_rules_for_production() -> None:
    with pytest.raises(ConfigurationError, match="allow_in_production"):
        parts_of(SET + "env: production\n")
