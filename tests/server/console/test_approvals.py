"""Two people at the console: one asks, the other approves, and the first does it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from keystead.access.callers import Scope
from keystead.manager import admin
from keystead.model import DataKeyState
from tests.server.clients import Node
from tests.server.console.visitors import EVERYTHING, Visitor, form_of, text_of

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)


async def who(node: Node, user: str, *scopes: Scope) -> Visitor:
    made = Visitor(node.app)
    assert (await made.signs_in(await node.token(user, *(scopes or EVERYTHING)))).status_code == 303
    return made


async def asks(ada: Visitor, node: Node) -> str:
    """Ask for the destruction of a version, and return the address of what waits."""
    await node.asks_for_two()
    await admin.rotate_keyring(node.service.manager, "default", promote="now")
    preview = await ada.get("/console/keys/default%2F1/destroy")
    assert "This store asks for two people." in text_of(preview)
    sent = {"form": form_of(preview), "days": "9", "without_sources": "yes", "typed": "default/1"}
    answer = await ada.post("/console/keys/default%2F1/destroy", sent)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/approvals/")
    return answer.headers["location"]


async def state(node: Node) -> DataKeyState:
    return (await admin.find_key(node.service.manager, "default/1")).state


async def test_what_one_asks_for_and_another_approves_is_done_by_the_first(node: Node) -> None:
    ada, bob = await who(node, "ada"), await who(node, "bob", Scope.APPROVALS_WRITE)
    at = await asks(ada, node)
    shown = text_of(await ada.get(at))
    assert "Nothing is done yet" in shown
    assert "Destroy the data key default/1" in shown
    assert "Somebody else has to approve this" in shown
    assert "Do it now" not in shown
    assert (await ada.get(f"{at}/approve")).status_code == 200
    assert "whoever asks does not approve it" in text_of(await ada.does(f"{at}/approve"))
    listed = await bob.get("/console/approvals")
    assert at in listed.text
    assert "This store asks for two people" in text_of(listed)
    assert "Approved. ada can do it now." in text_of(await bob.does(f"{at}/approve"))
    assert await state(node) is DataKeyState.DECRYPT_ONLY
    assert "Do it now" not in text_of(await bob.get(at))
    page = await ada.get(at)
    again = page.text.split('class="button" href="')[1].split('"')[0].replace("&amp;", "&")
    filled = await ada.get(again)
    assert 'value="9"' in filled.text
    assert 'name="without_sources" value="yes" checked' in filled.text
    sent = {"form": form_of(filled), "days": "9", "without_sources": "yes", "typed": "default/1"}
    done = await ada.post(urlsplit(again).path, sent)
    assert done.headers["location"] == "/console/keyrings/default"
    assert await state(node) is DataKeyState.PENDING_DESTROY
    assert "done" in text_of(await bob.get(at))
    assert "1 act that somebody asked for" not in text_of(await ada.get("/"))


async def test_the_overview_says_that_something_waits(node: Node) -> None:
    ada = await who(node, "ada")
    await asks(ada, node)
    assert "1 act that somebody asked for waits for a second person's approval" in text_of(await ada.get("/"))


async def test_it_can_be_refused_and_taken_back(node: Node) -> None:
    ada, bob = await who(node, "ada"), await who(node, "bob", Scope.APPROVALS_WRITE)
    at = await asks(ada, node)
    assert "Taken back" in text_of(await ada.does(f"{at}/withdraw"))
    forget = await ada.get("/console/users/carol/forget")
    answer = await ada.post("/console/users/carol/forget", {"form": form_of(forget), "typed": "carol"})
    other = answer.headers["location"]
    assert "somebody else" in text_of(await bob.does(f"{other}/withdraw"))
    assert "Refused. Nothing was done." in text_of(await bob.does(f"{other}/refuse"))
    again = await ada.post("/console/users/carol/forget", {"form": form_of(forget), "typed": "carol"})
    assert "bob has refused this" in text_of(again)


async def test_who_may_not_approve_sees_what_they_asked_for_and_nothing_else(node: Node) -> None:
    ada = await who(node, "ada", Scope.KEYRINGS_WRITE, Scope.KEYRINGS_READ)
    dora = await who(node, "dora", Scope.KEYRINGS_WRITE)
    at = await asks(ada, node)
    page = await ada.get(at)
    assert "Take it back" in text_of(page)
    assert "All approvals" not in text_of(page)
    assert (await ada.get("/console/approvals")).status_code == 403
    assert (await dora.get(at)).status_code == 404
    assert (await dora.get(f"{at}/withdraw")).status_code == 404
