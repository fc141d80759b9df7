"""Links inside the repository lead somewhere. (Anchors inside the documentation are checked by its strict build.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, pages, without_blocks

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ELSEWHERE = ("deploy", "examples", "testvectors", "tests")
OUTSIDE = ("http://", "https://", "mailto:", "#")


@pytest.mark.parametrize(
    "page",
    sorted({*pages(), *ROOT.glob("*.md"), *(page for name in ELSEWHERE for page in (ROOT / name).rglob("*.md"))}),
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_to_files_of_the_repository_lead_to_a_file(page: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(without_blocks(page.read_text(encoding="utf-8")))]
    inside = [target.split("#")[0] for target in targets if not target.startswith(OUTSIDE)]
    assert [target for target in inside if not (page.parent / target).exists()] == []
