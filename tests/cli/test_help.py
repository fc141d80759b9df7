"""The page of the command line is what the commands print."""

from __future__ import annotations

import pytest
import typer

from scripts.gen_cli_help import TARGET, help_of, page, paths


def test_the_page_of_the_command_line_is_what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert TARGET.read_text(encoding="utf-8") == page(), "run scripts/gen_cli_help.py"


def test_a_list_of_commands_has_whole_sentences(app: typer.Typer) -> None:
    for words in [[], *paths(app)]:
        listed = help_of(app, words).partition("Commands:")[2]
        assert "..." not in listed.replace("KEYSTEAD_KMS...", ""), words


def test_every_command_takes_json(app: typer.Typer) -> None:
    every = list(paths(app))
    groups = {tuple(words[:-1]) for words in every}
    for words in every:
        if tuple(words) not in groups:
            assert "--json" in help_of(app, words), words
