"""Columns that are served meanwhile, and files, come from a real OpenBao and go there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keystead.fields import worker
from keystead.transit.moving import RowMover
from tests.cli.conftest import Cli
from tests.cli.other_transit import ROWS, Old, old, opened
from tests.fields.application import Application
from tests.fields.importing.conftest import openbao, own_openbao

__all__ = ["old", "openbao", "own_openbao"]


@pytest.fixture(params=["sqlite", "postgresql"])
def cards(request: pytest.FixtureRequest, folder: Path) -> Application:
    """A table with a column of ciphertexts."""
    if request.param == "postgresql":
        application = Application(request.getfixturevalue("postgres_url"))
    else:
        (folder / "app.db").touch()
        application = Application(f"sqlite:///{folder}/app.db")
    application.run("CREATE TABLE cards (id BIGINT PRIMARY KEY, number TEXT, holder TEXT)")
    return application


def fill(cards: Application, texts: Sequence[str | None]) -> None:
    """Insert ciphertexts."""
    cards.fill("INSERT INTO cards (id, number, holder) VALUES (:a, :b, :c)", [
        (number, text, f"holder {number}") for number, text in enumerate(texts, 1)
    ])  # fmt: skip


def numbers(cards: Application) -> list[Any]:
    """Return the column as it is."""
    return [row[0] for row in cards.rows("SELECT number FROM cards ORDER BY id")]


def command(cards: Application, old: Old, key: str, *options: str, way: str = "--from-vault") -> tuple[str, ...]:
    """Return the command that moves the column."""
    return ("transit", "reencrypt", cards.url, "cards.number", "--key", key, way, old.server.url, *options)


def test_a_column_comes_over_and_stays_texts_of_transit(old: Old, cli: Cli, cards: Application) -> None:
    key = old.server.new_key()
    texts = old.texts(key)
    fill(cards, [*texts, None])
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    dry = cli.json(*command(cards, old, key, "--dry-run"))
    assert (dry["rewritten"], dry["failed"]) == (ROWS, 0)
    assert numbers(cards) == [*texts, None]
    done = cli.json(*command(cards, old, key, "--batch-rows", "7"))
    assert (done["read"], done["rewritten"], done["skipped"], done["failed"]) == (ROWS + 1, ROWS, 1, 0)
    moved = numbers(cards)
    assert moved[-1] is None
    assert all(text.startswith("vault:v1:") and text not in texts for text in moved[:-1])
    assert [opened(cli, key, text) for text in moved[:3]] == ["value 1", "value 2", "value 3"]
    assert cards.rows("SELECT holder FROM cards WHERE id = 7") == [("holder 7",)]
    again = cli.json(*command(cards, old, key))
    assert (again["rewritten"], again["skipped"], again["failed"]) == (0, ROWS + 1, 0)
    assert numbers(cards) == moved
    jobs = cli.json("reencryption", "list")["jobs"]
    assert {job["field_id"] for job in jobs} == {"transit:cards.number"}


def test_a_column_goes_back_by_the_same_command(old: Old, cli: Cli, cards: Application) -> None:
    key, there = "cards", old.server.new_key()
    cli.ok("transit", "create", key)
    ours = [cli.ok("transit", "encrypt", key, given=f"value {n}".encode()).stdout.strip() for n in range(1, 6)]
    fill(cards, ours)
    go = command(cards, old, key, "--vault-key", there, way="--to-vault")
    assert cli.json(*go)["rewritten"] == 5
    assert [old.decrypt(there, text) for text in numbers(cards)] == [f"value {n}" for n in range(1, 6)]
    moved = numbers(cards)
    again = cli.json(*go)
    assert (again["rewritten"], again["skipped"], again["failed"]) == (0, 5, 0)
    assert numbers(cards) == moved
    assert cli.json(*command(cards, old, key, "--vault-key", there))["rewritten"] == 5
    assert [opened(cli, key, text) for text in numbers(cards)] == [f"value {n}" for n in range(1, 6)]


@pytest.mark.parametrize("way", ["--from-vault", "--to-vault"])
def test_rows_of_a_key_pair_are_moved_once(way: str, old: Old, cli: Cli, cards: Application) -> None:
    key = old.server.new_key(type="rsa-2048")
    cli.ok("transit", "create", key, "--type", "rsa-2048")
    if way == "--from-vault":
        fill(cards, old.texts(key, 4))
    else:
        fill(cards, [cli.ok("transit", "encrypt", key, given=b"x").stdout.strip() for _ in range(4)])
    assert cli.json(*command(cards, old, key, way=way))["rewritten"] == 4
    moved = numbers(cards)
    again = cli.json(*command(cards, old, key, way=way))
    assert (again["rewritten"], again["skipped"], again["failed"]) == (0, 4, 0)
    assert numbers(cards) == moved


def test_what_cannot_be_moved_is_left_as_it_is_and_named(old: Old, cli: Cli, cards: Application) -> None:
    key, another = old.server.new_key(), old.server.new_key()
    strange = [old.encrypt(another, "x"), "in clear", "vault:v1:AAAA", "vault:v9:" + "A" * 64, ""]
    fill(cards, [*old.texts(key, 3), *strange])
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    told = cli.run(*command(cards, old, key))
    assert told.exit_code == 1
    assert told.stderr.count("left as it is: row") == len(strange)
    assert "in clear" not in told.stderr
    assert numbers(cards)[3:] == strange
    report = json.loads(cli.run(*command(cards, old, key, "--json")).stdout)
    assert (report["rewritten"], report["skipped"], report["failed"]) == (0, 3, len(strange))


def test_an_edit_of_the_application_wins(
    old: Old, cli: Cli, cards: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = old.server.new_key()
    fill(cards, old.texts(key, 5))
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    edited = cli.ok("transit", "encrypt", key, given=b"edited").stdout.strip()
    works = RowMover.work_on
    edits = iter([f"UPDATE cards SET number = '{edited}' WHERE id = 2"])

    def work_on(self: RowMover, *given: Any) -> Any:
        work = works(self, *given)
        for edit in edits:
            cards.run(edit)
        return work

    monkeypatch.setattr(RowMover, "work_on", work_on)
    report = cli.json(*command(cards, old, key))
    assert (report["rewritten"], report["contended"], report["failed"]) == (4, 1, 0)
    assert numbers(cards)[1] == edited
    assert [opened(cli, key, text) for text in numbers(cards)] == ["value 1", "edited", "value 3", "value 4", "value 5"]


def test_a_move_that_was_cut_off_goes_on_where_it_stopped(
    old: Old, cli: Cli, cards: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = old.server.new_key()
    before = old.texts(key, 100)
    fill(cards, before)
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    works = RowMover.work_on
    calls: list[int] = []

    def work_on(self: RowMover, rows: Any, *given: Any) -> Any:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return works(self, rows, *given)

    with monkeypatch.context() as patch:
        patch.setattr(RowMover, "work_on", work_on)
        patch.setattr(worker, "LEASE_MS", 1000)  # for so long the next run waits for the one that was cut off
        assert cli.run(*command(cards, old, key, "--batch-rows", "10")).exit_code != 0
    moved = [text for text, was in zip(numbers(cards), before, strict=True) if text != was]
    assert 0 < len(moved) < 100
    assert all(opens(cli, key, text) for text in (moved[0], moved[-1]))
    report = cli.json(*command(cards, old, key, "--batch-rows", "10"))
    assert (report["read"], report["failed"], report["state"]) == (100, 0, "done")
    assert all(opens(cli, key, text) for text in numbers(cards)[::33])
    assert not set(numbers(cards)) & set(before)
    assert len({job["id"] for job in cli.json("reencryption", "list")["jobs"]}) == 1


def opens(cli: Cli, key: str, text: str) -> bool:
    """Whether the store's key decrypts a text."""
    return cli.run("transit", "decrypt", key, given=text).exit_code == 0


