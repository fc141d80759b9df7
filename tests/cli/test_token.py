"""``keystead token``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli


def test_a_token_is_shown_once_listed_without_itself_and_revoked(folder: Path, cli: Cli) -> None:
    shown = cli.ok("token", "create", "billing", "--scope", "devices:use", "--scope", "act-as", "--label", "the app")
    text = shown.stdout.strip()
    assert text.startswith("kst1_")
    assert "shown this once" in shown.stderr
    assert text not in shown.stderr
    made = cli.json("token", "create", "ada", "--scope", "metrics:read", "--tenant", "north", "--expires", "90d")
    assert made["token"].startswith(f"kst1_{made['id']}_")
    listing = cli.ok("token", "list")
    assert "billing" in listing.stdout
    assert text[22:] not in listing.stdout
    (first,) = cli.json("token", "list", "--tenant", "")["tokens"]
    assert (first["user"], first["scopes"], first["label"], first["revoked"]) == (
        "billing",
        "act-as devices:use",
        "the app",
        None,
    )
    assert "revoked" in cli.ok("token", "revoke", first["id"]).stdout
    assert cli.json("token", "list", "--tenant", "")["tokens"][0]["revoked"] is not None


def test_without_tokens_the_list_says_so(folder: Path, cli: Cli) -> None:
    assert cli.ok("token", "list").stdout.strip() == "no tokens"


def test_what_is_wrong_is_told_with_what_would_be_right(folder: Path, cli: Cli) -> None:
    assert "there are: act-as, approvals:write" in cli.fails(1, "token", "create", "ada", "--scope", "everything")
    assert "--expires" in cli.run("token", "create", "ada", "--scope", "act-as", "--expires", "soon").stderr
    assert "token list" in cli.fails(1, "token", "revoke", "0000000000000000")
