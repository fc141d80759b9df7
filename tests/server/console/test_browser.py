"""Every page and every deed of the console in a real Chromium: read, looked at by axe, weighed and photographed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from keystead.access.callers import EVERY_SCOPE
from keystead.ledger.tlog.proof import ProofBundle
from keystead.manager.access import access
from keystead.manager.installation import install
from keystead.manager.manager import KeyManager
from keystead.model import Act, Action
from keystead.ports import FieldRecord
from keystead.server.console.router import DEEDS, PAGES
from keystead.stores import open_store
from tests.cli.serving import serving
from tests.server.clients import GENERATE, SET_PASSCODE, VERIFY_PASSCODE, sealed
from tests.server.console.chromium import chromium, examine, looking, photograph
from tests.server.console.workers import JOB, begun

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SEEN: Final = [("desktop", "light"), ("phone", "dark"), ("desktop", "dark"), ("phone", "light")]
"""How it is looked at; the first two without ``KEYSTEAD_SOAK``."""
EVERY_KEY: Final = ("transit:*:*", "transit:list:*")
MOST_BYTES: Final = 150_000
_WEIGHT: Final = (
    "['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))"
    ".reduce((sum, each) => sum + each.decodedBodySize, 0)"
)


@pytest.fixture(scope="module")
def browser(console: tuple[str, str]) -> Iterator[Browser]:
    """Debian's Chromium; begun after the service, since it has this thread's loop."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of the service is."""
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def console(folder: Path) -> Iterator[tuple[str, str]]:
    """The URL of a service, and a token that may do everything."""
    install(folder)
    scopes = [part for scope in (*sorted(EVERY_SCOPE), *EVERY_KEY) for part in ("--scope", scope)]
    command = [sys.executable, "-m", "keystead", "token", "create", "ada", *scopes, "--json"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    token = json.loads(made.stdout)["token"]
    subprocess.run([sys.executable, "-m", "keystead", "audit", "begin"], cwd=folder, check=True, timeout=120)
    asyncio.run(reencrypt(f"sqlite:///{folder}/keys.db"))
    asyncio.run(ask(folder))
    with serving(folder) as url:
        furnish(url, token)
        yield url, token


async def ask(folder: Path) -> None:
    """Have somebody ask for what a second person approves."""
    async with KeyManager.from_config(folder / "keystead.yaml", background=False) as km:
        await (await access(km)).approvals.ask(Act(Action.KEY_DESTROY, "default/1"), "bob")


async def reencrypt(url: str) -> None:
    """Have a worker be at a re-encryption."""
    store = open_store(url)
    await store.open()
    await begun(store)
    async with store.transaction() as work:
        await work.put_field(FieldRecord(JOB.field_id, "default", None, JOB.locator))
    await store.aclose()


def furnish(url: str, token: str) -> None:
    """Have a Transit key with two versions be there."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        changes = {"deletion_allowed": True, "min_decryption_version": 2}
        for path, body in (("", {}), ("/rotate", {}), ("/config", changes)):
            http.post(f"/v1/transit/keys/orders{path}", json=body).raise_for_status()


def lock(url: str, token: str, user: str) -> None:
    """Have a device of somebody be there, whose passcode is locked for a minute."""
    headers = {"Authorization": f"Bearer {token}", "X-Keystead-User": user}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as http:

        def done(query: str, given: dict[str, str]) -> Any:
            sent = http.post("/graphql", json={"query": query, "variables": {"input": given}})
            answer = sent.raise_for_status().json()
            assert "errors" not in answer, answer
            return next(iter(answer["data"].values()))

        key = done(GENERATE, {"deviceId": f"device-of-{user}", "appVersion": "1.0.0"})
        done(SET_PASSCODE, {"encryptedPasscode": sealed(key, "correct horse"), "keyId": key["keyId"]})
        for number in range(5):
            wrong = {"encryptedPasscode": sealed(key, f"wrong {number}"), "keyId": key["keyId"]}
            assert done(VERIFY_PASSCODE, {**wrong, "passwordAuthType": "PASSCODE"}) is False


@contextmanager
def visiting(
    browser: Browser, url: str, token: str, size: str, scheme: Any, *, scripts: bool = True, refused: int = 0
) -> Iterator[Page]:
    """Sign in, and give the page, as ``looking``."""
    with looking(browser, size, scheme, scripts=scripts, refused=refused) as page:
        page.goto(f"{url}/")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Overview").wait_for()
        yield page


def addresses(page: Page, url: str, user: str) -> dict[str, str]:
    """Return an address of each page and of each preview, of what is there; first those of a lock, which ends."""
    page.goto(f"{url}/console/keyrings/default")
    ids = page.locator("td[data-label=Id]").all_inner_texts()
    page.goto(f"{url}/console/sessions")
    session = page.locator("tbody th").first.inner_text().split()[0]
    page.goto(f"{url}/console/tokens")
    token = page.locator("tbody th").first.inner_text()
    page.goto(f"{url}/console/approvals")
    waiting = page.locator("tbody th a").first.get_attribute("href")
    assert waiting is not None
    there = {"approval": waiting.rpartition("/")[2]}
    there |= {"keyring": "default", "name": "default", "key": re.sub(r"\D", "", ids[-1]), "token": token}
    there |= {"session": session, "transit": "orders", "device": f"device-of-{user}", "user": user, "kind": "passcode"}
    there |= {"record": "0", "job": "keystead.rotate", "reencryption": JOB.id}
    there |= {"field": JOB.field_id, "wish": "0" * 16}
    paths = [*(each.path for each in PAGES if each.is_whole), *(each.path for each in DEEDS)]
    paths.sort(key=lambda path: "lockouts" not in path)
    return {path: re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: there[found[1]], path) for path in paths}


def looks() -> list[tuple[str, str]]:
    return SEEN if os.environ.get("KEYSTEAD_SOAK") else SEEN[:2]


@pytest.mark.soak
@pytest.mark.parametrize(("size", "scheme"), looks())
def test_every_page_can_be_read_by_everybody_and_weighs_little(
    console: tuple[str, str], browser: Browser, size: str, scheme: str
) -> None:
    url, token = console
    user = f"user-{size}-{scheme}"
    with visiting(browser, url, token, size, scheme) as page:
        lock(url, token, user)
        for path, address in addresses(page, url, user).items():
            answer = page.goto(f"{url}{address}")
            assert answer is not None
            assert answer.status == 200, address
            assert 1_000 < page.evaluate(_WEIGHT) < MOST_BYTES, address
            name = re.sub(r"\W+", "-", path).strip("-") or "overview"
            examine(page, name)
            photograph(page, f"{name}-{size}-{scheme}")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_keys_are_made_rotated_and_destroyed_and_tokens_made_and_revoked(
    console: tuple[str, str], browser: Browser, *, scripts: bool
) -> None:
    url, token = console
    name = f"orders-{scripts}"
    with visiting(browser, url, token, "desktop", "light", scripts=scripts, refused=1) as page:

        def told(text: str) -> None:
            page.get_by_role("status").filter(has_text=text).wait_for()

        page.get_by_role("link", name="Keyrings").click()
        page.get_by_role("link", name="New keyring").click()
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Make the keyring").click()
        told(f"Keyring {name} is there")
        page.get_by_role("link", name="Rotate").click()
        page.get_by_role("button", name="Rotate").click()
        told(f"Version 2 of {name} encrypts.")
        for link, button, outcome in (
            ("Disable version 1", "Disable", "does not decrypt any more"),
            ("Enable version 1", "Enable", "decrypts again"),
        ):
            page.get_by_role("link", name=link).click()
            page.get_by_role("button", name=button).click()
            told(outcome)
        page.get_by_role("link", name="Destroy version 1").click()
        page.get_by_label("I vouch").check()
        page.get_by_label("This cannot be undone").fill(f"{name}/2")
        page.get_by_role("button", name="Schedule the destruction").click()
        page.get_by_role("alert").filter(has_text=f"type {name}/1 to confirm").wait_for()
        page.get_by_label("This cannot be undone").fill(f"{name}/1")
        page.get_by_role("button", name="Schedule the destruction").click()
        told("Version 1 will be destroyed")
        page.get_by_role("link", name="Keep version 1").click()
        page.get_by_role("button", name="Call the destruction off").click()
        told("Version 1 is kept.")
        page.get_by_role("link", name="Access").click()
        page.get_by_role("link", name="New token").click()
        page.get_by_label("User or program").fill(f"bo-{scripts}")
        page.get_by_label("Scopes").fill("keyrings:read")
        page.get_by_label("Good for").select_option("one day")
        page.get_by_role("button", name="Make the token").click()
        shown = page.locator("code.secret").inner_text()
        assert shown.startswith("kst1_")
        page.get_by_role("link", name="I have it").click()
        page.get_by_role("link", name=f"Revoke {shown[5:21]}").click()
        page.get_by_label("This cannot be undone").fill(shown[5:21])
        page.get_by_role("button", name="Revoke").click()
        told("is refused from now on")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()
        page.goto(f"{url}/console/keyrings")
        page.get_by_label("Token").wait_for()


def test_a_keyboard_is_enough(console: tuple[str, str], browser: Browser) -> None:
    url, token = console
    with visiting(browser, url, token, "desktop", "light") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.evaluate("getComputedStyle(document.activeElement).position") == "static"
        page.goto(f"{url}/console/keyrings/default/rotate")
        names = []
        for _ in range(40):
            page.keyboard.press("Tab")
            names.append(page.evaluate("document.activeElement.textContent.trim()"))
            if names[-1] == "Rotate":
                break
        assert names[-1] == "Rotate"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        page.get_by_role("status").wait_for()


def test_a_re_encryption_is_followed_and_the_trail_verified_and_proved(
    console: tuple[str, str], browser: Browser, folder: Path
) -> None:
    url, token = console
    with visiting(browser, url, token, "desktop", "light") as page:
        page.get_by_role("link", name="Jobs").click()
        page.get_by_role("link", name=JOB.field_id).click()
        page.get_by_text("0 of 1\u202f000").wait_for()
        with closing(sqlite3.connect(folder / "keys.db", timeout=30, isolation_level=None)) as raw:
            raw.execute("UPDATE reencryption_chunks SET read = 400")
        page.get_by_text("400 of 1\u202f000").wait_for()
        page.get_by_role("link", name="Pause").click()
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("status").filter(has_text="It is paused").wait_for()
        page.get_by_role("link", name="Let it go on").click()
        page.get_by_role("button", name="Let it go on").click()
        page.get_by_role("link", name="Audit trail").click()
        page.get_by_label("Operation").fill("reencrypt.pause")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="Make a checkpoint").click()
        with page.expect_download() as made:
            page.get_by_role("button", name="Make the checkpoint").click()
        assert made.value.suggested_filename == "audit.checkpoint"
        page.get_by_role("link", name="Audit trail").first.click()
        page.get_by_label("Operation").fill("reencrypt.pause")
        page.get_by_role("button", name="Search").click()
        page.locator("tbody th a").first.click()
        with page.expect_download() as proved:
            page.get_by_role("link", name="Download the proof").click()
        assert ProofBundle.parse(proved.value.path().read_bytes()).extra is not None
        page.get_by_role("link", name="Audit trail").first.click()
        page.get_by_role("button", name="Verify now").click()
        page.get_by_role("heading", name="As it was written", exact=True).wait_for()
