"""The API reference has every public name. (That each name it has is there is checked by the strict build.)"""

from __future__ import annotations

import re
from importlib import import_module

import keystead
from tests.docs.blocks import ROOT

PAGES = sorted((ROOT / "docs" / "reference" / "api").glob("*.md"))
SHOWN = {name for page in PAGES for name in re.findall(r"(?m)^::: (\S+)$", page.read_text(encoding="utf-8"))}
WHOLE = ("keystead.errors", "keystead.fields")
"""Modules that are shown whole, and whose names the package has as well."""


def test_every_name_of_the_package_is_on_a_page() -> None:
    whole = {name for module in WHOLE for name in import_module(module).__all__}
    assert set(WHOLE) <= SHOWN
    assert {name for name in keystead.__all__ if f"keystead.{name}" not in SHOWN} == whole.intersection(
        keystead.__all__
    ) | {"__version__"}


def test_every_integration_is_on_a_page() -> None:
    folder = ROOT / "src" / "keystead" / "integrations"
    public = {
        path.stem for path in folder.iterdir() if not path.stem.startswith("_") and path.suffix in (".py", "")
    } - {"json_values", "tamper_config", "tamper_faces", "tamper_kms"}
    assert {f"keystead.integrations.{name}" for name in public} <= SHOWN