def test_contexts_and_associated_data_may_stand_in_columns(old: Old, cli: Cli, cards: Application) -> None:
    key = old.server.new_key(derived=True)
    fill(cards, [old.encrypt(key, f"value {n}", context=f"holder {n}", aad="cards") for n in range(1, 6)])
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    assert "name the context" in cli.fails(1, *command(cards, old, key))
    bound = ("--context-column", "holder", "--aad", "cards")
    assert "not both" in cli.run(*command(cards, old, key, *bound, "--context", "x")).stderr
    assert cli.json(*command(cards, old, key, *bound))["rewritten"] == 5
    text = numbers(cards)[2]
    assert opened(cli, key, text, "--context", "holder 3", "--aad", "cards") == "value 3"
    assert cli.run("transit", "decrypt", key, "--context", "holder 2", "--aad", "cards", given=text).exit_code == 3


def test_a_column_is_brought_to_the_latest_version_of_its_key(cli: Cli, cards: Application) -> None:
    cli.ok("transit", "create", "cards")
    texts = [cli.ok("transit", "encrypt", "cards", given=f"value {n}".encode()).stdout.strip() for n in range(1, 4)]
    cli.ok("transit", "rotate", "cards")
    fill(cards, [*texts, cli.ok("transit", "encrypt", "cards", given=b"value 4").stdout.strip()])
    rewrap = ("transit", "reencrypt", cards.url, "cards.number", "--key", "cards")
    report = cli.json(*rewrap)
    assert (report["rewritten"], report["skipped"]) == (3, 1)
    assert all(text.startswith("vault:v2:") for text in numbers(cards))
    assert [opened(cli, "cards", text) for text in numbers(cards)] == [f"value {n}" for n in range(1, 5)]
    cli.ok("transit", "rotate", "cards")
    assert cli.json(*rewrap)["rewritten"] == 4


