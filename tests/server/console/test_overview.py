"""Each number of the first page is that of the command line and of the rows in the store."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from keystead.access.callers import Scope
from keystead.cli.main import build_app
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.manager import admin
from keystead.server.console import audit as console_audit
from keystead.server.console import keyrings, overview, rendering
from tests.fakes.clock import FakeClock
from tests.server.clients import VERIFY_PASSCODE, Installation, Node, sealed
from tests.server.console.visitors import text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""

DAY = timedelta(days=1)


async def live(node: Node, clock: FakeClock) -> None:
    """Have keyrings, versions in every state, and devices whose operations succeeded and failed over some hours."""
    km = node.service.manager
    for name in ("orders", "invoices"):
        await admin.create_keyring(km, name)
        for _ in range(3):
            await admin.rotate_keyring(km, name)
    for name in ("orders/1", "orders/2", "invoices/1"):
        await admin.disable_key(km, (await admin.find_key(km, name)).id)
    leaving = await admin.find_key(km, "orders/2")
    await admin.schedule_destroy(km, leaving.id, without_sources=True)
    for hours, wrong in ((0, 1), (2, 2), (3, 0)):
        for _ in range(hours):
            clock.advance(timedelta(hours=1))
            await km.require_session().poll()
        phone = await node.client(f"bo-{hours}", Scope.DEVICES_USE)
        key = await phone.key(f"phone-{hours}")
        await phone.set_passcode(key, "correct horse")
        for number in range(wrong):
            given = {"encryptedPasscode": sealed(key, f"wrong {number}"), "keyId": key["keyId"]}
            await phone.ask(VERIFY_PASSCODE, {"input": {**given, "keyId": "client_enc_absent"}})
        await node.service.devices.metrics.flush()


def figures(page: httpx.Response) -> dict[str, str]:
    """Return the figures of a page by their names."""
    found = re.findall(r"<dt>([^<]*)</dt><dd[^>]*>(.*?)</dd>", page.text, re.DOTALL)
    return {name: re.sub(r"<[^>]*>|\s", "", value) for name, value in found}


def rows(page: httpx.Response, chart: str) -> list[list[str]]:
    """Return the numbers of a chart, from its table."""
    [found] = re.findall(rf'id="{chart}-title".*?<tbody>(.*?)</tbody>', page.text, re.DOTALL)
    return [
        [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", found, re.DOTALL)
    ]


def asked(installation: Installation, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return what the database itself answers."""
    with closing(sqlite3.connect(installation.store.removeprefix("sqlite:///"))) as database:
        return database.execute(query, values).fetchall()


