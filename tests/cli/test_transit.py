"""``keystead transit``: keys of the machine API."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.cli.conftest import Cli


@pytest.fixture
def orders(folder: Path, cli: Cli) -> str:
    """A key, by its name."""
    cli.ok("transit", "create", "orders")
    return "orders"


def wrapped(cli: Cli, material: bytes) -> str:
    """Return key material as its owner wraps it for the store."""
    public = load_pem_public_key(cli.ok("transit", "wrapping-key").stdout.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    key = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return base64.b64encode(public.encrypt(key, oaep) + aes_key_wrap_with_padding(key, material)).decode()


def test_a_key_is_made_listed_shown_and_rotated(folder: Path, cli: Cli) -> None:
    made = cli.json("transit", "create", "orders", "--auto-rotate", "30d")
    assert (made["name"], made["type"], made["auto_rotate_s"], made["latest"]) == (
        "orders",
        "aes256-gcm96",
        2_592_000,
        1,
    )
    cli.ok("transit", "create", "mail", "--derived", "--convergent", "--type", "aes128-gcm96")
    cli.ok("transit", "create", "codes", "--type", "hmac", "--key-size", "64")
    cli.ok("transit", "create", "release", "--type", "ed25519", "--tenant", "acme")
    listed = cli.json("transit", "list")["keys"]
    assert [each["name"] for each in listed] == ["codes", "mail", "orders"]
    text = cli.ok("transit", "list").stdout
    assert "derived, convergent" in text
    assert "64 bytes" in text
    assert "30d" in text
    assert [each["name"] for each in cli.json("transit", "list", "--tenant", "acme")["keys"]] == ["release"]
    assert cli.json("transit", "rotate", "orders")["latest"] == 2
    shown = cli.json("transit", "show", "orders")
    assert [(each["version"], each["state"]) for each in shown["versions"]] == [(1, "decrypt-only"), (2, "active")]
    release = cli.json("transit", "show", "release", "--tenant", "acme")
    assert len(base64.b64decode(release["versions"][0]["public_key"])) == 32
    assert release["versions"][0]["public_key"] in cli.ok("transit", "show", "release", "--tenant", "acme").stdout
    assert cli.ok("transit", "list", "--tenant", "nobody").stdout.strip() == "no Transit keys"


def test_nothing_shown_of_a_key_pair_is_private(folder: Path, cli: Cli) -> None:
    cli.ok("transit", "create", "release", "--type", "rsa-2048")
    shown = cli.ok("transit", "show", "release").stdout
    assert "BEGIN PUBLIC KEY" in shown
    assert "PRIVATE" not in shown


def test_what_was_encrypted_by_an_older_version_is_decrypted(orders: str, cli: Cli) -> None:
    old = cli.ok("transit", "encrypt", orders, "--aad", "order 7", given=b"hello").stdout
    assert old.startswith("vault:v1:")
    cli.ok("transit", "rotate", orders)
    assert cli.json("transit", "encrypt", orders, given=b"hello")["key_version"] == 2
    assert cli.json("transit", "encrypt", orders, "--version", "1", given=b"hello")["key_version"] == 1
    assert cli.ok("transit", "decrypt", orders, "--aad", "order 7", given=old).stdout == "hello"
    assert "authentication failed" in cli.fails(3, "transit", "decrypt", orders, "--aad", "order 8", given=old)
    assert "no prefix" in cli.fails(1, "transit", "decrypt", orders, given=b"hello")
    assert "no `vault:vN:` text" in cli.fails(1, "transit", "decrypt", orders, given=b"\xff")


def test_a_derived_key_asks_for_its_context(folder: Path, cli: Cli) -> None:
    cli.ok("transit", "create", "mail", "--derived", "--convergent")
    texts = [cli.ok("transit", "encrypt", "mail", "--context", "a", given=b"hello").stdout for _ in range(2)]
    assert texts[0] == texts[1]
    assert cli.ok("transit", "decrypt", "mail", "--context", "a", given=texts[0]).stdout == "hello"
    assert "context" in cli.fails(1, "transit", "encrypt", "mail", given=b"hello")
    assert "authentication failed" in cli.fails(3, "transit", "decrypt", "mail", "--context", "b", given=texts[0])


def test_a_plaintext_goes_to_a_file_where_the_answer_is_json(orders: str, cli: Cli) -> None:
    text = cli.ok("transit", "encrypt", orders, given=bytes(range(256))).stdout
    Path("sealed").write_text(text)
    assert "-o FILE" in cli.run("transit", "decrypt", orders, "sealed", "--json").stderr
    assert cli.json("transit", "decrypt", orders, "sealed", "-o", "opened")["plaintext_bytes"] == 256
    assert Path("opened").read_bytes() == bytes(range(256))


def test_a_key_is_deleted_only_where_that_is_allowed_and_its_name_was_typed(orders: str, cli: Cli) -> None:
    text = cli.ok("transit", "encrypt", orders, given=b"hello").stdout
    assert "--deletion-allowed` allows it" in cli.fails(1, "transit", "delete", orders, "--yes")
    assert cli.json("transit", "config", orders, "--deletion-allowed")["deletion_allowed"] is True
    assert "that is not the key's name" in cli.fails(1, "transit", "delete", orders, given="order\n")
    assert "say --yes" in cli.fails(2, "transit", "delete", orders, given="")
    assert cli.ok("transit", "decrypt", orders, given=text).stdout == "hello"
    assert "is deleted" in cli.ok("transit", "delete", orders, given="orders\n").stdout
    assert "keystead transit list" in cli.fails(1, "transit", "decrypt", orders, given=text)
    states = {key["keyring"]: key["state"] for key in cli.json("key", "list")["keys"]}
    assert states["keystead.transit/orders"] == "destroyed"
    cli.ok("transit", "create", orders)
    assert cli.run("transit", "decrypt", orders, given=text).exit_code != 0


def test_versions_are_trimmed_after_they_are_out_of_use(orders: str, cli: Cli) -> None:
    old = cli.ok("transit", "encrypt", orders, given=b"old").stdout
    cli.ok("transit", "rotate", orders)
    new = cli.ok("transit", "encrypt", orders, given=b"new").stdout
    refused = cli.fails(1, "transit", "trim", orders, "--before", "2", "--yes")
    assert "keystead transit config orders --min-decryption 2 --min-encryption 2" in refused
    cli.ok("transit", "config", orders, "--min-decryption", "2", "--min-encryption", "2")
    assert "too old" in cli.fails(1, "transit", "decrypt", orders, given=old)
    assert "that is not" in cli.fails(1, "transit", "trim", orders, "--before", "2", given="no\n")
    assert cli.json("transit", "trim", orders, "--before", "2", given="orders\n")["min_available"] == 2
    assert cli.ok("transit", "decrypt", orders, given=new).stdout == "new"
    assert [each["version"] for each in cli.json("transit", "show", orders)["versions"]] == [2]
    assert "destroyed before  version 2" in cli.ok("transit", "show", orders).stdout


def test_a_soft_deleted_key_does_nothing_until_it_is_restored(orders: str, cli: Cli) -> None:
    text = cli.ok("transit", "encrypt", orders, given=b"hello").stdout
    assert "keystead transit restore orders" in cli.ok("transit", "soft-delete", orders).stdout
    assert "out of use already" in cli.ok("transit", "soft-delete", orders).stdout
    assert "soft-deleted" in cli.fails(1, "transit", "decrypt", orders, given=text)
    assert "keystead transit restore orders" in cli.fails(1, "transit", "rotate", orders)
    assert "soft-deleted" in cli.ok("transit", "list").stdout
    assert cli.json("transit", "restore", orders)["soft_deleted"] is False
    assert cli.ok("transit", "decrypt", orders, given=text).stdout == "hello"


def test_a_brought_key_decrypts_what_was_encrypted_elsewhere(folder: Path, cli: Cli) -> None:
    material, nonce = os.urandom(32), os.urandom(12)
    Path("wrapped").write_text(wrapped(cli, material) + "\n")
    made = cli.json("transit", "import", "theirs", "--type", "aes256-gcm96", "--wrapped", "wrapped")
    assert (made["imported"], made["allow_rotation"]) == (True, False)
    foreign = "vault:v1:" + base64.b64encode(nonce + AESGCM(material).encrypt(nonce, b"theirs", None)).decode()
    assert cli.ok("transit", "decrypt", "theirs", given=foreign).stdout == "theirs"
    assert "import-version theirs" in cli.fails(1, "transit", "rotate", "theirs")
    again = ("transit", "import", "theirs", "--type", "aes256-gcm96", "--wrapped", "wrapped")
    assert "import-version theirs" in cli.fails(1, *again)
    Path("second").write_text(wrapped(cli, os.urandom(32)))
    assert cli.json("transit", "import-version", "theirs", "--wrapped", "second")["latest"] == 2
    assert cli.ok("transit", "decrypt", "theirs", given=foreign).stdout == "theirs"


def test_a_public_key_is_brought_alone_and_encrypts(orders: str, folder: Path, cli: Cli) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    Path("public.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    cli.ok("transit", "import", "theirs", "--type", "rsa-2048", "--public-key", "public.pem")
    text = cli.ok("transit", "encrypt", "theirs", given=b"for them alone").stdout
    assert "private counterpart" in cli.fails(1, "transit", "decrypt", "theirs", given=text)
    assert "one of them" in cli.fails(2, "transit", "import", "x", "--type", "rsa-2048")
    assert "not in PEM" in cli.fails(1, "transit", "import-version", "theirs", "--public-key", "keystead.yaml")
    assert "transit rotate orders" in cli.fails(1, "transit", "import-version", orders, "--public-key", "public.pem")


def test_upsert_is_turned_off_and_on_for_a_tenant(folder: Path, cli: Cli) -> None:
    assert cli.json("transit", "upsert") == {"tenant": "", "upsert": True}
    assert cli.json("transit", "upsert", "off", "--tenant", "acme") == {"tenant": "acme", "upsert": False}
    assert cli.json("transit", "upsert", "--tenant", "acme")["upsert"] is False
    assert "upsert is on" in cli.ok("transit", "upsert").stdout
    assert "say on or off" in cli.fails(2, "transit", "upsert", "maybe")


def test_what_is_wrong_is_told_with_what_would_be_right(orders: str, cli: Cli) -> None:
    assert "keystead transit rotate orders" in cli.fails(1, "transit", "create", orders)
    assert "keystead transit list" in cli.fails(1, "transit", "show", "none")
    assert "of tenant 'acme'" in cli.fails(1, "transit", "rotate", orders, "--tenant", "acme")
    assert "at least an hour" in cli.fails(1, "transit", "config", orders, "--auto-rotate", "5m")
    assert "--auto-rotate" in cli.fails(2, "transit", "config", orders, "--auto-rotate", "soon")
    assert "name an option" in cli.fails(2, "transit", "config", orders)
    assert "invalid key name" in cli.fails(1, "transit", "create", "a/b")
    assert "requires derivation" in cli.fails(1, "transit", "create", "x", "--convergent")
    assert "--type" in cli.run("transit", "create", "x", "--type", "des").stderr


def test_other_commands_know_the_keyrings_of_transit_keys(orders: str, cli: Cli) -> None:
    text = cli.ok("transit", "encrypt", orders, given=b"hello").stdout
    refused = cli.fails(1, "key", "rotate", "keystead.transit/orders")
    assert "keystead transit rotate" in refused
    assert cli.json("key", "show", "keystead.transit/orders/1")["keyring"] == "keystead.transit/orders"
    cli.ok("key", "rewrap")
    assert "keys open" in cli.ok("store", "verify").stdout
    assert cli.json("doctor")["is_well"] is True
    cli.ok("transit", "rotate", orders)
    cli.ok("key", "disable", "keystead.transit/orders/1")
    assert "no such key version" in cli.fails(1, "transit", "decrypt", orders, given=text)
    cli.ok("key", "enable", "keystead.transit/orders/1")
    assert cli.ok("transit", "decrypt", orders, given=text).stdout == "hello"


def test_transit_keys_are_exported_and_recovered_with_the_store(orders: str, folder: Path, cli: Cli) -> None:
    text = cli.ok("transit", "encrypt", orders, given=b"hello").stdout
    cli.ok("transit", "upsert", "off")
    cli.ok("store", "export", "keys.export")
    assert cli.json("store", "verify", "keys.export")["failures"] == []
    Path("keys.db").unlink()
    for rest in folder.glob("keys.db-*"):
        rest.unlink()
    cli.ok("store", "import", "keys.export")
    assert cli.ok("transit", "decrypt", orders, given=text).stdout == "hello"
    assert "store recover" in cli.fails(1, "transit", "rotate", orders)
    cli.ok("store", "recover")
    assert cli.json("transit", "upsert")["upsert"] is False
    assert cli.json("transit", "show", orders)["latest"] == 1002
    assert cli.ok("transit", "decrypt", orders, given=text).stdout == "hello"