def test_a_column_that_is_too_short_is_told(old: Old, cli: Cli, postgres_url: str) -> None:
    key = old.server.new_key()
    text = old.encrypt(key, "4111 1111 1111 1111")
    cards = Application(postgres_url)
    cards.run(f"CREATE TABLE cards (id BIGINT PRIMARY KEY, number VARCHAR({len(text)}), holder TEXT)")
    fill(cards, [text])
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    told = cli.run(*command(cards, old, key))
    assert told.exit_code == 1
    assert "widen the column" in told.stderr
    assert numbers(cards) == [text]
    cards.run("ALTER TABLE cards ALTER COLUMN number TYPE VARCHAR(255)")
    assert cli.json(*command(cards, old, key, "--again"))["rewritten"] == 1


def test_texts_may_be_kept_as_bytes(old: Old, cli: Cli, cards: Application) -> None:
    key = old.server.new_key()
    cards.run("DROP TABLE cards", "CREATE TABLE cards (id BIGINT PRIMARY KEY, number BYTES, holder TEXT)")
    fill(cards, [text.encode() for text in old.texts(key, 3)])  # type: ignore[misc]
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    assert cli.json(*command(cards, old, key))["rewritten"] == 3
    assert [opened(cli, key, bytes(text).decode()) for text in numbers(cards)] == ["value 1", "value 2", "value 3"]


def test_every_text_in_a_file_is_moved_and_nothing_else_is_touched(old: Old, cli: Cli) -> None:
    key = old.server.new_key()
    texts = old.texts(key, 3)
    content = f'{{"card": "{texts[0]}", "old": "{texts[1]}"}}\n\nname,{texts[2]},\xe9\n'.encode("latin-1")
    Path("cards.txt").write_bytes(content)
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    move = ("transit", "reencrypt-file", "cards.txt", "-o", "moved.txt", "--key", key, "--from-vault", old.server.url)
    assert cli.json(*move) == {"output": "moved.txt", "lines": 3, "moved": 3}
    moved = Path("moved.txt").read_bytes()
    new = [part for part in moved.replace(b'"', b",").split(b",") if part.startswith(b"vault:")]
    assert [opened(cli, key, text.decode()) for text in new] == ["value 1", "value 2", "value 3"]
    back = moved
    for before, after in zip(texts, new, strict=True):
        back = back.replace(after, before.encode())
    assert back == content
    Path("cards.txt").write_bytes(moved)
    assert cli.json(*move)["moved"] == 0
    assert Path("moved.txt").read_bytes() == moved


def test_a_file_with_a_text_that_cannot_be_moved_is_not_written(old: Old, cli: Cli) -> None:
    key, another = old.server.new_key(), old.server.new_key()
    Path("cards.txt").write_text(f"{old.encrypt(key, 'x')}\n\n{old.encrypt(another, 'x')}\n")
    cli.ok("transit", "import-from", old.server.url, "--key", key)
    move = ("transit", "reencrypt-file", "cards.txt", "-o", "moved.txt", "--key", key, "--from-vault", old.server.url)
    assert "line 3" in cli.fails(1, *move)
    assert not Path("moved.txt").exists()
    Path("cards.txt").write_text(f"{old.encrypt(key, 'x')} vault:v1:cut\n")
    assert "line 1" in cli.fails(1, *move)
    assert not Path("moved.txt").exists()


def test_what_is_wrong_is_told_before_anything_is_written(old: Old, cli: Cli, cards: Application) -> None:
    key, signer = old.server.new_key(), old.server.new_key(type="ed25519")
    fill(cards, old.texts(key, 1))
    before = numbers(cards)
    assert "keystead transit list" in cli.fails(1, *command(cards, old, key))
    cli.ok("transit", "create", key)
    cli.ok("transit", "create", "signer", "--type", "ed25519")
    assert "encrypts nothing" in cli.fails(1, *command(cards, old, "signer", "--vault-key", key))
    assert "encrypts nothing" in cli.fails(1, *command(cards, old, key, "--vault-key", signer))
    assert "no key 'none'" in cli.fails(1, *command(cards, old, key, "--vault-key", "none"))
    both = ("--to-vault", old.server.url)
    assert "come --from-vault or go --to-vault" in cli.run(*command(cards, old, key, *both)).stderr
    assert "has no column" in cli.fails(1, *command(cards, old, key, "--aad-column", "none"))
    assert "TABLE.COLUMN" in cli.run("transit", "reencrypt", cards.url, "number", "--key", key).stderr
    assert numbers(cards) == before
    assert old.server.ask("GET", f"{old.server.mount}/keys/none").status == 404
