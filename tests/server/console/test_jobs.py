"""Jobs are seen and run at the console, and re-encryptions followed, paused and ended, whoever works on them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from keystead.access.callers import Scope
from keystead.fields.commands import command_of
from keystead.ports import ChunkRecord, KeyStore, ReencryptionState, RowFailure
from keystead.server.console.jobs import SHOWN
from keystead.server.console.pace import LIVE_S
from tests.fakes.clock import FakeClock
from tests.server.clients import Installation, Node
from tests.server.console.visitors import Visitor, text_of, visitor
from tests.server.console.workers import FIELD, JOB, begun

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""

AT = f"/console/jobs/reencryptions/{JOB.id}"
_POLL = re.compile(r'hx-get="([^"]*)"')


def store_of(node: Node) -> KeyStore:
    """Return the store of a node."""
    return node.service.manager.require_session().surroundings.store


async def saved(node: Node, chunk: ChunkRecord, *, ttl_ms: int = 30_000, **changes: object) -> ChunkRecord:
    """Save how far a part is; with a ``ttl_ms`` of 0 its worker leaves it."""
    async with store_of(node).transaction() as work:
        return await work.save_chunk(replace(chunk, **changes), ttl_ms)  # type: ignore[arg-type]


async def state_of(node: Node) -> ReencryptionState:
    """Return the state of the re-encryption."""
    async with store_of(node).reading() as work:
        found = await work.find_reencryption(JOB.id)
    assert found is not None
    return found.state


async def test_jobs_are_shown_and_run_at_once(node: Node) -> None:
    ada = await visitor(node)
    assert "keystead.rotate" in text_of(await ada.get("/console/jobs"))
    preview = text_of(await ada.get("/console/jobs/keystead.transit/run"))
    assert "Rotates keys of the machine API that are due." in preview
    page = await ada.does("/console/jobs/keystead.transit/run")
    assert "keystead.transit was run." in text_of(page)
    assert re.search(r"keystead\.transit .*? done a moment ago", text_of(page))
    assert "0 keyrings rotated" in text_of(await ada.does("/console/jobs/maintain"))
    assert (await ada.get("/console/jobs/nothing/run")).status_code == 404
    async with store_of(node).transaction() as work:
        await work.claim_lease("keystead.transit", "another node", 30_000)
    assert "runs now on another node" in text_of(await ada.get("/console/jobs"))
    assert "was left alone" in text_of(await ada.does("/console/jobs/keystead.transit/run"))


async def test_who_may_only_look_is_shown_no_deed(node: Node) -> None:
    await begun(store_of(node))
    ada = await visitor(node, Scope.JOBS_READ)
    for path, deed in (
        ("/console/jobs", "/run"),
        ("/console/jobs", "/console/jobs/maintain"),
        (AT, "/pause"),
        (AT, "/cancel"),
    ):
        assert f'{deed}"' not in (await ada.get(path)).text
        assert f'{deed}"' in (await (await visitor(node)).get(path)).text


async def test_a_re_encryption_that_runs_is_followed_from_look_to_look(node: Node, clock: FakeClock) -> None:
    ada = await visitor(node)
    chunk = await begun(store_of(node))
    chunk = await saved(node, chunk, read=100, rewritten=90, skipped=10)
    page = await ada.get(AT)
    assert "100 of 1" in text_of(page)
    assert "in a moment" in text_of(page)
    assert "/console/static/htmx.min.js" in page.text
    clock.advance(timedelta(seconds=10))
    chunk = await saved(node, chunk, read=300, rewritten=290)
    poll = poll_of(page.text)
    part = await ada.get(poll)
    assert part.status_code == 200
    assert "<html" not in part.text
    assert "Rows a second 20" in text_of(part)
    assert "Time left 35 seconds" in text_of(part)
    assert "30 %" in text_of(part)
    # The same by a look anew, without scripts.
    assert "Rows a second 20" in text_of(await ada.get(f"{AT}?{poll.partition('?')[2]}"))
    clock.advance(timedelta(seconds=LIVE_S))
    await saved(node, chunk, read=400)
    assert "hx-get" not in (await ada.get(poll_of(part.text))).text


def poll_of(text: str) -> str:
    """Return the address that a page looks at again by itself."""
    found = _POLL.search(text)
    assert found is not None, text
    return found[1].replace("&amp;", "&")


async def test_a_page_of_a_running_one_goes_on_after_a_restart(installation: Installation) -> None:
    async with installation.node() as node:
        token = await node.token("ada", Scope.JOBS_READ)
        ada = Visitor(node.app)
        await ada.signs_in(token)
        chunk = await saved(node, await begun(store_of(node)), read=100)
        poll = poll_of((await ada.get(AT)).text)
    async with installation.node() as node:
        ada.app = node.app
        installation.clock.advance(timedelta(seconds=10))
        await saved(node, chunk, read=200)
        assert "Rows a second 10" in text_of(await ada.get(poll))


async def test_what_an_address_says_of_an_earlier_look_is_believed_only_where_it_can_be(
    node: Node, clock: FakeClock
) -> None:
    ada = await visitor(node)
    await saved(node, await begun(store_of(node)), read=100)
    future = int(clock.now().timestamp() * 1000) + 60_000
    for query in (
        "opened=x&at=y&seen=z",
        f"opened={future}&at={future}&seen={JOB.id}:1",
        f"at=0&seen={JOB.id}:{10**17}",
        f"at=0&seen={JOB.id}:-1,<script>",
        "seen=" + ",".join(["a:1"] * 1000),
    ):
        page = await ada.get(f"{AT}?{query}")
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "Rows a second in a moment" in text_of(page)


async def test_it_is_paused_goes_on_and_ends_for_good_once_its_id_was_typed(node: Node) -> None:
    ada = await visitor(node)
    await saved(node, await begun(store_of(node)), read=100, rewritten=100)
    poll = poll_of((await ada.get(AT)).text)
    assert "100 of 1000 rows were looked at by now" in text_of(await ada.get(f"{AT}/pause"))
    page = await ada.does(f"{AT}/pause")
    assert "its workers stop after the batch at hand" in text_of(page)
    assert "hx-get" not in page.text
    part = await ada.get(poll)
    assert "It is paused now." in text_of(part)
    assert "hx-get" not in part.text
    assert f" {command_of(JOB)} " in text_of(page)
    again = await ada.does(f"{AT}/pause")
    assert "is paused; it cannot become paused" in text_of(again)
    assert "run its command where the application's database is reached" in text_of(await ada.does(f"{AT}/resume"))
    assert await state_of(node) is ReencryptionState.RUNNING
    assert "type 0123456789abcdef to confirm" in text_of(await ada.does(f"{AT}/cancel", {"typed": FIELD.id}))
    assert await state_of(node) is ReencryptionState.RUNNING
    page = await ada.does(f"{AT}/cancel", {"typed": JOB.id})
    assert "It has ended; what it had written stays." in text_of(page)
    assert await state_of(node) is ReencryptionState.CANCELLED
    assert f"{AT}/resume" not in page.text


async def test_rows_that_failed_are_named_and_why(node: Node) -> None:
    ada = await visitor(node)
    failures = tuple(RowFailure(json.dumps([f"<b>{number}"]), "invalid_ciphertext") for number in range(20))
    await saved(node, await begun(store_of(node)), ttl_ms=0, read=100, failed=25, failures=failures)
    page = await ada.get(AT)
    assert "<b>" not in page.text
    assert '["<b>19"]' in text_of(page)
    assert "The first 20 of 25 are shown." in text_of(page)
    assert "Nobody works on it now" in text_of(page)
    assert "waits for workers" in text_of(await ada.get("/console/jobs"))
    assert (await ada.get("/console/jobs/reencryptions/nothing")).status_code == 404


async def test_re_encryptions_are_listed_the_newest_first_and_by_pages(node: Node, clock: FakeClock) -> None:
    ada = await visitor(node)
    for number in range(SHOWN + 3):
        clock.advance(timedelta(seconds=1))
        await begun(store_of(node), replace(JOB, id=f"{number:016}", field_id=f"people.column{number}"))
    page = await ada.get("/console/jobs")
    seen = re.findall(r"people\.column(\d+)</a>", page.text)
    assert len(page.content) < 90_000
    assert len((await ada.get("/console/static/htmx.min.js")).content) < 60_000
    more = re.search(r'<p class="more"><a href="([^"]*)"', page.text)
    assert more is not None
    rest = await ada.get(more[1])
    seen += re.findall(r"people\.column(\d+)</a>", rest.text)
    assert seen == [str(number) for number in reversed(range(SHOWN + 3))]
    part = await ada.get(poll_of(page.text))
    assert "people.column27" in part.text
    assert "<html" not in part.text
    assert (await ada.get("/console/jobs?after=x,y")).status_code == 400


async def test_one_is_begun_by_a_command_that_the_page_shows(node: Node) -> None:
    ada = await visitor(node)
    assert "No field is registered." in text_of(await ada.get("/console/jobs/new-reencryption"))
    await node.service.manager.load_fields(FIELD)
    await node.service.manager.register_field(FIELD, "postgresql://app:secret@db.example/shop")
    page = await ada.get("/console/jobs/new-reencryption")
    assert "keystead reencrypt postgresql://app@db.example/shop people.email --plan" in text_of(page)
    assert "It was never re-encrypted" in text_of(page)
    assert "secret" not in page.text
    await begun(store_of(node))
    assert f"{command_of(JOB)} --plan" in text_of(await ada.get("/console/jobs/new-reencryption"))


async def test_a_part_of_a_page_is_not_filled_with_the_sign_in(node: Node) -> None:
    await begun(store_of(node))
    answer = await Visitor(node.app).get(f"{AT}/progress", {"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"], answer.content) == (200, "true", b"")
