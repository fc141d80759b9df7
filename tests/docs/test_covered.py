"""Whatever there is has a page, every page is found, and what pages name is there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from keystead.cli.main import build_app
from keystead.providers.registry import schemes
from scripts.gen_cli_help import paths
from tests.docs.blocks import ROOT, pages, read_blocks

DOCS = ROOT / "docs"
NAVIGATION = re.findall(r"(?m)^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES_OF_SCHEMES = {
    "awskms": "aws",
    "azurekms": "azure",
    "env": "local",
    "file": "local",
    "gcpkms": "gcp",
    "hashivault": "vault",
    "local": "local",
    "multi": "several",
    "pkcs11": "pkcs11",
}
GUIDES = {
    "sqlalchemy": "encrypted-columns.md",
    "alembic": "encrypted-columns.md",
    "annotated": "graphql-and-fastapi.md",
    "fastapi": "graphql-and-fastapi.md",
    "strawberry": "graphql-and-fastapi.md",
    "django": "django.md",
    "parquet": "parquet.md",
    "logging": "log.md",
    "structlog": "structlog.md",
    "fapilog": "fapilog.md",
    "tamper": "../kms/signing.md",
}
"""The guide of each integration."""
_PARSERS: dict[str, Any] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
NAMED = re.compile(r"`((?:benchmarks|deploy|docs|examples|scripts|soak|src|tests|testvectors)/[\w/.-]*\w)`")
ABOUT_FORMATS = ("adr", "spec")
"""Folders in which ``keystead`` is a word of a format as well."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(NAVIGATION) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("guide", sorted((DOCS / "guides").glob("*.md")), ids=lambda guide: str(guide.stem))
def test_the_first_page_leads_to_every_guide(guide: Path) -> None:
    assert f"(guides/{guide.name}" in text_of(DOCS / "index.md")


@pytest.mark.parametrize("scheme", schemes())
def test_every_key_service_has_a_page_that_shows_its_uri(scheme: str) -> None:
    assert f"{scheme}:" in text_of(DOCS / "kms" / f"{PAGES_OF_SCHEMES[scheme]}.md")


def test_every_integration_has_a_guide_whose_code_uses_it() -> None:
    folder = ROOT / "src" / "keystead" / "integrations"
    public = {path.stem for path in folder.iterdir() if not path.stem.startswith("_") and path.suffix in (".py", "")}
    assert public - {"json_values", "tamper_config", "tamper_faces", "tamper_kms"} == GUIDES.keys()
    for name, guide in GUIDES.items():
        assert re.search(rf"keystead\.integrations(\.| import .*){name}", text_of(DOCS / "guides" / guide)), name


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_and_answers_that_are_not_executed_are_well_formed(page: Path) -> None:
    for block in read_blocks(text_of(page)):
        if block.language in _PARSERS:
            _PARSERS[block.language](block.text)


def test_commands_that_pages_name_are_there() -> None:
    commands = {tuple(words) for words in paths(build_app())}
    groups = {words[:-1] for words in commands}
    absent = []
    for page in pages():
        if page.parent.name in ABOUT_FORMATS:
            continue
        for named in re.findall(r"`keystead ([^`\n]+)`", text_of(page)):
            words = tuple(re.findall(r"^[a-z-]+(?: [a-z-]+)*", named.partition(" -")[0])[:1])
            taken = tuple(words[0].split()) if words else ()
            known = max((length for length in range(len(taken) + 1) if taken[:length] in commands), default=0)
            if taken and (known == 0 or (taken[:known] in groups and known < len(taken))):
                absent.append((page.name, named))
    assert absent == []


def test_files_that_pages_and_sources_name_are_there() -> None:
    told = [*pages(), *ROOT.glob("*.md"), *(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    named = {(page.name, name) for page in told for name in NAMED.findall(text_of(page))}
    assert {each for each in named if not (ROOT / each[1]).exists()} == set()
