"""Several nodes of a service over one store: what is done from time to time is done by one of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from keystead.devices.surroundings import DevicePolicy
from keystead.devices.upkeep import UpkeepReport
from keystead.jobs.runner import JobReport
from keystead.manager.devices import maintain
from keystead.manager.manager import KeyManager
from keystead.server import service
from tests.fakes.clock import FakeClock
from tests.server.clients import Client, Installation

JOB = "keystead.client_keys"


async def test_of_two_nodes_one_does_the_upkeep_and_a_clock_that_jumps_has_it_done_once(
    installation: Installation, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, reports = asyncio.Event(), asyncio.Event(), list[UpkeepReport]()

    async def slowly(km: KeyManager, policy: DevicePolicy) -> UpkeepReport:
        begun.set()
        await go_on.wait()
        reports.append(await maintain(km, policy))
        return reports[-1]

    async with installation.node() as node, installation.node() as other:
        sessions = [await each.service.manager.session() for each in (node, other)]
        for session in sessions:
            await session.run_due()
        token = await node.token("ada")
        await Client(node.app, token).key()
        monkeypatch.setattr(service, "maintain", slowly)
        # The wall time alone jumps: nothing is due by it, and what has expired has.
        clock.set(clock.now() + timedelta(days=31))
        assert [await session.jobs.run_due() for session in sessions] == [[], []]
        running = asyncio.create_task(sessions[0].jobs.run_now(JOB))
        await begun.wait()
        assert await sessions[1].jobs.run_now(JOB) == JobReport(JOB, "held")
        go_on.set()
        assert await running == JobReport(JOB, "done")
        assert await sessions[1].jobs.run_now(JOB) == JobReport(JOB, "done")
        assert [(report.deprecated, report.erased) for report in reports] == [(1, 1), (0, 0)]
        clock.set(clock.now() - timedelta(days=31))
        assert await sessions[1].jobs.run_now(JOB) == JobReport(JOB, "done")
        assert reports[-1] == UpkeepReport()
