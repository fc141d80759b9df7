"""How the service is can be seen at the console: causes, nodes, an examination, and settings without secrets."""

from __future__ import annotations

import asyncio
import html
import re

import pytest

from keystead.access.callers import Scope
from keystead.manager.findings import DoctorReport, Finding, Health
from keystead.manager.manager import KeyManager
from keystead.manager.settings_in_force import MASK, settings_in_force
from keystead.server.console.health import CONFIGURATION, EXAMINE, PATH
from tests.server.clients import Installation, Node
from tests.server.console.visitors import form_of, text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


async def test_an_examination_tells_what_doctor_finds_and_only_when_it_is_asked_for(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Finding("provider local", "encrypt", Health.OK, "works"),
        Finding("provider local", "rotation <b>", Health.WARN, "is off", "turn it on"),
        Finding("store", "schema", Health.FAIL, "is older", "run keystead migrate"),
    ]
    asked = 0

    async def doctor(km: KeyManager) -> DoctorReport:
        nonlocal asked
        asked += 1
        return DoctorReport(found)

    monkeypatch.setattr(KeyManager, "doctor", doctor)
    ada = await visitor(node, Scope.KEYRINGS_READ)
    assert "The service answers" in text_of(await ada.get(PATH))
    assert "Each provider encrypts and decrypts a random value" in text_of(await ada.get(EXAMINE))
    assert asked == 0
    page = await ada.does(EXAMINE)
    assert asked == 1
    told = text_of(page)
    assert "Of 3 checks 1 failed, and 1 should be seen to" in told
    assert "store schema fail is older What helps: run keystead migrate" in told
    assert "rotation &lt;b&gt;" in page.text


async def test_a_service_that_is_well_is_told_so_by_its_own_providers(node: Node) -> None:
    ada = await visitor(node, Scope.KEYRINGS_READ)
    told = text_of(await ada.does(EXAMINE))
    report = await node.service.manager.doctor()
    assert report.is_well
    for each in report.findings:
        assert f"{each.about} {each.check} {each.status}" in told


async def test_one_examination_runs_at_a_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def doctor(km: KeyManager) -> DoctorReport:
        has_begun.set()
        await may_end.wait()
        return DoctorReport()

    monkeypatch.setattr(KeyManager, "doctor", doctor)
    ada = await visitor(node, Scope.KEYRINGS_READ)
    form = {"form": form_of(await ada.get(EXAMINE))}
    first = asyncio.create_task(ada.post(EXAMINE, form))
    await has_begun.wait()
    second = await ada.post(EXAMINE, form)
    assert second.status_code == 429
    assert "an examination is under way" in text_of(second)
    may_end.set()
    assert "Of 0 checks none failed." in text_of(await first)
    assert (await ada.post(EXAMINE, form)).status_code == 200


async def test_what_stands_in_the_way_and_which_nodes_run_is_shown(installation: Installation, node: Node) -> None:
    async with installation.node() as other:
        ada = await visitor(node, Scope.KEYRINGS_READ)
        told = text_of(await ada.get(PATH))
        own = [each.service.manager.require_session().surroundings.node.value for each in (node, other)]
        assert f"{own[0]} (this one)" in told
        assert f"{own[1]} " in told
        async with node.service.manager.require_session().surroundings.store.transaction() as work:
            await work.bump_epoch()
        assert "1 change behind" in text_of(await ada.get(PATH))


async def test_every_setting_is_shown_with_its_origin_and_no_secret(installation: Installation) -> None:
    environ = {
        "KEYSTEAD_SERVER_URL": "https://keys.example",
        "KEYSTEAD_OIDC_ISSUER": "https://id.example",
        "KEYSTEAD_OIDC_AUDIENCE": "keystead",
        "KEYSTEAD_OIDC_CLIENT_ID": "console",
        "KEYSTEAD_OIDC_CLIENT_SECRET": "hunter4",
    }
    async with installation.node(environ=environ) as node:
        ada = await visitor(node, Scope.KEYRINGS_READ, base="https://keys.example")
        page = await ada.get(CONFIGURATION)
        assert "hunter" not in page.text
        told = text_of(page)
        assert "server.url https://keys.example environment KEYSTEAD_SERVER_URL" in told
        assert f"oidc.client_secret {MASK} environment KEYSTEAD_OIDC_CLIENT_SECRET" in told
        assert "server.port 3000 default" in told
        rows = re.findall(r"<th scope=\"row\" class=\"long\"><code>([^<]*)</code>", page.text)
        assert [html.unescape(each) for each in rows] == [each.key for each in settings_in_force(node.service.loaded)]


async def test_passwords_of_urls_are_masked(node: Node) -> None:
    settings = node.service.settings.model_copy(
        update={
            "erasures": "postgresql://log:hunter2@db/erasures?password=hunter3",
            "provider_aliases": {"https://ada:hunter4@old": "new"},
        }
    )
    loaded = type(node.service.loaded)(settings, {"erasures": "keystead.yaml"})
    found = {each.key: each for each in settings_in_force(loaded)}
    assert found["erasures"].told == f"postgresql://log:{MASK}@db/erasures?password={MASK}"
    assert found["erasures"].origin == "keystead.yaml"
    assert "hunter" not in str(list(found.values()))
