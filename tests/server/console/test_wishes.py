"""Re-encryptions are planned and started from the console, by whichever worker waits where the table is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keystead import fields
from keystead.access.callers import Scope
from keystead.fields import Field, ReencryptPlan, VersionRows, serve_wishes
from keystead.fields.plan_text import plan_text
from keystead.fields.wishes import field_standing
from keystead.ports import WishRecord, WishState
from keystead.server.console.wishes import SHOWN
from tests.fields.application import Application
from tests.fields.test_reencrypt import key_ids
from tests.server.clients import Node
from tests.server.console.test_jobs import poll_of, store_of
from tests.server.console.visitors import text_of, visitor
from tests.server.console.workers import FIELD

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""

AT = "/console/jobs/new-reencryption"
OF_FIELD = f"/console/jobs/fields/{FIELD.id}"
FOUND = ReencryptPlan(1200, [VersionRows(7, "default", 1, 1200)], 3, 0, 2, 1000, 900, 125.0, None)
HOSTILE = "people.<script>alert(1)</script>/plan?x=`1`&y=\"'"


async def registered(node: Node, field_id: str = FIELD.id) -> None:
    """Register a field by an id."""
    km, field = node.service.manager, Field("people", "email", id=field_id)
    await km.load_fields(field)
    await km.register_field(field, "postgresql://app@db.example/shop")


async def waits(node: Node) -> None:
    """Have a worker wait."""
    async with store_of(node).transaction() as work:
        await work.listen(FIELD.id, "worker", 60_000)


async def ended(node: Node, state: WishState, **told: str) -> None:
    """Have a worker take what was asked for and end it so."""
    (wish, *_) = await fields.wishes(node.service.manager, FIELD.id)
    async with store_of(node).transaction() as work:
        assert await work.take_wish(wish.id, "worker", 60_000) is not None
        assert await work.end_wish(wish.id, "worker", state, **told)


async def last(node: Node) -> WishRecord | None:
    return (await field_standing(node.service.manager, FIELD.id)).last


async def test_a_plan_is_asked_for_followed_and_shown_with_its_counts(node: Node) -> None:
    await registered(node)
    await waits(node)
    ada = await visitor(node)
    page = await ada.get(AT)
    assert "A worker waits where the table is" in text_of(page)
    assert "hx-get" not in page.text
    assert "Nothing is written to the table." in text_of(await ada.get(f"{OF_FIELD}/plan"))
    page = await ada.does(f"{OF_FIELD}/plan")
    assert "A plan is asked for. A worker takes it in a moment." in text_of(page)
    assert re.search(r"A plan was asked for by ada .* : waits for a worker", text_of(page))
    poll = poll_of(page.text)
    await ended(node, WishState.DONE, plan=plan_text(FOUND))
    part = await ada.get(poll)
    assert "<html" not in part.text
    assert "hx-get" not in part.text
    told = text_of(part)
    for figure in ("Rows 1 200", "900", "default v1", "Takes about 2 minutes"):
        assert figure in told, figure


async def test_a_start_shows_the_last_plan_first_or_offers_one(node: Node) -> None:
    await registered(node)
    ada = await visitor(node)
    preview = await ada.get(f"{OF_FIELD}/start")
    assert "nobody knows what is before it" in text_of(preview)
    assert f'href="{OF_FIELD}/plan"' in preview.text
    assert "No worker waits where the table is." in text_of(preview)
    await ada.does(f"{OF_FIELD}/plan")
    await ended(node, WishState.DONE, plan=plan_text(FOUND))
    preview = await ada.get(f"{OF_FIELD}/start")
    assert "It found 1 200 rows: 900 of the first 1 000 have to be written" in text_of(preview)
    assert f'href="{OF_FIELD}/plan"' not in preview.text
    assert "No worker waits for it yet." in text_of(await ada.does(f"{OF_FIELD}/start"))


async def test_what_became_of_a_start_is_linked_or_told_by_its_code(node: Node) -> None:
    await registered(node)
    ada = await visitor(node)
    await ada.does(f"{OF_FIELD}/start")
    await ended(node, WishState.DONE, job_id="0123456789abcdef")
    assert 'href="/console/jobs/reencryptions/0123456789abcdef"' in (await ada.get(AT)).text
    await ada.does(f"{OF_FIELD}/start")
    await ended(node, WishState.FAILED, error_code="store_unavailable")
    assert '#store_unavailable">store_unavailable</a>' in (await ada.get(AT)).text


async def test_what_was_asked_for_is_cancelled_while_nobody_is_at_it(node: Node) -> None:
    await registered(node)
    ada = await visitor(node)
    page = await ada.does(f"{OF_FIELD}/start")
    cancelling = re.search(r'href="(/console/jobs/wishes/[0-9a-f]+/cancel)"', page.text)
    assert cancelling is not None
    assert f"{OF_FIELD}/start" not in page.text
    assert "nothing is done to people.email" in text_of(await ada.does(cancelling[1]))
    wish = await last(node)
    assert wish is not None
    assert wish.state is WishState.CANCELLED
    await ada.does(f"{OF_FIELD}/start")
    assert "was asked for already" in text_of(await ada.does(f"{OF_FIELD}/plan"))


async def test_what_a_worker_is_at_is_not_offered_to_be_cancelled_until_it_is_not_heard_of(node: Node) -> None:
    await registered(node)
    ada = await visitor(node)
    await ada.does(f"{OF_FIELD}/start")
    (wish,) = await fields.wishes(node.service.manager, FIELD.id)
    async with store_of(node).transaction() as work:
        await work.take_wish(wish.id, "worker", 60_000)
    cancelling = f"/console/jobs/wishes/{wish.id}/cancel"
    page = await ada.get(AT)
    assert "a worker is at it" in text_of(page)
    assert cancelling not in page.text
    assert "a worker is at it" in text_of(await ada.does(cancelling))
    async with store_of(node).transaction() as work:
        await work.hold_wish(wish.id, "worker", 0)
    page = await ada.get(AT)
    assert "another one that waits takes it over" in text_of(page)
    assert cancelling in page.text


async def test_who_may_only_look_is_offered_nothing(node: Node) -> None:
    await registered(node)
    ada = await visitor(node)
    await ada.does(f"{OF_FIELD}/plan")
    bob = await visitor(node, Scope.JOBS_READ)
    assert "/cancel" not in (await bob.get(AT)).text
    await ended(node, WishState.DONE, plan=plan_text(FOUND))
    page = await bob.get(AT)
    assert "/plan" not in page.text
    assert "/start" not in page.text
    assert (await bob.get(f"{OF_FIELD}/start")).status_code == 403


async def test_hostile_names_are_text_and_reach_their_own_field(node: Node) -> None:
    await registered(node, HOSTILE)
    ada = await visitor(node)
    page = await ada.get(AT)
    assert "<script>alert" not in page.text
    (link,) = re.findall(r'href="([^"]*)/start"', page.text)
    assert "<script>alert" not in (await ada.get(f"{link}/plan")).text
    await ada.does(f"{link}/plan")
    (wish,) = await fields.wishes(node.service.manager, HOSTILE)
    async with store_of(node).transaction() as work:
        await work.take_wish(wish.id, "<script>alert(2)</script>", 60_000)
        versions = [VersionRows(0, "<script>alert(3)</script>", 1, 5)]
        hostile = plan_text(ReencryptPlan(5, versions, 0, 0, 0, 5, 5, 1.0, "<script>alert(4)</script>"))
        await work.end_wish(wish.id, "<script>alert(2)</script>", WishState.DONE, plan=hostile)
    page = await ada.get(AT)
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(3)" in page.text


async def test_fields_come_a_page_at_a_time(node: Node) -> None:
    for number in range(SHOWN + 2):
        await registered(node, f"people.column{number:03}")
    ada = await visitor(node)
    page = await ada.get(AT)
    more = re.search(r'<p class="more"><a href="([^"]*)"', page.text)
    assert more is not None
    both = page.text + (await ada.get(more[1])).text
    seen = re.findall(r">people.column(\d+)</h2>", both)
    assert seen == [f"{number:03}" for number in range(SHOWN + 2)]


async def test_a_start_from_the_console_re_encrypts_the_table(node: Node, tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    app, km = Application(f"sqlite:///{tmp_path}/app.db"), node.service.manager
    app.make_people(km, 30)
    await km.load_fields(FIELD)
    await km.register_field(FIELD, app.url)
    active = (await km.rotate_data_key(promote="now")).id
    ada = await visitor(node)
    await ada.does(f"{OF_FIELD}/start")
    assert await serve_wishes(km, app.url, FIELD, once=True) == 1
    assert key_ids(app) == {active}
    page = await ada.get(AT)
    job = re.search(r'href="(/console/jobs/reencryptions/[0-9a-f]+)"', page.text)
    assert job is not None
    assert "30 of 30" in text_of(await ada.get(job[1]))
