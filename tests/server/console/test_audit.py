"""The audit trail is searched, read whole and verified at the console, and a proof of each record taken along."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import pytest

from keystead.access.callers import EVERY_SCOPE
from keystead.ledger.audit.verifying import AuditReport
from keystead.ledger.reading.report import MAX_FINDINGS, ErrorType, VerifyError, VerifyReport
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.ledger.tlog.proof import ProofBundle
from keystead.server.console.verdict import MEANINGS, SHOWN, verdict
from tests.audit.places import Place
from tests.server.clients import Installation, Node
from tests.server.console.visitors import Visitor, form_of, text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""

_RECORD: Final = re.compile(r'href="/console/audit/([0-9]+)"')
MARKUP: Final = "<script>alert(1)</script>"


@pytest.fixture
async def node(installation: Installation) -> AsyncIterator[Node]:
    """A node whose store keeps an audit trail."""
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as started:
        yield started


async def record_of(node: Node, action: str) -> int:
    """Return the number of the last record of an action."""
    await node.service.manager.audit.checkpoint()
    return (await node.service.manager.audit.entries(action=action, newest_first=True, limit=1))[0].seq


async def test_entries_are_found_by_who_did_what_to_which_keyring_and_when(node: Node) -> None:
    ada = await visitor(node)
    await ada.does("/console/new-keyring", {"name": "orders"})
    await ada.does("/console/keyrings/orders/rotate")
    made = await node.service.tokens.create("bo", EVERY_SCOPE)
    bo = Visitor(node.app)
    await bo.signs_in("".join(made.text))
    await bo.does("/console/keyrings/orders/rotate")
    number = await record_of(node, "key.rotate")
    page = await ada.get("/console/audit?keyring=orders&action=key.rotate")
    assert len(_RECORD.findall(page.text)) == 2
    assert "user bo" in text_of(page)
    page = await ada.get("/console/audit?actor=User+Bo&action=key.rotate")
    assert _RECORD.findall(page.text) == [str(number)]
    assert 'value="User Bo"' in page.text
    now = node.service.now()
    for query, found in (
        (f"since={now.year - 1}-01-01&action=key.rotate", 2),
        (f"until={now.year - 1}-01-01&action=key.rotate", 0),
        (f"since={now:%Y-%m-%dT%H:%M}&until={now.year + 1}-01-01T00:00&action=key.rotate", 2),
        ("key_id=1&action=key.rotate", 0),
        ("keyring=nothing", 0),
        ("actor=nobody", 0),
    ):
        assert len(_RECORD.findall((await ada.get(f"/console/audit?{query}")).text)) == found, query
    assert "audit.session" not in text_of(await ada.get("/console/audit"))
    assert "audit.session" in text_of(await ada.get("/console/audit?everything=yes"))


async def test_what_no_entry_has_is_refused_beside_the_form(node: Node) -> None:
    ada = await visitor(node)
    for query, told in (
        ("action=rotate", "an operation is a word, a dot and a word"),
        ("key_id=orders", "a data key's id is a number"),
        ("since=yesterday", "a time is a date, or a date and a time in UTC"),
        ("before=-1", "the number of a record is a whole number"),
        (f"before={2**63}", "the number of a record is a whole number"),
    ):
        page = await ada.get(f"/console/audit?{query}")
        assert page.status_code == 400
        assert told in text_of(page)
        assert 'role="search"' in page.text
    assert (await ada.get("/console/audit/99999")).status_code == 404
    assert (await ada.get(f"/console/audit/{2**64}")).status_code == 400


async def test_the_newest_are_shown_first_and_by_pages(node: Node) -> None:
    ada = await visitor(node)
    for number in range(60):
        await node.service.manager.audit.record("order.paid", number=number)
    await node.service.manager.audit.sequenced()
    seen: list[int] = []
    path: str | None = "/console/audit?action=order.paid"
    while path is not None:
        page = await ada.get(path)
        seen += map(int, _RECORD.findall(page.text))
        more = re.search(r'<p class="more"><a href="([^"]*)"', page.text)
        path = None if more is None else more[1].replace("&amp;", "&")
    assert len(seen) == 60
    assert seen == sorted(seen, reverse=True)


async def test_a_record_is_shown_whole_and_what_it_says_is_text(node: Node) -> None:
    ada = await visitor(node)
    await node.service.manager.audit.record("order.paid", keyring=MARKUP, note=MARKUP, long="<" * 400_000)
    number = await record_of(node, "order.paid")
    page = await ada.get(f"/console/audit/{number}")
    for each in (page, await ada.get("/console/audit")):
        assert "<script>" not in each.text
        assert MARKUP in text_of(each)
    assert '"action": "order.paid"' in text_of(page)
    assert "This is the beginning." in text_of(page)
    assert len(page.content) < 150_000
    await ada.does("/console/new-keyring", {"name": "orders"})
    made = await ada.get(f"/console/audit/{await record_of(node, 'key.create')}")
    assert 'href="/console/keyrings/orders"' in made.text
    assert "by which the log keeps account of itself" in text_of(await ada.get("/console/audit/0"))


async def test_a_proof_is_taken_along_and_checked_without_the_store(node: Node) -> None:
    ada = await visitor(node)
    await ada.does("/console/keyrings/default/rotate")
    number = await record_of(node, "key.rotate")
    assert f"/console/audit/{number}/proof" in (await ada.get(f"/console/audit/{number}")).text
    answer = await ada.get(f"/console/audit/{number}/proof")
    assert answer.headers["content-disposition"] == f'attachment; filename="audit-{number}.tlog-proof"'
    assert answer.headers["cache-control"] == "no-store"
    proof = ProofBundle.parse(answer.content)
    policy = await node.service.manager.audit.trust_policy()
    assert proof.extra is not None
    proof.verify(proof.extra, [each.key for each in policy.signers], origin=policy.stream)
    await node.service.manager.audit.record("order.paid")
    await node.service.manager.audit.sequenced()
    [last] = await node.service.manager.audit.entries(action="order.paid")
    assert "No checkpoint is over this record yet" in text_of(await ada.get(f"/console/audit/{last.seq}"))
    refused = await ada.get(f"/console/audit/{last.seq}/proof")
    assert refused.status_code == 400
    assert "no checkpoint is over record" in text_of(refused)


async def test_a_checkpoint_is_made_and_taken_along(node: Node) -> None:
    ada = await visitor(node)
    answer = await ada.does("/console/audit/checkpoint")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.checkpoint"'
    assert Checkpoint.parse(Note.parse(answer.content).text).size > 0


async def test_the_trail_is_verified_by_one_click_and_what_was_changed_is_told(
    node: Node, installation: Installation
) -> None:
    ada = await visitor(node)
    await ada.does("/console/keyrings/default/rotate")
    number = await record_of(node, "key.rotate")
    form = form_of(await ada.get("/console/audit"))
    good = await ada.post("/console/audit/verify", {"form": form})
    assert "Nothing was found in what was checked." in text_of(good)
    assert "A signed checkpoint vouches for everything before record" in text_of(good)
    changed = "UPDATE audit_log SET line = CAST(replace(CAST(line AS TEXT), 'ada', 'eve') AS BLOB)"
    Place(installation.store).tamper(f"{changed} WHERE seq = {number}")
    bad = await ada.post("/console/audit/verify", {"form": form})
    assert "Not as it was written" in text_of(bad)
    assert "It does not say what it said when it was written." in text_of(bad)
    assert f'href="/console/audit/{number}"' in bad.text
    refused = await ada.get(f"/console/audit/{number}/proof")
    assert refused.status_code == 409
    assert "is not what the checkpoint over it says" in text_of(refused)


async def test_without_a_trail_the_page_says_how_one_begins(installation: Installation) -> None:
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "false"}) as node:
        ada = await visitor(node)
        page = await ada.get("/console/audit")
        assert page.status_code == 200
        assert "keystead audit begin" in text_of(page)
        assert "/console/audit/verify" not in page.text
        refused = await ada.does("/console/audit/verify")
        assert "this store keeps no audit trail" in text_of(refused)


async def test_each_kind_of_finding_is_explained_and_what_was_not_looked_at_is_told(
    installation: Installation,
) -> None:
    assert set(MEANINGS) == set(ErrorType)
    log = VerifyReport(stream="audit/1", first=1000, size=1500, records_checked=500)
    for kind in ErrorType:
        log.add(VerifyError(kind, "found", "audit_log", 0, 0, -1))
    for number in range(MAX_FINDINGS):
        log.add(VerifyError(ErrorType.MODIFIED, "found", "audit_log", 0, 0, number))
    found = verdict(AuditReport(log, entries=400, waiting=2, unchecked=1))
    assert not found.is_good
    assert (len(found.findings), found.total) == (SHOWN, MAX_FINDINGS + len(ErrorType))
    told = " ".join(found.left_out)
    assert "The 1000 records before number 1000 were not looked at." in told
    assert "No checkpoint vouches for it as it stands." in told
    assert "No checkpoint vouches for it yet" in " ".join(verdict(AuditReport(VerifyReport())).left_out)
    assert "1 entry is of sessions whose key is not at hand" in told
    assert "2 entries wait to be sealed, and were checked as well." in " ".join(found.checked)


async def test_a_search_by_several_things_says_how_far_it_has_come(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.manager.audit_listing.MOST_LOOKED", 2)
    ada = await visitor(node)
    await ada.does("/console/new-keyring", {"name": "orders"})
    for _ in range(5):
        await ada.does("/console/keyrings/orders/rotate")
    await record_of(node, "key.rotate")
    page, pages = await ada.get("/console/audit?keyring=orders&action=order.none"), 1
    assert "None was found as far as record" in text_of(page)
    while (behind := re.search(r'<p class="more"><a href="([^"]*)"', page.text)) is not None:
        page, pages = await ada.get(behind[1].replace("&amp;", "&")), pages + 1
        assert not _RECORD.findall(page.text)
    assert pages > 2
    assert "No entry matches." in text_of(page)
