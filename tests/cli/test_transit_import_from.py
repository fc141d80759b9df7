"""Keys of a real OpenBao are made here alike, and their material comes along where it is given out."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli
from tests.cli.other_transit import Old, old, opened
from tests.fields.importing.conftest import openbao, own_openbao

__all__ = ["old", "openbao", "own_openbao"]


def test_keys_are_made_alike_and_their_material_stays_there(old: Old, cli: Cli) -> None:
    server, wanted = old.server, ["aes256-gcm96", "chacha20-poly1305", "rsa-2048", "ed25519", "ecdsa-p256"]
    made = {server.new_key(type=kind, auto_rotate_period="48h"): kind for kind in wanted}
    derived = server.new_key(type="aes128-gcm96", derived=True, convergent_encryption=True)
    hmac = server.new_key(type="hmac", key_size=48)
    chosen = [part for name in (*made, derived, hmac) for part in ("--key", name)]
    look = ("transit", "import-from", server.url, "--mount", server.mount, *chosen)
    assert {each["outcome"] for each in cli.json(*look, "--dry-run")["keys"]} == {"made"}
    assert cli.json("transit", "list")["keys"] == []
    told = cli.run(*look)
    assert "material of their own here" in told.stderr
    assert "keystead transit reencrypt" in told.stderr
    found = {each["name"]: each for each in cli.json("transit", "list")["keys"]}
    for name, kind in made.items():
        assert (found[name]["type"], found[name]["auto_rotate_s"]) == (kind, 172_800)
    assert (found[derived]["derived"], found[derived]["convergent"]) == (True, True)
    assert found[hmac]["key_size"] == 48
    assert {each["outcome"] for each in cli.json(*look)["keys"]} == {"there already"}
    text = old.encrypt(next(iter(made)), "hello")
    assert cli.run("transit", "decrypt", next(iter(made)), given=text).exit_code == 3


def test_a_key_that_cannot_be_made_is_named_and_the_others_are(old: Old, cli: Cli) -> None:
    good, other = old.server.new_key(), old.server.new_key(type="xchacha20-poly1305")
    taken = old.server.new_key()
    cli.ok("transit", "create", taken, "--type", "ed25519")
    chosen = [part for name in (good, other, taken) for part in ("--key", name)]
    told = cli.run("transit", "import-from", old.server.url, *chosen)
    assert told.exit_code == 1
    assert f"not made: {other}: unknown key type" in told.stderr
    assert f"not made: {taken}: there is a key of that name here with another type" in told.stderr
    assert cli.json("transit", "show", good)["type"] == "aes256-gcm96"
    assert "no key 'none'" in cli.fails(1, "transit", "import-from", old.server.url, "--key", "none")


def test_who_is_not_let_in_is_told_so(old: Old, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "no-token")
    refused = cli.fails(1, "transit", "import-from", old.server.url, "--token-env", "OTHER")
    assert "no-token" not in refused
    assert "--token-env" in cli.fails(1, "transit", "import-from", old.server.url, "--token-env", "NOWHERE")
    assert "http" in cli.fails(1, "transit", "import-from", "http://vault.example:8200")


@pytest.mark.parametrize("kind", ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "rsa-2048"])
def test_material_that_is_given_out_decrypts_what_was_encrypted_there_at_once(kind: str, old: Old, cli: Cli) -> None:
    key = old.server.new_key(type=kind, exportable=True)
    first = old.encrypt(key, "hello")
    old.server.do("POST", f"{old.server.mount}/keys/{key}/rotate")
    second = old.encrypt(key, "hello again")
    bring = ("transit", "import-from", old.server.url, "--key", key, "--material")
    [told] = cli.json(*bring)["keys"]
    assert (told["outcome"], told["versions"], told["is_exportable"]) == ("brought", 2, True)
    assert (opened(cli, key, first), opened(cli, key, second)) == ("hello", "hello again")
    old.server.do("POST", f"{old.server.mount}/keys/{key}/rotate")
    third = old.encrypt(key, "once more")
    [told] = cli.json(*bring)["keys"]
    assert (told["outcome"], told["versions"]) == ("brought", 3)
    assert opened(cli, key, third) == "once more"
    [told] = cli.json(*bring)["keys"]
    assert told["outcome"] == "there already"
    assert cli.json("transit", "rotate", key)["latest"] == 4
    assert opened(cli, key, first) == "hello"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "ecdsa-p521"])
def test_brought_signing_keys_have_the_public_half_that_others_know(kind: str, old: Old, cli: Cli) -> None:
    key = old.server.new_key(type=kind, exportable=True)
    cli.ok("transit", "import-from", old.server.url, "--key", key, "--material")
    theirs = old.server.key(key)["keys"]["1"]["public_key"]
    [ours] = cli.json("transit", "show", key)["versions"]
    assert ours["public_key"].strip() == theirs.strip()


def test_material_that_cannot_come_along_is_refused_with_its_reason(old: Old, cli: Cli) -> None:
    kept, derived = old.server.new_key(), old.server.new_key(derived=True, exportable=True)
    trimmed = old.server.new_key(exportable=True)
    old.server.do("POST", f"{old.server.mount}/keys/{trimmed}/rotate")
    old.server.do("POST", f"{old.server.mount}/keys/{trimmed}/config", {"min_decryption_version": 2})
    chosen = [part for name in (kept, derived, trimmed) for part in ("--key", name)]
    told = cli.run("transit", "import-from", old.server.url, *chosen, "--material")
    assert told.exit_code == 1
    assert f"{kept}: the other engine does not give its material out" in told.stderr
    assert f"{derived}: a derived key derives otherwise" in told.stderr
    assert f"{trimmed}: its first versions are not given out" in told.stderr
    assert cli.json("transit", "list")["keys"] == []
