"""A newcomer: an empty folder, ``keystead serve --dev``, and a key rotated in the browser; as the tutorial tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

from tests.cli.serving import serving
from tests.docs.blocks import ROOT
from tests.server.console.chromium import chromium, examine, looking, photograph

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASSETS: Final = ROOT / "docs" / "assets" / "console"
MOST_BYTES: Final = 600_000
STEPS: Final = ("rotation-1-overview", "rotation-2-keyring", "rotation-3-preview", "rotation-4-done")
"""Pictures of the tutorial."""
PAGES: Final = {
    "overview-phone": ("phone", "/"),
    "keyring-phone": ("phone", "/console/keyrings/orders"),
    "keyring": ("desktop", "/console/keyrings/orders"),
    "transit-key": ("desktop", "/console/transit/card-numbers"),
    "device": ("desktop", "/console/devices/phone-of-bo/keys"),
    "problematic-keys": ("desktop", "/console/problematic-keys"),
    "lockouts": ("desktop", "/console/lockouts"),
    "jobs": ("desktop", "/console/jobs"),
    "audit": ("desktop", "/console/audit?action=key.rotate"),
    "tokens": ("desktop", "/console/tokens"),
}
"""Pictures of the guide: a phone's are dark."""
MOST_HEIGHT: Final = 1300
WIDTHS: Final = (360, 720, 890, 900, 1030)
"""Between a phone and a desk, where tables become lists and columns get a least width."""
WORDS_PER_S: Final = 4
"""How fast a text is read without a sound: 238 words a minute in the mean of many studies (Brysbaert, 2019)."""
PAUSE_S: Final = 2
"""How long somebody takes to find what to click, and clicks."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service that was begun in an empty folder."""
    folder = tmp_path_factory.mktemp("newcomer") / "keys"
    folder.mkdir()
    with serving(folder, "--dev", log=folder.parent / "serve.log") as url:
        yield url


@pytest.fixture(scope="module")
def browser(console: str) -> Iterator[Browser]:
    """Begun after the service, since it has this thread's loop."""
    with chromium() as opened:
        yield opened


def test_a_key_that_is_due_is_found_on_the_first_page_and_rotated_by_three_clicks(
    console: str, browser: Browser
) -> None:
    pictures = iter(STEPS)
    spent_s, looked_at = 0.0, time.monotonic()

    def shown(page: Page, read: str) -> None:
        """Count what reading a part of the page takes; what the machine took until it was there is told, not judged."""
        nonlocal spent_s, looked_at
        machine_s = time.monotonic() - looked_at
        words = sum(len(each.split()) for each in page.locator(read).all_inner_texts())
        name = next(pictures)
        print(f"{name}: {machine_s:.1f} s, {words} of {len(page.locator('main').inner_text().split())} words")
        spent_s += words / WORDS_PER_S + PAUSE_S
        photograph(page, name, most_height=MOST_HEIGHT)
        looked_at = time.monotonic()

    with looking(browser, "desktop", "light") as page:
        page.goto(console)
        due = page.get_by_role("listitem").filter(has_text="payments")
        assert "version 2 has seen 97%" in due.inner_text()
        shown(page, "section[aria-labelledby=attention]")
        due.get_by_role("link", name="payments").click()
        page.get_by_role("heading", name="payments").wait_for()
        shown(page, "main > .heading, main > .figures, main > figure")
        page.get_by_role("link", name="Rotate").click()
        page.get_by_text("A new version 3 is made").wait_for()
        shown(page, "main")
        page.get_by_role("button", name="Rotate").click()
        page.get_by_role("status").filter(has_text="Version 3 of payments encrypts.").wait_for()
        shown(page, "[role=status], main > .heading, main > .figures")
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("heading", name="Needs attention").wait_for()
        assert page.get_by_role("listitem").filter(has_text="payments").count() == 0
    assert next(pictures, None) is None
    assert spent_s < 120


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_example_fills_every_page_that_a_newcomer_opens(console: str, browser: Browser, size: str) -> None:
    with looking(browser, size, "light" if size == "desktop" else "dark") as page:
        for name, (pictured, path) in PAGES.items():
            answer = page.goto(f"{console}{path}")
            assert answer is not None
            assert answer.status == 200, path
            assert page.locator("tbody th").count() > 0, f"{name} is an empty table"
            examine(page, name)
            if pictured == size:
                photograph(page, name, most_height=MOST_HEIGHT)


def test_a_re_encryption_is_planned_and_its_start_shows_the_plan(console: str, browser: Browser) -> None:
    at = f"{console}/console/jobs/new-reencryption"
    with looking(browser, "desktop", "light") as page:
        page.goto(at)
        of_email = page.locator("section").filter(has_text="people.email")
        of_email.get_by_text("A worker waits").wait_for()
        of_email.get_by_role("link", name=re.compile("^Plan")).click()
        page.get_by_role("button", name="Plan").click()
        of_email.get_by_text("The last plan").wait_for()
        examine(page, "planned")
        of_email.get_by_role("link", name=re.compile("^Start")).click()
        page.get_by_text("The last plan was made").wait_for()
        page.get_by_role("button", name="Start").wait_for()


def test_no_page_of_the_example_is_wider_than_its_window(console: str, browser: Browser) -> None:
    with looking(browser, "desktop", "light") as page:
        for path in {path for _, path in PAGES.values()}:
            page.goto(f"{console}{path}")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.scrollingElement.scrollWidth") <= width, path


def test_a_paused_re_encryption_of_the_example_goes_on_when_somebody_lets_it(console: str, browser: Browser) -> None:
    with looking(browser, "desktop", "light") as page:
        page.goto(f"{console}/console/jobs")
        page.get_by_role("link", name="people.email").click()
        page.get_by_text("paused", exact=True).wait_for()
        before = page.get_by_text("of 3\u202f000").inner_text()
        page.get_by_role("link", name="Let it go on").click()
        page.get_by_role("button", name="Let it go on").click()
        page.get_by_text("running", exact=True).wait_for()
        page.wait_for_function("before => !document.body.innerText.includes(before)", arg=before)


def test_every_picture_of_the_console_in_the_documentation_is_one_that_is_taken_here() -> None:
    pictures = {f"{name}.webp" for name in (*STEPS, *PAGES)}
    told = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"assets/console/([\w.-]+)", told)) == pictures
    assert {each.name for each in ASSETS.iterdir()} == pictures
    assert sum(each.stat().st_size for each in ASSETS.iterdir()) < MOST_BYTES
