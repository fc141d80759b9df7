"""The documentation page: its commands and programs run, in order, against a fresh server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.blocks import EXECUTED, ROOT, read_blocks
from tests.docs.page_runner import PageRunner
from tests.services.kubernetes import TokenReviews
from tests.services.openbao import dev_server, program

PAGE = ROOT / "docs" / "kms" / "vault.md"


def test_the_page_takes_a_reader_from_nothing_to_a_rotated_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token_reviews: TokenReviews
) -> None:
    blocks = [block for block in read_blocks(PAGE.read_text(encoding="utf-8")) if block.language in EXECUTED]
    assert {block.skip_reason for block in blocks} == {"needs an OpenBao server"}
    for name in [name for name in os.environ if name.startswith(("VAULT_", "BAO_", "KEYSTEAD_"))]:
        monkeypatch.delenv(name)
    with dev_server(tmp_path) as server:
        # The engine that the page enables is not there yet.
        server.do("DELETE", "sys/mounts/transit")
        for name, value in (("BAO_ADDR", server.url), ("BAO_TOKEN", server.token)):
            monkeypatch.setenv(name, value)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "bao").symlink_to(program())
        monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ca.pem").write_text(token_reviews.ca)
        runner = PageRunner(PAGE, tmp_path)
        try:
            for block in blocks:
                runner.run(block)
        finally:
            runner.close()
        key = server.key("orders")
        assert key["latest_version"] == 2
        assert server.ask("POST", "transit/encrypt/misspelt", {"plaintext": ""}).status == 400
        role = server.do("GET", "auth/kubernetes/role/orders")
        assert role["audience"] == "keystead"
