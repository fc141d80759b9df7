"""``keystead token role``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli

ORDERS = ("token", "role", "create", "orders", "--scope", "transit:*:orders-*", "--token-ttl", "1h")
SECRETS = ("--secret-id-ttl", "90d", "--secret-id-uses", "5")


def test_an_approle_is_made_shown_and_deleted_with_its_secret_ids(folder: Path, cli: Cli) -> None:
    made = cli.json(*ORDERS, *SECRETS, "--audit", "each", "--token-max-ttl", "4h")
    assert (made["scopes"], made["token_ttl_s"], made["token_max_ttl_s"]) == ("transit:*:orders-*", 3600, 14_400)
    assert (made["secret_id_ttl_s"], made["secret_id_uses"], made["audit"]) == (7_776_000, 5, "each")
    assert cli.json("token", "role", "show", "orders") == made
    assert made["role_id"] in cli.ok("token", "role", "show", "orders").stdout
    shown = cli.ok("token", "role", "secret-id", "create", "orders")
    text = shown.stdout.strip()
    assert text.startswith("kss1_")
    assert "shown this once" in shown.stderr
    listing = cli.ok("token", "role", "secret-id", "list", "orders").stdout
    assert text[5:21] in listing
    assert text[22:] not in listing
    assert "deleted" in cli.ok("token", "role", "secret-id", "delete", "orders", text[5:21]).stdout
    assert cli.json("token", "role", "secret-id", "list", "orders") == {"secret_ids": [], "next": None}
    assert cli.json("token", "role", "list") == {"roles": [made], "next": None}
    assert cli.json("token", "role", "delete", "orders") == {"name": "orders", "revoked_tokens": 0}
    assert cli.ok("token", "role", "list").stdout.strip() == "no roles"


def test_a_role_that_jwts_show_has_an_issuer_or_keys(folder: Path, cli: Cli) -> None:
    head = ("token", "role", "create-jwt", "ci", "--scope", "transit:sign:*", "--audience", "keystead")
    claims = ("--bound-claim", "env=prod", "--bound-claim", "env=stage", "--bound-subject", "svc-a")
    made = cli.json(*head, "--token-ttl", "5m", "--issuer", "https://idp.example", *claims, "--tenant", "north")
    assert (made["kind"], made["issuer"], made["audiences"]) == ("jwt", "https://idp.example", ["keystead"])
    assert (made["bound_claims"], made["bound_subject"]) == ({"env": ["prod", "stage"]}, "svc-a")
    shown = cli.ok("token", "role", "show", "ci", "--kind", "jwt", "--tenant", "north").stdout
    assert "env = prod or stage" in shown
    assert "needs an issuer" in cli.fails(1, *head, "--token-ttl", "5m")
    (folder / "key.pem").write_text("junk")
    assert "BEGIN PUBLIC KEY" in cli.fails(1, *head, "--token-ttl", "5m", "--public-key", "key.pem")
    assert "--public-key" in cli.run(*head, "--token-ttl", "5m", "--public-key", "none.pem").stderr
    assert "NAME=VALUE" in cli.run(*head, "--token-ttl", "5m", "--bound-claim", "env").stderr


def test_what_is_wrong_is_told_with_what_would_be_right(folder: Path, cli: Cli) -> None:
    bad = ("token", "role", "create", "orders", "--token-ttl", "1h", *SECRETS, "--scope")
    assert "transit:<operation>:<key glob>" in cli.fails(1, *bad, "transit:encrypt:a b")
    assert "there are: *, config" in cli.fails(1, *bad, "transit:export:*")
    assert "--token-ttl" in cli.run(*bad, "transit:sign:*", "--token-ttl", "soon").stderr
    assert "1 to 1000000000" in cli.fails(1, *ORDERS, "--secret-id-ttl", "1d", "--secret-id-uses", "0")
    assert "token role list" in cli.fails(1, "token", "role", "show", "orders")
    cli.ok(*ORDERS, *SECRETS)
    assert "there is a role 'orders'" in cli.fails(1, *ORDERS, *SECRETS)
    assert "secret-id list" in cli.fails(1, "token", "role", "secret-id", "delete", "orders", "0" * 16)
