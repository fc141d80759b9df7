"""A real Chromium: pages as people see them, looked at by axe and photographed."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.components import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

QUIET: Final = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SIZES: Final = {"desktop": (1280, 800), "phone": (390, 844)}
SERIOUS: Final = {"serious", "critical"}
WEBP_QUALITY: Final = 50
_AXE: Final = "async () => (await axe.run()).violations.map(({id, impact, nodes}) => ({id, impact, at: nodes[0].html}))"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium; it has this thread's loop for as long."""
    program = shutil.which("chromium") or missing("chromium", "apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield opened
        opened.close()


@contextmanager
def looking(browser: Browser, size: str, scheme: Any, *, scripts: bool = True, refused: int = 0) -> Iterator[Page]:
    """Give an empty page; at the end nothing may have been said on the console, nor failed to load.

    Args:
        refused: how many forms are refused meanwhile, which Chromium says by itself.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))

    def failed(request: Request) -> None:
        # What becomes a file that is kept, and what is asked for when the page is left, ends so.
        if request.failure != "net::ERR_ABORTED":
            said.append(request.url)

    page.on("requestfailed", failed)
    yield page
    context.close()
    assert [each for each in said if "status of 400" not in each] == []
    assert len(said) == refused


def examine(page: Page, name: str) -> None:
    """Look at a page that is open as somebody would who cannot see it, or has a small screen."""
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = [each for each in page.evaluate(_AXE) if each["impact"] in SERIOUS]
    assert found == [], name


def photograph(page: Page, name: str, *, most_height: int | None = None) -> None:
    """Keep a picture where ``KEYSTEAD_SCREENSHOTS`` says: of the whole page, or of its upper part."""
    if (folder := os.environ.get("KEYSTEAD_SCREENSHOTS")) is None:
        return
    width, height = page.evaluate("[innerWidth, Math.ceil(document.documentElement.getBoundingClientRect().height)]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, most_height or height), "scale": 1}
    options = {"format": "webp", "quality": WEBP_QUALITY, "captureBeyondViewport": True, "clip": clip}
    taken = page.context.new_cdp_session(page).send("Page.captureScreenshot", options)
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    (to / f"{name}.webp").write_bytes(base64.b64decode(taken["data"]))
