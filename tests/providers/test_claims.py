"""Every claim has its tests, every key service its harness, its place in the soak and its page."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from keystead.providers.registry import schemes
from soak import kms_loop, kms_places, providers
from tests.providers.claims import BARS, FAULTS, SIGNING_FAULTS
from tests.providers.harnesses import HARNESSES

TESTS = Path(__file__).resolve().parents[1]
PAGES = TESTS.parent / "docs" / "kms"
CLAIMS = {**FAULTS, **BARS}

HARNESS_OF = {
    "awskms": "aws",
    "azurekms": "azure",
    "env": "local",
    "file": "local",
    "gcpkms": "gcp",
    "hashivault": "openbao",
    "local": "local",
    "multi": "multi",
    "pkcs11": "pkcs11",
}
PAGE_OF = {**HARNESS_OF, "hashivault": "vault", "multi": "several"}


@cache
def defined_in(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name: function for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_has_its_tests_and_none_is_left_out(claim: str) -> None:
    assert CLAIMS[claim]
    for name in CLAIMS[claim]:
        file, _, test = name.partition("::")
        assert test in defined_in(TESTS / file), name
        marks = " ".join(ast.unparse(mark) for mark in defined_in(TESTS / file)[test].decorator_list)
        assert not re.search(r"\b(skip|skipif|xfail)\b", marks), name


def test_each_fault_of_the_design_of_signing_has_a_test_by_its_number() -> None:
    found: set[int] = set()
    for path in [*(TESTS / "integrations" / "tamper").glob("test_*.py"), *(TESTS / "ledger").glob("test_signers*.py")]:
        for name in defined_in(path):
            leading = re.match(r"test_((?:f\d+_)+)", name)
            found |= {int(number) for number in re.findall(r"f(\d+)_", leading[1])} if leading else set()
    assert found == set(SIGNING_FAULTS)


def test_every_scheme_is_in_the_conformance_suite() -> None:
    assert set(HARNESS_OF) == {scheme for scheme in schemes() if not scheme.startswith("test")}
    kinds = {name.partition("-")[0] for name in HARNESSES}
    assert set(HARNESS_OF.values()) <= kinds


@pytest.mark.parametrize("scheme", HARNESS_OF)
def test_every_scheme_has_a_page_with_its_set_up_limits_and_failures(scheme: str) -> None:
    page = (PAGES / f"{PAGE_OF[scheme]}.md").read_text(encoding="utf-8")
    assert f"{scheme}:" in page
    assert re.search(r"^## (Set up .*from nothing|Configure)$", page, re.MULTILINE)
    assert re.search(r"^## When (it|a member) fails$", page, re.MULTILINE)
    assert re.search(r"size limit|^## Limits", page, re.MULTILINE | re.IGNORECASE)


def test_the_soak_measures_every_remote_service_against_the_bars(tmp_path: Path) -> None:
    assert len(list(kms_places.places(tmp_path))) == len(providers.SERVICES)
    assert (kms_loop.IN_FLIGHT, kms_loop.STALL_MS, kms_loop.OVERHEAD_US) == (100, 5.0, 250.0)
