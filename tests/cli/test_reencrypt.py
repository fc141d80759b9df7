"""``keystead reencrypt`` on a table of an application, and what becomes of its jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import typer

from keystead.cli.reencrypt import parse_index
from keystead.fields import Exact, Index, Normalised, Prefix, Tokens
from keystead.manager.manager import KeyManager
from tests.cli.conftest import Cli
from tests.fields.application import Application, address


@pytest.fixture
def people(folder: Path) -> Application:
    """A table of people under the first version, where the second is active."""
    application = Application(f"sqlite:///{folder}/app.db")
    (folder / "app.db").touch()

    async def fill() -> None:
        async with KeyManager.from_config(background=False) as km:
            application.make_people(km, 12)
            await km.rotate_data_key(promote="now")

    asyncio.run(fill())
    return application


def test_a_table_is_re_encrypted_and_then_nothing_is_left_to_do(cli: Cli, people: Application) -> None:
    told = cli.json("reencrypt", people.url, "people.email", "--batch-rows", "5")
    assert (told["state"], told["rewritten"], told["skipped"], told["failed"]) == ("done", 12, 0, 0)
    assert cli.json("reencrypt", people.url, "people.email")["skipped"] == 12
    assert [job["state"] for job in cli.json("reencryption", "list")["jobs"]] == ["done", "done"]
    assert "rewritten" in cli.ok("reencrypt", people.url, "people.email").stdout


def test_a_plan_and_a_dry_run_change_nothing(cli: Cli, people: Application) -> None:
    before = people.rows("SELECT * FROM people")
    plan = cli.json("reencrypt", people.url, "people.email", "--plan")
    assert (plan["rows"], plan["versions"][0]["version"], plan["sample_changes"]) == (12, 1, 12)
    assert "default v1" in cli.ok("reencrypt", people.url, "people.email", "--plan").stdout
    assert cli.json("reencrypt", people.url, "people.email", "--dry-run")["rewritten"] == 12
    assert people.rows("SELECT * FROM people") == before


def test_a_row_that_is_left_ends_in_exit_code_1_and_is_named_without_its_value(cli: Cli, people: Application) -> None:
    people.fill("UPDATE people SET email = :a WHERE id = 3", [(address(3).encode(),)])
    done = cli.run("reencrypt", people.url, "people.email")
    assert done.exit_code == 1
    assert "row [3]: invalid_ciphertext" in done.stderr
    assert address(3) not in done.stderr + done.stdout
    (job,) = cli.json("reencryption", "list")["jobs"]
    shown = cli.json("reencryption", "show", job["id"])
    assert (shown["totals"]["read"], shown["totals"]["failed"]) == (12, 1)
    assert shown["failures"] == [{"key": "[3]", "reason": "invalid_ciphertext"}]
    assert shown["seconds"] >= 0
    assert "keystead reencrypt" in shown["command"]
    again = cli.ok("reencryption", "show", job["id"])
    assert "row [3]: invalid_ciphertext" in again.stderr
    assert "12 of 12" in again.stdout
    assert "reencryption list" in cli.fails(1, "reencryption", "show", "nothing")


@pytest.mark.parametrize("given", ["text", b"x"])
def test_a_column_in_clear_is_told_of_the_option_that_encrypts_it(
    cli: Cli, people: Application, given: str | bytes
) -> None:
    people.fill("UPDATE people SET email = :a", [(given,)])
    done = cli.run("reencrypt", people.url, "people.email")
    assert done.exit_code == 1
    assert done.stderr.count("--plaintext-column") == 1
    assert "no ciphertext of ours  12" in cli.ok("reencrypt", people.url, "people.email", "--plan").stdout


def test_jobs_are_paused_resumed_and_cancelled_by_id(cli: Cli, people: Application) -> None:
    job = cli.json("reencrypt", people.url, "people.email")["job_id"]
    assert "done" in cli.fails(1, "reencryption", "pause", job)
    assert "reencryption list" in cli.fails(1, "reencryption", "cancel", "nothing")
    assert "done" in cli.fails(1, "reencryption", "resume", job)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("exact", Exact()),
        ("exact,unique", Exact(unique=True)),
        ("email,size:16", Normalised(as_="email", size=16)),
        ("phone", Normalised(as_="phone")),
        ("prefix:4", Prefix(length=4)),
        ("tokens", Tokens()),
    ],
)
def test_an_index_is_described_by_a_word(text: str, index: Index) -> None:
    assert parse_index(text) == index


@pytest.mark.parametrize("text", ["", "like", "prefix", "exact,size", "tokens,unique", "exact,twice"])
def test_another_word_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_index(text)


def test_what_is_no_column_is_wrong_usage(cli: Cli, people: Application) -> None:
    assert "TABLE.COLUMN" in cli.fails(2, "reencrypt", people.url, "people")
