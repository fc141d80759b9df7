"""Keyrings, tokens and sessions are seen and acted on at the console, and nothing is done that was not shown before."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from keystead.access.callers import Scope
from keystead.manager import admin
from keystead.model import DataKeyState
from tests.fakes.clock import FakeClock
from tests.server.clients import Node
from tests.server.console.visitors import Visitor, form_of, text_of, visitor


async def states(node: Node, keyring: str = "default") -> list[DataKeyState]:
    found = await admin.list_keys(node.service.manager, keyring=keyring)
    return [key.state for key in found.keys]


async def test_a_keyring_is_made_and_rotated_and_its_versions_shown(node: Node) -> None:
    ada = await visitor(node)
    page = await ada.does("/console/new-keyring", {"name": "orders/new"})
    assert "Keyring orders/new is there, and version 1 encrypts." in text_of(page)
    refused = await ada.does("/console/new-keyring", {"name": "orders/new"})
    assert refused.status_code == 409
    assert "keyring 'orders/new' exists" in text_of(refused)
    assert 'value="orders/new"' in refused.text
    preview = text_of(await ada.get("/console/keyrings/orders/new/rotate"))
    assert "A new version 2 is made; what encrypts now is version 1." in preview
    assert await states(node, "orders/new") == [DataKeyState.ACTIVE]
    page = await ada.does("/console/keyrings/orders/new/rotate")
    assert "Version 2 of orders/new encrypts." in text_of(page)
    assert re.search(r"<svg .*?v2.*?v1.*?</svg>", page.text, re.DOTALL)
    assert await states(node, "orders/new") == [DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE]


async def test_a_version_is_disabled_enabled_and_destroyed_once_its_name_was_typed(
    node: Node, clock: FakeClock
) -> None:
    ada = await visitor(node)
    await ada.does("/console/keyrings/default/rotate")
    old = (await admin.list_keys(node.service.manager, keyring="default")).keys[0]
    at = f"/console/keys/{old.id}"
    assert "does not decrypt any more" in text_of(await ada.does(f"{at}/disable"))
    assert "decrypts again" in text_of(await ada.does(f"{at}/enable"))
    sure = {"days": "7", "without_sources": "yes"}
    for fields, told in (
        ({**sure, "typed": "default/2"}, "type default/1 to confirm"),
        ({**sure}, "type default/1 to confirm"),
        ({"days": "7", "typed": "default/1"}, "no data source of keyring 'default' is declared"),
        ({**sure, "days": "6", "typed": "default/1"}, "a destruction waits 7 to 30 days"),
        ({**sure, "days": "-1", "typed": "default/1"}, "a destruction waits 7 to 30 days"),
    ):
        refused = await ada.does(f"{at}/destroy", fields)
        assert refused.status_code in (400, 409)
        assert told in text_of(refused)
    assert await states(node) == [DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE]
    page = await ada.does(f"{at}/destroy", {**sure, "typed": "default/1"})
    assert "Version 1 will be destroyed" in text_of(page)
    assert "default version 1 will be destroyed" in text_of(await ada.get("/"))
    assert "it is disabled; enable it" in text_of(await ada.does(f"{at}/keep")).lower()
    assert await states(node) == [DataKeyState.DISABLED, DataKeyState.ACTIVE]
    assert "data keys are under the newest WRAP key" in text_of(await ada.does("/console/rewrap"))


async def test_a_long_list_is_shown_by_pages(node: Node) -> None:
    ada = await visitor(node)
    for number in range(52):
        await admin.create_keyring(node.service.manager, f"tenant-{number:02}")
    seen: list[str] = []
    path: str | None = "/console/keyrings"
    while path is not None:
        page = await ada.get(path)
        seen += re.findall(r'<th scope="row" class="long"><a [^>]*>([^<]*)</a>', page.text)
        found = re.search(r'<p class="more"><a href="([^"]*)"', page.text)
        path = None if found is None else found[1]
    assert len(seen) == len(set(seen)) >= 53
    assert seen == sorted(seen)


async def test_what_is_past_its_date_is_told_first(node: Node, clock: FakeClock) -> None:
    ada = await visitor(node, Scope.KEYRINGS_READ)
    assert "Nothing: no key is past its date" in text_of(await ada.get("/"))
    async with node.service.manager.require_session().surroundings.store.transaction() as work:
        active = await work.find_active("default")
        assert active is not None
        at = clock.now() - timedelta(days=1)
        await work.change_key(active.id, active.state, rotate_after=at, expires_at=clock.now() + timedelta(days=1))
    assert "default version 1 has been due for rotation since" in text_of(await ada.get("/"))


async def test_a_token_is_shown_once_and_revoked_with_the_sessions_that_it_began(node: Node, clock: FakeClock) -> None:
    ada = await visitor(node)
    page = await ada.does("/console/new-token", {"user": "bo", "scopes": "keyrings:read  audit:read", "days": "30"})
    found = re.search(r'<code class="secret">(kst1_[\w-]+)</code>', page.text)
    assert found is not None
    bo = Visitor(node.app)
    assert (await bo.signs_in(found[1])).status_code == 303
    assert (await bo.get("/console/keyrings")).status_code == 200
    listed = await ada.get("/console/tokens")
    assert found[1] not in listed.text
    assert "in 30 days" in text_of(listed)
    assert f"token {found[1][5:21]}" in text_of(await ada.get("/console/sessions"))
    for fields, told in (
        ({"user": "bo", "scopes": "everything", "days": "30"}, "no scope 'everything'"),
        ({"user": "bo", "scopes": "", "days": "30"}, "a token without a scope could do nothing"),
        ({"user": "", "scopes": "audit:read", "days": "30"}, "a user or tenant is a text of 1 to 255"),
        ({"user": "bo", "scopes": "audit:read", "days": "9999"}, "choose how long the token is good"),
    ):
        refused = await ada.does("/console/new-token", fields)
        assert refused.status_code == 400
        assert told in text_of(refused)
    path = f"/console/tokens/{found[1][5:21]}/revoke"
    assert "to confirm; this was another text" in text_of(await ada.does(path, {"typed": "bo"}))
    assert "of bo is refused from now on" in text_of(await ada.does(path, {"typed": found[1][5:21]}))
    clock.advance(5)
    assert (await bo.get("/console/keyrings")).status_code == 303


async def test_a_session_of_somebody_else_is_ended(node: Node) -> None:
    ada, bo = await visitor(node), await visitor(node, Scope.KEYRINGS_READ)
    session = bo.cookies["keystead"][5:21]
    assert "(this one)" in text_of(await ada.get("/console/sessions"))
    assert "has ended" in text_of(await ada.does(f"/console/sessions/{session}/end"))
    assert (await bo.get("/console/keyrings")).status_code == 303
    assert (await ada.post(f"/console/sessions/{session}/end", {"form": form_of(await ada.get("/"))})).status_code


async def test_what_each_version_still_protects_is_counted(node: Node, tmp_path: Path) -> None:
    ada, km = await visitor(node), node.service.manager
    assert "/count-uses" not in (await ada.get("/console/keyrings/default")).text
    (tmp_path / "one").write_bytes(km.local_encrypt(b"old"))
    await ada.does("/console/keyrings/default/rotate")
    await admin.declare_use(km, "default", "files", f"file:{tmp_path}/one")
    await admin.declare_use(km, "default", "elsewhere", "app:elsewhere")
    assert "/console/keyrings/default/count-uses" in (await ada.get("/console/keyrings/default")).text
    assert "read once, whole: " in text_of(await ada.get("/console/keyrings/default/count-uses"))
    shown = text_of(await ada.does("/console/keyrings/default/count-uses"))
    assert "Version 1 decrypt-only 1 in files" in shown
    assert "Version 2 active none in what could be read" in shown
    assert "key_sources=" in shown
