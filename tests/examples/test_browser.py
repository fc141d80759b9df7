"""The example page, in a real Chromium, against a real service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.components import missing

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "browser"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@pytest.fixture
def site() -> Iterator[str]:
    """The page's own server, on a port that is free."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(FOLDER)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().split()[5]}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Debian's Chromium."""
    browser = shutil.which("chromium") or missing("chromium", "apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=QUIET)
        yield opened.new_page()
        opened.close()


def test_a_page_encrypts_a_passcode_by_webcrypto_sets_it_and_verifies_it(service: str, site: str, page: Page) -> None:
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(f"{site}/index.html")
    page.get_by_label("Key service").fill(service)

    def answer(act: str, passcode: str) -> str:
        page.get_by_label("Passcode").fill(passcode)
        page.get_by_role("button", name=act).click()
        output = page.locator("output")
        output.filter(has_text="passcode").wait_for(timeout=20_000)
        told = output.inner_text()
        output.evaluate("output => { output.textContent = '' }")
        return told

    assert answer("Verify it", "correct horse") == "It is not the passcode (NOT_SET)."
    assert answer("Set it", "correct horse") == "The passcode is set."
    assert answer("Verify it", "correct horse") == "It is the passcode."
    assert answer("Verify it", "battery staple") == "It is not the passcode (WRONG)."
    page.reload()
    page.get_by_label("Key service").fill(service)
    assert answer("Verify it", "correct horse") == "It is the passcode."
    assert failures == []