async def command(installation: Installation, *words: str) -> Any:
    """Return what the command line answers, as another process of the store."""
    where = ["--store", installation.store, "--kms", f"local:{installation.folder / 'keystead.kek'}", "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, build_app(), [*words, *where], prog_name="keystead")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


async def test_the_figures_are_those_of_the_command_line_and_of_the_store(
    installation: Installation, node: Node, clock: FakeClock
) -> None:
    await live(node, clock)
    page = await (await visitor(node)).get("/")
    shown = figures(page)
    by_state = dict(asked(installation, "SELECT state, count(*) FROM data_keys GROUP BY state"))
    assert {"active", "decrypt-only", "disabled", "pending-destroy"} <= by_state.keys()
    assert {name: int(shown[f"Keys {name}"]) for name in by_state} == by_state
    assert [(int(shown["Keyrings"]),)] == asked(installation, "SELECT count(*) FROM keyrings")
    assert [(int(shown["Nodes running"]),)] == asked(installation, "SELECT count(*) FROM nodes")
    status = (await command(installation, "status"))["store"]
    assert status["keys"] == by_state
    assert (status["keyrings"], status["nodes"]) == (int(shown["Keyrings"]), int(shown["Nodes running"]))
    [kek] = status["keks"]
    [number] = re.findall(r'<td data-label="WRAP keys">(\d+)</td>', page.text)
    assert int(number) == kek["wrap_keys"]
    assert [(int(number),)] == asked(installation, "SELECT count(*) FROM data_keys WHERE purpose = 'wrap'")
    [(due,)] = asked(installation, "SELECT min(rotate_after) FROM data_keys WHERE state = 'active'")
    assert due.removesuffix("Z")[:19] in page.text
    assert status["next_rotation"][:19] == due[:19]
    listed = await command(installation, "key", "list", "--state", "disabled")
    assert listed["total"] == by_state["disabled"]
    told = text_of(page)
    assert told.count("will be destroyed at") == by_state["pending-destroy"] == len(status["pending_destroy"])


async def test_the_figures_of_the_trail_are_those_of_the_command_line_and_of_the_store(
    installation: Installation,
) -> None:
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as node:
        km, ada = node.service.manager, await visitor(node)
        await admin.create_keyring(km, "orders")
        await km.audit.checkpoint()
        await admin.rotate_keyring(km, "orders")
        await km.audit.sequenced()
        await admin.rotate_keyring(km, "orders")
        note = await km.audit.last_checkpoint()
        assert note is not None
        signed = Checkpoint.parse(Note.parse(note).text).size
        pages = [figures(await ada.get(path)) for path in ("/", "/console/audit")]
        status = await command(installation, "audit", "status")
        [(sealed, waiting)] = asked(
            installation, "SELECT (SELECT count(*) FROM audit_log), (SELECT count(*) FROM audit_entries)"
        )
        assert sealed > signed > 0
        assert waiting > 0
        assert (status["records"], status["waiting"], status["checkpoint_records"]) == (sealed, waiting, signed)
        for shown in pages:
            figures_of_trail = ("Records sealed", "Waiting to be sealed", "Covered by a checkpoint")
            assert [int(shown[name]) for name in figures_of_trail] == [sealed, waiting, signed]
        assert int(pages[1]["Not authentic"]) == status["rejected"] == 0


async def test_the_charts_are_those_of_the_summary_and_of_the_store(
    installation: Installation, node: Node, clock: FakeClock
) -> None:
    await live(node, clock)
    page = await (await visitor(node)).get("/")
    counted = {
        start: (total, failed)
        for start, total, failed in asked(
            installation,
            "SELECT cast(strftime('%s', substr(timestamp, 1, 13) || ':00:00') AS integer), count(*), "
            "sum(status = 'failure') FROM encryption_metrics GROUP BY 1",
        )
    }
    by_hour = [(int(total), int(failed)) for _, total, failed in rows(page, "operations")]
    assert len(by_hour) == 24
    assert [each for each in by_hour if each[0]] == [counted[start] for start in sorted(counted)]
    summary = await node.service.devices.summaries.summary()
    assert sum(total for total, _ in by_hour) == summary["totalOperations"]
    assert sum(failed for _, failed in by_hour) == summary["failureCount"] > 0
    decrypts = summary["operations"]["decrypt"]
    assert [each[1] for each in rows(page, "latency")] == [f"{decrypts[name]} ms" for name in ("p50", "p95", "p99")]
    ends = [clock.now() + days * DAY for days in (0, 1, 7, 30, 90)]
    texts = [f"{each:%Y-%m-%dT%H:%M:%S.%fZ}" for each in ends]
    expected = [
        number
        for below, above in zip(["", *texts], [*texts, "9"], strict=True)
        for [number] in asked(
            installation,
            "SELECT count(*) FROM data_keys WHERE state = 'active' AND rotate_after > ? AND rotate_after <= ?",
            below,
            above,
        )
    ]
    expected += asked(installation, "SELECT count(*) FROM data_keys WHERE state = 'active' AND rotate_after IS NULL")[0]
    assert [int(each[1]) for each in rows(page, "due")] == expected
    assert sum(expected) == int(figures(page)["Keys active"])


async def test_charts_are_for_whoever_may_see_their_numbers(node: Node) -> None:
    reads, measures = await visitor(node, Scope.KEYRINGS_READ), await visitor(node, Scope.METRICS_READ)
    nothing = await visitor(node, Scope.AUDIT_READ)
    told = text_of(await reads.get("/"))
    assert "Active keys by when they are to be rotated" in told
    assert "Nothing was done with keys of devices" not in told
    told = text_of(await measures.get("/"))
    assert "Active keys by when" not in told
    assert "Nothing was done with keys of devices in the last 24 hours." in told
    assert "In numbers" not in text_of(await nothing.get("/"))
    assert "In numbers" not in text_of(await (await visitor(node, tenant="north")).get("/"))


async def test_what_grows_is_counted_up_to_a_number_and_told_as_more(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (overview, rendering, console_audit, keyrings):
        monkeypatch.setattr(module, "MOST_COUNTED", 2)
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as node:
        ada = await visitor(node)
        await admin.create_keyring(node.service.manager, "orders")
        shown = figures(await ada.get("/"))
        [(number,)] = asked(installation, "SELECT count(*) FROM keyrings")
        assert number > 3
        assert (shown["Keyrings"], shown["Keys active"], shown["Waiting to be sealed"]) == ("morethan2",) * 3
        assert figures(await ada.get("/console/audit"))["Waiting to be sealed"] == "morethan2"
        assert "More than 2 data keys are wrapped again" in text_of(await ada.get("/console/rewrap"))
        monkeypatch.setattr(rendering, "MOST_COUNTED", number)
        monkeypatch.setattr(overview, "MOST_COUNTED", number)
        assert figures(await ada.get("/"))["Keyrings"] == str(number)
