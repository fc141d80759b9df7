"""Nobody sees or does at the console what no scope of theirs names, and nobody has a browser do it for them."""

from __future__ import annotations

import re

import pytest

from keystead.access.callers import EVERY_SCOPE, AnyScope, Scope
from keystead.access.transit_scopes import KEYLESS, TransitOperation, TransitScope, transit_scope
from keystead.server.console.pages import Deed, Page
from keystead.server.console.router import DEEDS, PAGES
from keystead.server.console.visits import own_page
from keystead.server.errors import INTERNAL
from tests.server.clients import Installation, Node
from tests.server.console.visitors import Visitor, form_of, text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""

EVERYTHING: list[Page | Deed] = [*PAGES, *DEEDS]
_EXAMPLES = {
    "keyring": "default",
    "name": "default",
    "key": "default/99",
    "token": "0" * 16,
    "session": "0" * 16,
    "transit": "orders",
    "device": "phone",
    "user": "bob",
    "kind": "passcode",
    "record": "0",
    "job": "keystead.rotate",
    "reencryption": "0" * 16,
    "field": "people.email",
    "wish": "0" * 16,
    "approval": "0" * 16,
}


def address(path: str) -> str:
    """Return an address of a page, of what need not be there."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: _EXAMPLES[found[1]], path)


def is_refused(each: Page | Deed, scope: AnyScope) -> bool:
    """Whether a page or a deed takes another scope than this one alone."""
    return each.scope not in (None, scope) or (each.transit is not None and scope != of_engine(each.transit))


def of_engine(operation: TransitOperation) -> TransitScope:
    return transit_scope(f"transit:{operation}:{'*' if operation in KEYLESS else _EXAMPLES['transit']}")


async def test_each_page_and_each_deed_takes_its_scope_and_no_other(node: Node) -> None:
    operations = sorted({each.transit for each in EVERYTHING if each.transit is not None})
    scopes: list[AnyScope] = [*sorted(EVERY_SCOPE), *map(of_engine, operations)]
    for scope in scopes:
        ada = await visitor(node, scope)
        form = form_of(await ada.get("/"))
        for page in PAGES:
            answer = await ada.get(address(page.path))
            assert (answer.status_code == 403) == is_refused(page, scope), f"{page.path} by {scope}"
        for deed in DEEDS:
            for answer in (await ada.get(address(deed.path)), await ada.post(address(deed.path), {"form": form})):
                assert (answer.status_code == 403) == is_refused(deed, scope), f"{deed.path} by {scope}"


async def test_a_scope_of_the_engine_opens_the_keys_that_it_names_and_no_others(node: Node) -> None:
    ada = await visitor(node, transit_scope("transit:*:invoices"))
    form = form_of(await ada.get("/"))
    of_keys = [each for each in EVERYTHING if each.transit is not None]
    assert of_keys
    for each in of_keys:
        is_of_one = "{transit" in each.path
        answer = await ada.get(address(each.path))
        assert (answer.status_code == 403) == (is_of_one or each.transit in KEYLESS), each.path
        assert (await ada.get(address(each.path).replace("orders", "invoices"))).status_code != 403 or not is_of_one
    sent = {"form": form, "name": "orders", "type": "aes256-gcm96"}
    assert (await ada.post("/console/new-transit-key", sent)).status_code == 403
    assert (await ada.post("/console/new-transit-key", {**sent, "name": "invoices"})).status_code == 303
    assert (await ada.post("/console/transit/orders/rotate", {**sent, "name": "invoices"})).status_code == 403


async def test_who_is_of_a_tenant_sees_nothing_of_the_whole_store(node: Node) -> None:
    north = await visitor(node, tenant="north")
    for each in EVERYTHING:
        assert ((await north.get(address(each.path))).status_code == 403) == each.is_of_store, each.path
    assert "Keyrings" not in text_of(await north.get("/"))


async def test_what_a_scope_may_not_do_is_not_shown(node: Node) -> None:
    reads, writes = await visitor(node, Scope.KEYRINGS_READ), await visitor(node)
    for path, deeds in (("/console/keyrings", ["/console/new-keyring", "/console/rewrap"]),):
        for deed in deeds:
            assert deed not in (await reads.get(path)).text
            assert deed in (await writes.get(path)).text
    assert "/default/rotate" not in (await reads.get("/console/keyrings/default")).text
    assert "/default/rotate" in (await writes.get("/console/keyrings/default")).text
    assert "Access" not in text_of(await reads.get("/"))
    resets = await visitor(node, Scope.SECRETS_RESET)
    assert '<a href="/console/lockouts">Devices</a>' in (await resets.get("/")).text
    assert "Problematic keys" not in (await resets.get("/console/lockouts")).text
    assert "Problematic keys" in (await writes.get("/console/lockouts")).text


async def test_nobody_is_let_in_without_a_session_and_is_led_back_afterwards(node: Node) -> None:
    nobody = Visitor(node.app)
    for each in EVERYTHING:
        answer = await nobody.get(address(each.path))
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in")
    for deed in DEEDS:
        answer = await nobody.post(address(deed.path), {})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    asked = (await nobody.get("/console/keyrings?after=default")).headers["location"]
    assert asked == "/console/sign-in?next=%2Fconsole%2Fkeyrings%3Fafter%3Ddefault"
    assert 'value="/console/keyrings?after=default"' in (await nobody.get(asked)).text
    token = await node.token("ada", Scope.KEYRINGS_READ)
    answer = await nobody.post("/console/sign-in", {"token": token, "next": "/console/keyrings?after=default"})
    assert answer.headers["location"] == "/console/keyrings?after=default"
    assert (await nobody.get(asked)).headers["location"] == "/console/keyrings?after=default"


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/console/keyrings",
        "//evil.example/console/keyrings",
        "/\\evil.example",
        "/console/../../evil",
        "javascript:alert(1)",
        "/v1/keyrings",
        "console/keyrings",
        "/console/keyrings\r\nSet-Cookie: a=b",
        "",
    ],
)
async def test_signing_in_leads_to_pages_of_the_console_alone(node: Node, text: str) -> None:
    assert own_page(text) == "/"
    answer = await Visitor(node.app).post("/console/sign-in", {"token": await node.token("ada"), "next": text})
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith("//")


async def test_a_token_that_is_not_good_begins_no_session(node: Node) -> None:
    for token in ("", "kst1_", "kst1_0123456789abcdef_" + "A" * 43, "<script>"):
        ada = Visitor(node.app)
        answer = await ada.signs_in(token)
        assert answer.status_code == 401
        assert "this token is not good" in answer.text
        assert "<script>" not in answer.text
        assert ada.cookies == {}


async def test_a_session_is_a_new_one_at_each_sign_in_and_ends_with_signing_out(node: Node) -> None:
    ada, thief = await visitor(node), Visitor(node.app)
    thief.cookies = dict(ada.cookies)
    first = ada.cookies["keystead"]
    await ada.signs_in(await node.token("ada"))
    assert ada.cookies["keystead"] != first
    planted = Visitor(node.app, cookies={"keystead": "ksc1_0123456789abcdef_" + "A" * 43})
    await planted.signs_in(await node.token("ada"))
    assert planted.cookies["keystead"] != "ksc1_0123456789abcdef_" + "A" * 43
    assert (await thief.get("/")).status_code == 200
    assert (await thief.post("/console/sign-out", {"form": "0" * 64})).status_code == 403
    answer = await thief.post("/console/sign-out", {"form": form_of(await thief.get("/"))})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    thief.cookies = {"keystead": first}
    assert (await thief.get("/")).status_code == 303


async def test_the_cookie_is_out_of_reach_of_scripts_of_other_sites_and_of_plain_connections(node: Node) -> None:
    token = await node.token("ada")
    plain = (await Visitor(node.app).signs_in(token)).headers["set-cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    assert "Path=/" in plain
    assert "Domain" not in plain
    secure = (await Visitor(node.app, "https://keys.example").signs_in(token)).headers["set-cookie"]
    assert secure.startswith("__Host-keystead=")
    assert "Secure" in secure


async def test_a_form_is_taken_from_this_session_and_this_site_alone(node: Node) -> None:
    ada, eve = await visitor(node), await visitor(node)
    good = form_of(await ada.get("/"))
    path = "/console/keyrings/default/rotate"
    forged = [
        ({}, {}),
        ({"form": ""}, {}),
        ({"form": form_of(await eve.get("/"))}, {}),
        ({"form": good}, {"Origin": "https://evil.example"}),
        ({"form": good}, {"Origin": "null"}),
        ({"form": good}, {"Sec-Fetch-Site": "cross-site"}),
        ({"form": good}, {"Sec-Fetch-Site": "same-site"}),
    ]
    for fields, headers in forged:
        assert (await ada.post(path, fields, headers)).status_code == 403, (fields, headers)
    assert (await ada.post(path, {"form": good}, {"Content-Type": "text/plain"})).status_code == 400
    assert (await ada.post(path, {"form": good, "more": "x" * 2_000_000})).status_code == 413
    signing_in = {"token": await node.token("eve")}
    refused = await ada.post("/console/sign-in", signing_in, {"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert "versions" not in text_of(refused)
    assert (await ada.post(path, {"form": good})).status_code == 303


async def test_every_answer_keeps_frames_scripts_and_caches_out(node: Node) -> None:
    ada = await visitor(node)
    answers = [await ada.get(path) for path in ("/", "/console/keyrings/none", "/console/sign-in")]
    answers += [await Visitor(node.app).get("/"), await Visitor(node.app).get("/console/sign-in")]
    assert [answer.status_code for answer in answers] == [200, 404, 303, 303, 200]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|<style", answer.text)


MARKUP = "\"><script>alert(1)</script>'{{7*7}}"


async def test_markup_in_what_somebody_has_named_is_text(node: Node) -> None:
    made = await node.service.tokens.create(f"ada{MARKUP}", EVERY_SCOPE, label=MARKUP)
    ada = Visitor(node.app)
    await ada.signs_in("".join(made.text))
    await ada.does("/console/new-keyring", {"name": MARKUP})
    for path in ("/", "/console/tokens", "/console/sessions", "/console/keyrings", f"/console/keyrings/{MARKUP}"):
        page = await ada.get(path)
        assert "<script>" not in page.text
        assert "{{7*7}}" in page.text
        assert "49" not in page.text.replace("149", "") or MARKUP in text_of(page)
    refused = await ada.does("/console/new-keyring", {"name": MARKUP + "\n"})
    assert "<script>" not in refused.text


async def test_what_was_told_once_is_told_to_its_session_alone(node: Node) -> None:
    ada, eve = await visitor(node), await visitor(node)
    await ada.post("/console/keyrings/default/rotate", {"form": form_of(await ada.get("/"))})
    eve.cookies["keystead-told"] = ada.cookies["keystead-told"]
    assert 'class="told"' not in (await eve.get("/")).text
    eve.cookies["keystead-told"] = "0.WW91IGFyZSBoYWNrZWQ="
    assert 'class="told"' not in (await eve.get("/")).text
    assert "Version 2 of default encrypts." in text_of(await ada.get("/"))
    assert "keystead-told" not in ada.cookies


async def test_a_page_that_is_not_there_is_told_of_as_a_page(node: Node) -> None:
    ada = await visitor(node)
    for path in ("/console/none", "/console/keyrings/default/rotate/none", "/console/"):
        answer = await ada.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
    assert "the console has no such page" in text_of(await ada.get("/console/none"))
    assert (await Visitor(node.app).get("/console/none")).status_code == 303
    assert (await ada.get("/console/static/none.css")).status_code == 404


async def test_a_fault_tells_nothing_of_itself(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ValueError("a secret")

    ada = await visitor(node)
    monkeypatch.setattr("keystead.server.console.overview.admin.store_status", broken)
    answer = await ada.get("/")
    assert answer.status_code == 500
    assert INTERNAL.message in text_of(answer)
    assert "a secret" not in answer.text


async def test_in_development_the_console_is_open_to_this_machine_and_its_forms_to_its_pages(
    installation: Installation,
) -> None:
    async with installation.node(is_development=True) as node:
        dev = Visitor(node.app)
        page = await dev.get("/")
        assert "everybody on this machine may do everything" in text_of(page)
        path = "/console/keyrings/default/rotate"
        assert (await dev.post(path, {})).status_code == 403
        good = form_of(await dev.get(path))
        assert (await dev.post(path, {"form": good}, {"Origin": "https://evil.example"})).status_code == 403
        assert (await dev.post("/graphql", {"query": "{}"})).status_code == 403
        assert (await dev.post(path, {"form": good})).status_code == 303
        assert "Version 2 of default encrypts." in text_of(await dev.get("/console/keyrings/default"))
        elsewhere = Visitor(node.app, "http://keys.example")
        assert (await elsewhere.get("/")).status_code == 403


async def test_behind_a_proxy_that_ends_tls_the_console_is_where_its_setting_says(installation: Installation) -> None:
    async with installation.node(environ={"KEYSTEAD_SERVER_URL": "https://keys.example"}) as node:
        ada = Visitor(node.app, "http://10.0.0.7:3000")
        signed_in = {"token": await node.token("ada")}
        assert (await ada.post("/console/sign-in", signed_in)).status_code == 403
        answer = await ada.post("/console/sign-in", signed_in, {"Origin": "https://keys.example"})
        assert answer.headers["set-cookie"].startswith("__Host-keystead=")
        assert "Secure" in answer.headers["set-cookie"]
        assert (await ada.get("/")).status_code == 200
        ada.cookies["__Host-keystead"] += "x"
        forgotten = (await ada.get("/")).headers["set-cookie"]
        assert "Max-Age=0" in forgotten
        assert "Secure" in forgotten
