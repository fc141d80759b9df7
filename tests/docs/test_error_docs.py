"""The page of errors is the error tree."""

from __future__ import annotations

import inspect
import re

import pytest

from keystead.errors import KMSError
from keystead.server.error_page import error_classes, page
from scripts.gen_error_docs import TARGET
from tests.docs.blocks import ROOT

COMMAND = re.compile(r"`(keystead(?: [a-z]+(?:-[a-z]+)*)+)")


def test_the_page_of_errors_is_what_the_source_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run scripts/gen_error_docs.py"


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: str(error.code))
def test_an_error_says_its_own_cause_and_its_own_cure(error: type[KMSError]) -> None:
    cause, cure = inspect.cleandoc(vars(error)["__doc__"]), vars(error)["cure"]
    assert cause.partition("\n")[0].endswith(".")
    assert cure
    assert not cure.endswith(".")


def test_no_two_errors_have_the_same_cure() -> None:
    cures = [error.cure for error in error_classes()]
    assert len(cures) == len(set(cures))


def test_the_commands_that_cures_name_are_there() -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8").splitlines()
    named = {command for error in error_classes() for command in COMMAND.findall(error.cure)}
    assert "keystead doctor" in named
    assert {command for command in named if f"### {command}" not in reference} == set()
