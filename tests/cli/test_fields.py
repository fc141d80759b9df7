"""``keystead field`` and ``keystead key rotate-index``."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead import blocking
from keystead.fields import Exact, Field
from tests.cli.conftest import Cli

EMAIL = Field("people", "email", indexes=(Exact(),))
NOTE = Field("people", "note")


@pytest.fixture
def registered(folder: Path) -> Path:
    """A working folder whose store knows of two fields."""
    with blocking.KeyManager.from_config(background=False) as km:
        km.load_fields(EMAIL, NOTE)
        for field in (EMAIL, NOTE):
            km.register_field(field, "sqlite:///app.db")
    return folder


def test_registered_fields_are_listed(registered: Path, cli: Cli) -> None:
    place = f"sql:sqlite:///{registered}/app.db#people"
    assert cli.json("field", "list")["fields"] == [
        {
            "id": "people.email",
            "keyring": "default",
            "index_keyring": "index",
            "locator": f"{place}.email",
            "indexed_version": None,
            "record": None,
        },
        {
            "id": "people.note",
            "keyring": "default",
            "index_keyring": None,
            "locator": f"{place}.note",
            "indexed_version": None,
            "record": None,
        },
    ]
    assert "people.email" in cli.ok("field", "list").stdout


def test_a_store_without_fields_says_so(folder: Path, cli: Cli) -> None:
    assert cli.ok("field", "list").stdout == "no fields registered\n"


def test_a_forgotten_field_is_gone_with_its_key_use(registered: Path, cli: Cli) -> None:
    assert cli.json("field", "forget", "people.note") == {"field": "people.note", "forgotten": True}
    assert [field["id"] for field in cli.json("field", "list")["fields"]] == ["people.email"]
    assert [use["name"] for use in cli.json("key", "uses", "list")["uses"]] == ["field:people.email"]
    assert "field list" in cli.fails(1, "field", "forget", "people.note")


def test_rotating_an_index_key_names_the_fields_it_waits_for(registered: Path, cli: Cli) -> None:
    for _ in range(2):
        told = cli.ok("key", "rotate-index").stdout
        assert "version 2 of keyring 'index' is pre-active" in told
        assert "people.email" in told
        assert "people.note" not in told
    assert cli.json("key", "rotate-index", "index")["version"] == 2


def test_an_abandoned_rotation_disables_the_new_version(registered: Path, cli: Cli) -> None:
    cli.ok("key", "rotate-index")
    assert cli.json("key", "rotate-index", "--abandon")["state"] == "disabled"
    assert "nothing to abandon" in cli.fails(1, "key", "rotate-index", "--abandon")


def test_rotating_an_index_key_as_a_data_key_is_refused_with_the_cure(registered: Path, cli: Cli) -> None:
    assert "rotate-index" in cli.fails(1, "key", "rotate", "index")


def test_rotating_an_index_key_that_no_field_uses_is_refused(folder: Path, cli: Cli) -> None:
    assert "hash_field" in cli.fails(1, "key", "rotate-index", "keystead.index")
    assert "no index keyring" in cli.fails(1, "key", "rotate-index")
