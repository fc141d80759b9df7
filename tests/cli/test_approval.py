"""``keystead approval``, and what it lets be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def tokens(folder: Path, cli: Cli) -> dict[str, str]:
    """Tokens of users of a store that asks for two people."""
    scopes = ["--scope", "keyrings:write", "--scope", "approvals:write", "--scope", "tokens:write"]
    made = {user: cli.ok("token", "create", user, *scopes).stdout.strip() for user in ("ada", "bob")}
    made["eve"] = cli.ok("token", "create", "eve", "--scope", "devices:use").stdout.strip()
    made["nina"] = cli.ok("token", "create", "nina", "--tenant", "north", *scopes).stdout.strip()
    with Path("keystead.yaml").open("a") as settings:
        settings.write("two_person: true\n")
    cli.ok("key", "rotate", "--promote", "now")
    return made


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tokens: dict[str, str]) -> At:
    """Who is at the command line."""
    return At(monkeypatch, tokens)


class At:
    def __init__(self, patch: pytest.MonkeyPatch, tokens: dict[str, str]) -> None:
        self._patch = patch
        self._tokens = tokens

    def sits(self, user: str) -> None:
        """Have a user be at the command line."""
        self._patch.setenv("KEYSTEAD_TOKEN", self._tokens[user])


DESTROY = ("key", "destroy", "default/1", "--yes", "--no-sources")


def test_what_another_approves_is_done_by_whoever_asked(cli: Cli, at: At) -> None:
    assert "KEYSTEAD_TOKEN" in cli.fails(1, *DESTROY)
    at.sits("ada")
    told = cli.fails(1, *DESTROY)
    [waits] = cli.json("approval", "list")["approvals"]
    assert f"keystead approval approve {waits['id']}" in told
    assert (waits["standing"], waits["act"], waits["target"]) == ("waiting", "key.destroy", "default/1")
    assert "somebody else" in cli.fails(1, "approval", "approve", waits["id"])
    at.sits("eve")
    assert "approvals:write" in cli.fails(1, "approval", "approve", waits["id"])
    assert "keyrings:write" in cli.fails(1, *DESTROY)
    at.sits("bob")
    assert "approved" in cli.ok("approval", "approve", waits["id"]).stdout
    at.sits("ada")
    assert "is destroyed after" in cli.ok(*DESTROY).stdout
    assert cli.ok("approval", "list").stdout.strip() == "nothing waits"
    assert waits["id"] in cli.ok("approval", "list", "--all").stdout
    shown = cli.ok("approval", "show", waits["id"]).stdout
    for each in ("done", "ada", "bob", "30d", "not looked for"):
        assert each in shown


def test_it_is_refused_or_taken_back(cli: Cli, at: At) -> None:
    at.sits("ada")
    cli.fails(1, *DESTROY)
    [waits] = cli.json("approval", "list")["approvals"]
    assert "refused" in cli.ok("approval", "refuse", waits["id"]).stdout
    assert "has refused this" in cli.fails(1, *DESTROY)
    cli.fails(1, "token", "create", "carol", "--scope", "tokens:write")
    [waits] = cli.json("approval", "list")["approvals"]
    at.sits("bob")
    assert "refused" in cli.ok("approval", "refuse", waits["id"]).stdout


def test_a_token_of_a_tenant_asks_for_and_answers_what_is_of_that_tenant_alone(cli: Cli, at: At) -> None:
    def carol(tenant: str) -> tuple[str, ...]:
        return ("token", "create", "carol", "--scope", "tokens:write", "--tenant", tenant)

    at.sits("nina")
    for foreign in (DESTROY, carol("south"), carol("")):
        assert "of another tenant" in cli.fails(1, *foreign)
    assert cli.json("approval", "list")["approvals"] == []
    cli.fails(1, *carol("north"))
    at.sits("ada")
    cli.fails(1, *DESTROY)
    cli.fails(1, *carol("north"))
    by_target = {(each["act"], each["asked_by"]): each["id"] for each in cli.json("approval", "list")["approvals"]}
    at.sits("nina")
    for answer in ("approve", "refuse"):
        assert "under this id" in cli.fails(1, "approval", answer, by_target["key.destroy", "ada"])
    cli.ok("approval", "approve", by_target["token.create", "ada"])
    cli.ok("approval", "refuse", by_target["token.create", "nina"])
    at.sits("ada")
    cli.ok(*carol("north"))


def test_the_rule_outlives_the_setting_and_ends_by_two(folder: Path, cli: Cli, at: At) -> None:
    settings = Path("keystead.yaml")
    at.sits("ada")
    assert "take that out first" in cli.fails(1, "approval", "end")
    settings.write_text(settings.read_text().replace("two_person: true\n", ""))
    cli.fails(1, *DESTROY)
    cli.fails(1, "approval", "end")
    [ends] = [each for each in cli.json("approval", "list")["approvals"] if each["act"] == "approval.end"]
    at.sits("bob")
    cli.ok("approval", "approve", ends["id"])
    at.sits("ada")
    cli.ok("approval", "end")
    cli.ok(*DESTROY)


def test_a_token_that_is_not_good_asks_for_nothing(cli: Cli, at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_TOKEN", "kst1_nobody")
    assert "no valid token" in cli.fails(1, *DESTROY)
    assert cli.ok("key", "list").exit_code == 0


def test_what_waits_is_read_without_a_token_as_the_rest_of_the_store_is(
    cli: Cli, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.sits("ada")
    cli.fails(1, *DESTROY)
    monkeypatch.setenv("KEYSTEAD_TOKEN", "kst1_nobody")
    [waits] = cli.json("approval", "list")["approvals"]
    assert "ada" in cli.ok("approval", "show", waits["id"]).stdout
    for answer in ("approve", "refuse"):
        assert "no valid token" in cli.fails(1, "approval", answer, waits["id"])
    monkeypatch.delenv("KEYSTEAD_TOKEN")
    for answer in ("approve", "refuse"):
        assert "KEYSTEAD_TOKEN" in cli.fails(1, "approval", answer, waits["id"])


def test_an_import_is_approved_by_another_account(
    folder: Path, cli: Cli, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("store", "export", "export.json")
    monkeypatch.setenv("KEYSTEAD_STORE", f"sqlite:///{folder}/empty.db")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    cli.fails(1, "store", "import", "export.json")
    [waits] = cli.json("approval", "list")["approvals"]
    assert (waits["act"], waits["asked_by"]) == ("store.import", "account ada")
    assert "somebody else" in cli.fails(1, "approval", "approve", waits["id"])
    monkeypatch.setattr("getpass.getuser", lambda: "bob")
    cli.ok("approval", "approve", waits["id"])
    cli.fails(1, "store", "import", "export.json")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert "imported" in cli.ok("store", "import", "export.json").stdout
