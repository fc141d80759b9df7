"""What the documentation's page prints runs, from nothing, in the order of the page; and its tables are so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keystead import errors
from keystead.providers.pkcs11.config import _OPTIONS, _PATH_NAMES, Pkcs11KMSConfig
from tests.docs.blocks import ROOT, read_blocks
from tests.services.softhsm import SoftHsm

TEXT = (ROOT / "docs" / "kms" / "pkcs11.md").read_text(encoding="utf-8")
RUN_HERE = "run by tests/providers/pkcs11"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
RUNNER = """
    import ast, asyncio, inspect, sys
    source = open(sys.argv[1]).read()
    code = compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, {"__name__": "__main__"})
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)
"""


def test_the_set_up_and_the_python_of_the_page_run_in_order(softhsm: SoftHsm, tmp_path: Path) -> None:
    blocks = [block for block in read_blocks(TEXT) if block.skip_reason and RUN_HERE in block.skip_reason]
    assert [block.language for block in blocks] == ["bash", "python", "python", "python"]
    environment = os.environ | {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")}
    for number, block in enumerate(blocks):
        file = tmp_path / f"block{number}"
        file.write_text(block.text.replace(MODULE, softhsm.path))
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", str(file)]
        else:
            command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", textwrap.dedent(RUNNER), str(file)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"line {block.line}: {done.stderr}"


def test_the_table_of_settings_names_every_one() -> None:
    settings = {name for name in Pkcs11KMSConfig.__dataclass_fields__ if name not in {"_"}}
    shortened = {"token_manufacturer", "token_model"}
    assert [name for name in sorted(settings - shortened) if f"`{name}`" not in TEXT] == []
    assert [name for name in sorted(_PATH_NAMES) if f"`{name}`" not in TEXT] == []
    assert [name for name in sorted(_OPTIONS) if not re.search(rf"`\?{name}(=true)?`", TEXT)] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\[`(\w+Error)`\]", TEXT))))
def test_every_error_of_the_page_is_one_of_ours(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.KMSError)
