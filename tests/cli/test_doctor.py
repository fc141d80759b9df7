"""``keystead doctor`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keystead.errors import ConfigurationError
from keystead.providers import registry
from keystead.testing import FakeKMS
from tests.cli.conftest import Cli

KEK = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SERVICE = FakeKMS(keys=["kek"])


class FromUri(FakeKMS):
    """A fake KMS that a URI names; every one is the same service."""

    @classmethod
    def from_uri(cls, uri: Any, settings: Any) -> tuple[Any, str | None]:
        return SERVICE.provider("fake"), uri.options.get("key", "kek")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeKMS:
    """A healthy fake KMS at ``fakekms:``."""
    target = registry.Entry(f"{__name__}:FromUri")
    monkeypatch.setitem(registry._REGISTRY, "fakekms", target)
    missing = registry.Entry("keystead.not_there:Provider", "cloud")
    monkeypatch.setitem(registry._REGISTRY, "missingkms", missing)
    SERVICE.heal()
    return SERVICE


def findings(cli: Cli, *args: str) -> list[dict[str, Any]]:
    result = cli.run("doctor", *args, "--json")
    answer = json.loads(result.stdout)
    assert answer["is_well"] is (result.exit_code == 0)
    assert result.exit_code in (0, 1)
    found: list[dict[str, Any]] = answer["findings"]
    return found


def status_of(found: list[dict[str, Any]], about: str, check: str) -> str:
    [status] = [each["status"] for each in found if (each["about"], each["check"]) == (about, check)]
    return str(status)


def test_a_new_installation_is_well_and_lacks_an_export(folder: Path, cli: Cli) -> None:
    found = findings(cli)
    assert {each["status"] for each in found} == {"ok", "warn"}
    assert status_of(found, "store", "exports") == "warn"
    cli.ok("store", "export", "keys.export")
    assert status_of(findings(cli), "store", "exports") == "ok"
    cli.ok("key", "rotate")
    assert status_of(findings(cli), "store", "exports") == "warn"
    cli.ok("store", "export")
    assert status_of(findings(cli), "store", "exports") == "ok"


def test_the_table_has_each_fault_with_its_cure(folder: Path, cli: Cli) -> None:
    (folder / "keystead.kek").unlink()
    result = cli.run("doctor")
    assert result.exit_code == 1
    assert "fail" in result.stdout
    assert "-> check the key's name" in " ".join(result.stdout.split())


def test_a_uri_is_examined_before_there_is_anything_else(empty: Path, cli: Cli, service: FakeKMS) -> None:
    found = findings(cli, "fakekms:")
    assert {each["about"] for each in found} == {"provider fake"}
    assert {each["status"] for each in found} == {"ok"}
    assert list(empty.iterdir()) == []


def test_a_signing_key_named_by_a_uri_is_tried_for_what_it_is(empty: Path, cli: Cli, service: FakeKMS) -> None:
    from keystead.model import KeyPurpose

    service.create_key("signer", purpose=KeyPurpose.SIGN_VERIFY)
    assert status_of(findings(cli, "fakekms:?key=signer"), "provider fake", "sign") == "ok"


def test_a_local_kek_that_is_not_there_is_found_and_not_made(empty: Path, cli: Cli) -> None:
    assert status_of(findings(cli, "local:"), "provider local", "key") == "fail"
    assert list(empty.iterdir()) == []


def test_what_one_setting_breaks_is_told_once(empty: Path, cli: Cli, service: FakeKMS) -> None:
    service.fail_always(ConfigurationError("no Region is set"))
    found = findings(cli, "fakekms:")
    assert [each["check"] for each in found if each["detail"] == "no Region is set"] == ["configuration"]
    assert status_of(found, "provider fake", "clock") == "skipped"


def test_what_missing_credentials_keep_from_being_told_is_not_repeated(empty: Path, cli: Cli, service: FakeKMS) -> None:
    service.deny()
    found = findings(cli, "fakekms:")
    assert status_of(found, "provider fake", "credentials") == "fail"
    told = {each["detail"] for each in found if each["check"] in ("permissions", "rotation", "clock")}
    assert told == {"not told, for the same reason as 'credentials'"}


def test_the_trail_has_lines_of_its_own(folder: Path, cli: Cli) -> None:
    [kept] = [each for each in findings(cli) if each["about"] == "audit trail"]
    assert (kept["status"], kept["cure"]) == ("ok", None)
    assert "keystead audit begin" in kept["detail"]
    cli.ok("audit", "begin")
    found = findings(cli)
    checks = ("kept", "sealed", "waiting", "sequencer", "checkpoint", "exported", "rejected")
    assert [each["check"] for each in found if each["about"] == "audit trail"] == [*checks]
    assert status_of(found, "audit trail", "exported") == "warn"
    cli.ok("audit", "checkpoint", "kept")
    assert {status_of(findings(cli), "audit trail", check) for check in checks} == {"ok"}


def test_a_missing_extra_is_a_finding(empty: Path, cli: Cli, service: FakeKMS) -> None:
    [finding] = findings(cli, "missingkms:")
    assert (finding["about"], finding["check"], finding["status"]) == ("provider missingkms", "sdk", "fail")
    assert "pip install" in finding["detail"]


def test_a_uri_that_cannot_be_read_is_an_error_and_is_not_repeated(empty: Path, cli: Cli) -> None:
    error = cli.fails(1, "doctor", "hashivault://root:hunter2@host/transit/key")
    assert "credential" in error
    assert "hunter2" not in error


def test_a_store_that_is_down_does_not_keep_the_providers_from_being_examined(folder: Path, cli: Cli) -> None:
    found = findings(cli, "--store", "postgresql://app:hunter2@127.0.0.1:9/keys")
    assert status_of(found, "store", "reachable") == "fail"
    assert status_of(found, "provider local", "decrypt") == "ok"
    assert "hunter2" not in json.dumps(found)


def test_a_store_that_is_not_there_yet_is_told_and_not_made(folder: Path, cli: Cli) -> None:
    found = findings(cli, "--store", "sqlite:///absent.db")
    assert status_of(found, "store", "reachable") == "fail"
    assert not Path("absent.db").exists()


@pytest.mark.parametrize("store", ["memory://", "ftp://x"])
def test_a_store_that_cannot_be_is_a_finding(folder: Path, cli: Cli, store: str) -> None:
    assert status_of(findings(cli, "--store", store), "store", "settings") == "fail"


def several(folder: Path, *lines: str) -> None:
    text = "store: sqlite:///keys.db\n" + "\n".join(lines) + "\n"
    (folder / "keystead.yaml").write_text(text)


def test_every_provider_of_the_settings_is_examined(folder: Path, cli: Cli, service: FakeKMS) -> None:
    several(folder, "providers:", "  local: file:keystead.kek", "  cloud: 'fakekms:'", "default_provider: local")
    found = findings(cli)
    assert {each["about"] for each in found} == {"provider local", "provider cloud", "store", "audit trail"}
    service.deny()
    found = findings(cli)
    assert status_of(found, "provider cloud", "credentials") == "fail"
    assert status_of(found, "provider local", "decrypt") == status_of(found, "store", "WRAP keys") == "ok"


def test_a_provider_that_cannot_be_opened_does_not_keep_the_others(folder: Path, cli: Cli, service: FakeKMS) -> None:
    several(folder, "providers:", "  local: file:keystead.kek", "  cloud: 'missingkms:'", "default_provider: local")
    found = findings(cli)
    assert status_of(found, "provider cloud", "sdk") == "fail"
    assert status_of(found, "provider local", "decrypt") == "ok"


def test_without_any_provider_the_store_is_examined_all_the_same(folder: Path, cli: Cli, service: FakeKMS) -> None:
    several(folder, "kms: 'missingkms:'", "default_key_id: kek")
    found = findings(cli)
    assert status_of(found, "store", "reachable") == "ok"
    assert status_of(found, "store", "WRAP keys") == "skipped"


def test_it_is_told_that_nobody_is_named_to_wrap(folder: Path, cli: Cli, service: FakeKMS) -> None:
    several(folder, "providers: {local: 'file:keystead.kek', cloud: 'fakekms:'}")
    assert status_of(findings(cli), "settings", "default_provider") == "fail"


def test_the_default_key_id_of_the_settings_is_the_one_that_is_examined(
    folder: Path, cli: Cli, service: FakeKMS
) -> None:
    several(folder, "providers: {cloud: 'fakekms:'}", "default_key_id: absent")
    assert status_of(findings(cli), "provider cloud", "key") == "fail"


def test_each_kek_of_a_set_is_examined_and_missing_wraps_are_told(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_KEK", KEK)
    uris = {"home": "file:keystead.kek", "work": "env:WORK_KEK"}
    members = "".join(f"&kek.{name}={quote(uri, safe='')}" for name, uri in uris.items())
    several(
        folder,
        "providers:",
        "  local: file:keystead.kek",
        f"  both: multi:?policy=any{members}",
        "default_provider: both",
    )
    monkeypatch.delenv("WORK_KEK")
    cli.ok("key", "rewrap", "--keep-wrap-key")
    assert cli.json("status")["store"]["missing_wraps"] == {"work": 1}
    assert "missing wraps" in cli.ok("status").stdout
    found = findings(cli)
    assert status_of(found, "provider both/work", "configuration") == "fail"
    assert status_of(found, "store", "wraps") == "warn"
    monkeypatch.setenv("WORK_KEK", KEK)
    assert "moved 0 data keys and 1 WRAP key" in cli.ok("key", "rewrap", "--keep-wrap-key").stdout
    assert cli.json("status")["store"]["missing_wraps"] == {}
    assert {each["status"] for each in findings(cli) if each["about"] == "provider both/work"} == {"ok"}
    [kek] = cli.json("status")["store"]["keks"]
    assert (kek["provider"], kek["key_id"]) == ("both", "{home=default,work=default}")


def test_config_check_shows_every_provider_and_member(folder: Path, cli: Cli) -> None:
    several(
        folder,
        "providers:",
        "  local: file:keystead.kek",
        "  both: {multi: {members: {a: 'env:A'}}}",
        "default_provider: local",
    )
    shown = cli.json("config", "check")["settings"]
    assert shown["providers"]["value"] == {
        "local": "file:keystead.kek",
        "both": {"multi": {"policy": "all", "members": {"a": "env:A"}}},
    }
    assert shown["default_provider"] == {"value": "local", "from": "keystead.yaml"}
    several(folder, "kms: {multi: {policy: 1, members: {a: 'env:A'}}}")
    shown = cli.json("config", "check")["settings"]
    assert (shown["kms.multi.policy"]["value"], shown["kms.multi.members"]["value"]) == (1, {"a": "env:A"})


def test_the_time_it_takes_is_bounded_by_an_option(folder: Path, cli: Cli) -> None:
    cli.ok("doctor", "--timeout", "1m")
    assert "--timeout" in cli.fails(2, "doctor", "--timeout", "soon")
    for args in ((), ("local:",)):
        assert "more than no time" in cli.fails(1, "doctor", *args, "--timeout", "0s")
