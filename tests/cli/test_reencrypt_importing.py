"""``keystead reencrypt --import``: values of another system, with keys from files and variables."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from cryptography.fernet import Fernet

from keystead.fields import importer
from tests.cli.conftest import Cli
from tests.crypto.vectors import cases, load
from tests.fields.application import Application, address
from tests.fields.importing.conftest import openbao, own_openbao
from tests.fields.importing.test_aws_encryption_sdk import KEY, raw_key
from tests.fields.importing.test_vault import Old
from tests.legacy.sources import ITERATIONS, SALT, SEED, OldKey, build
from tests.legacy.sources import KEY as LEGACY_KEY
from tests.legacy.sources import VECTORS as LEGACY
from tests.services.openbao import OpenBao

__all__ = ["openbao", "own_openbao"]

FERNET_KEY = Fernet.generate_key()
UNTIL = ("--import-until", "2099-12-31")
FROM_OLD = ("--plaintext-column", "old", *UNTIL)
FRAISEQL = load("legacy.json")["fraiseql"]


@pytest.fixture
def people(folder: Path) -> Application:
    """An empty table with a column for old values."""
    application = Application(f"sqlite:///{folder}/app.db")
    (folder / "app.db").touch()
    application.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, old TEXT)")
    return application


def fill(people: Application, values: list[str]) -> None:
    """Insert old values."""
    people.fill("INSERT INTO people (id, old) VALUES (:a, :b)", enumerate(values, 1))


def test_values_are_imported_with_a_key_from_a_file_and_counted(cli: Cli, people: Application, folder: Path) -> None:
    fill(people, [Fernet(FERNET_KEY).encrypt(address(n).encode()).decode() for n in range(1, 6)])
    (folder / "new.key").write_bytes(Fernet.generate_key() + b"\n")
    (folder / "old.key").write_bytes(FERNET_KEY + b"\n")
    keys = ("--import-key-file", "new.key", "--import-key-file", "old.key")
    command = ("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "fernet", *keys)
    plan = cli.json(*command, "--plan")
    assert (plan["plaintext"], plan["sample_changes"]) == (5, 5)
    assert "of them imported          5" in cli.ok(*command, "--dry-run").stdout
    told = cli.json(*command)
    assert (told["imported"], told["failed"]) == (5, 0)
    assert people.rows("SELECT count(old), count(email) FROM people") == [(0, 5)]
    assert cli.json(*command)["imported"] == 0


def test_keys_and_salts_come_from_variables_and_files(
    cli: Cli, people: Application, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    derived = base64.urlsafe_b64encode(PBKDF2HMAC(SHA256(), 32, b"the salt", 100_000).derive(b"the secret"))
    fill(people, [Fernet(derived).encrypt(b"value").decode()])
    monkeypatch.setenv("DJANGO_SECRET_KEY", "the secret")
    (folder / "salt.txt").write_text("the salt\n")
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "django-fernet-encrypted-fields"),
        *("--import-key-env", "DJANGO_SECRET_KEY", "--import-option", "salts=@salt.txt"),
    )
    assert (told["imported"], told["failed"]) == (1, 0)


def test_options_of_a_format_are_passed_on(cli: Cli, people: Application, folder: Path) -> None:
    (folder / "column.key").write_text("the key of the column")
    writer = importer("sqlalchemy-utils", keys="the key of the column", padding="pkcs5", until=date(2099, 12, 31))
    fill(people, [writer.form_of("value")])
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "sqlalchemy-utils"),
        *("--import-key-file", "column.key", "--import-option", "engine=aes", "--import-option", "padding=pkcs5"),
    )
    assert told["imported"] == 1


@pytest.mark.parametrize("form", ["raw", "hex", "base64"])
def test_raw_keys_are_taken_as_they_are_or_as_text(cli: Cli, people: Application, folder: Path, form: str) -> None:
    content = {"raw": KEY, "hex": KEY.hex().encode() + b"\n", "base64": base64.b64encode(KEY) + b"\n"}[form]
    (folder / "aes.key").write_bytes(content)
    sealed, _ = EncryptionSDKClient().encrypt(
        source=b"value", key_provider=raw_key(), encryption_context={"table": "people"}
    )
    fill(people, [base64.b64encode(sealed).decode()])
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "aws-encryption-sdk"),
        *("--import-key-file", "aes.key", "--import-option", "namespace=app", "--import-option", "name=k1"),
        *("--import-option", "context.table=people"),
    )
    assert (told["imported"], told["failed"]) == (1, 0)


def test_a_key_of_vault_is_reached_by_its_uri(
    cli: Cli, people: Application, own_openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Old(own_openbao)
    fill(people, old.encrypt("one", "two"))
    monkeypatch.setenv("VAULT_ADDR", own_openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", own_openbao.token)
    uri = f"hashivault://{own_openbao.mount}/{old.key}"
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "vault"),
        *("--import-option", f"provider={uri}"),
    )
    assert (told["imported"], told["failed"]) == (2, 0)


def test_values_of_the_go_kms_are_read_once_its_keys_are_imported(cli: Cli, people: Application, folder: Path) -> None:
    build(f"sqlite:///{folder}/old.db", "data_keys", [OldKey()])
    (folder / "root.seed").write_text(SEED)
    (folder / "root.salt").write_text(SALT)
    cli.ok(
        *("import", "legacy", "--from", f"sqlite:///{folder}/old.db", "--iterations", str(ITERATIONS)),
        *("--seed-file", "root.seed", "--salt-file", "root.salt"),
    )
    fill(people, [LEGACY["field"]["text"], LEGACY["old_text"]])
    (folder / "old-text.key").write_text(LEGACY_KEY.hex())
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "kratos-kms"),
        *("--import-key-file", "old-text.key"),
    )
    assert (told["imported"], told["failed"]) == (2, 0)


def test_records_of_fraiseql_are_read_with_its_master_key(cli: Cli, people: Application, folder: Path) -> None:
    (folder / "master.key").write_text(FRAISEQL["local"]["key"])
    fill(people, [json.dumps(case["dict"]) for case in FRAISEQL["records"]])
    told = cli.json(
        *("reencrypt", people.url, "people.email", *FROM_OLD, "--import", "fraiseql", "--type", "bytes"),
        *("--import-key-file", "master.key"),
    )
    assert (told["imported"], told["failed"]) == (len(FRAISEQL["records"]), 0)


def test_pickled_values_of_django_are_read_in_place(cli: Cli, people: Application, folder: Path) -> None:
    [case] = [case for case in cases("imported-forms.json") if case["format"] == "django-cryptography"]
    people.fill("INSERT INTO people (id, email) VALUES (1, :a)", [(bytes.fromhex(case["stored_hex"]),)])
    (folder / "secret.key").write_text("secret\n")
    (folder / "other.key").write_text("0" * 64)
    command = ("reencrypt", people.url, "people.email", *UNTIL, "--import", "django-cryptography")
    key = ("--import-key-file", "secret.key")
    assert cli.run(*command, *key, "--import-option", "field_keys=@other.key").exit_code == 1
    told = cli.json(*command, *key, "--import-option", "encryption_keys=secret")
    assert (told["imported"], told["failed"]) == (1, 0)


def test_fernet_keys_of_django_are_taken_as_they_are(cli: Cli, people: Application, folder: Path) -> None:
    (folder / "fernet.key").write_bytes(FERNET_KEY)
    fill(people, [Fernet(FERNET_KEY).encrypt(b"value").decode()])
    command = ("reencrypt", people.url, "people.email", "--plaintext-column", "old", "--import", "django-fernet-fields")
    more = ("--import-until", "2099-12-31T12:00:00+01:00", "--import-key-file", "fernet.key")
    assert "true or false" in cli.run(*command, *more, "--import-option", "use_hkdf=no").stderr
    twice = ("--import-option", "use_hkdf=false", "--import-option", "use_hkdf=true")
    assert "given once" in cli.run(*command, *more, *twice).stderr
    assert cli.json(*command, *more, "--import-option", "use_hkdf=false")["imported"] == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--import", "fernet"), "--import-until"),
        (("--import-key-env", "X"), "go with --import FORMAT"),
        (("--import", "fernet", *UNTIL, "--import-key-env", "NOT_SET"), "NOT_SET holds no key"),
        (("--import", "fernet", *UNTIL, "--import-key-file", "none.key"), "none.key cannot be read"),
        (("--import", "fernet", *UNTIL), "needs keys="),
        (("--import", "rot13", *UNTIL), "there are aws-encryption-sdk"),
        (("--import", "fernet", "--import-until", "soon"), "2027-03-31"),
        (("--import", "fernet", *UNTIL, "--import-option", "x"), "NAME=VALUE"),
        (("--import", "fernet", *UNTIL, "--import-option", "provider=local:"), "fraiseql and vault"),
        (("--import", "fraiseql", *UNTIL, "--import-key-file", "short.key"), "16, 24 or 32 bytes"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    cli: Cli, people: Application, folder: Path, given: tuple[str, ...], told: str
) -> None:
    (folder / "short.key").write_text("short")
    fill(people, ["x"])
    done = cli.run("reencrypt", people.url, "people.email", "--plaintext-column", "old", *given)
    assert done.exit_code in (1, 2)
    assert told in done.stderr.replace("\n", " ")
    assert people.rows("SELECT email, old FROM people") == [(None, "x")]
