"""Processes that die, and processes that fork: nothing that was committed is lost, and nothing is there twice."""

from __future__ import annotations

import subprocess
import sys

from tests.audit.places import Place, checked, options, seal
from tests.cli.conftest import environment


def start(name: str, place: Place) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.audit.programs", name, place.url]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, bufsize=0)


async def test_a_killed_process_that_sealed_is_replaced_and_nothing_it_committed_is_lost(place: Place) -> None:
    process = start("write", place)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(30)]
    # So far it has sealed as well, and is in the middle of it.
    process.kill()
    rest, _ = process.communicate(timeout=60)
    written = [int(line) for line in [*said, *rest.splitlines()] if line.strip()]
    place.execute("UPDATE leases SET until_ms = 0 WHERE name = 'keystead.audit'")
    async with place.open(audit=options()) as km:
        await seal(km)
        found = [record.details["number"] for record in await km.audit.entries(action="order.paid", limit=100_000)]
        assert set(written) <= set(found)
        assert len(found) == len(set(found))
        assert len(found) - len(written) <= 1
        report = await km.audit.verify(compares_store=True)
    assert (report.valid, report.differences) == (True, [])


async def test_a_child_of_a_fork_writes_in_a_session_of_its_own(place: Place) -> None:
    process = start("fork", place)
    process.communicate(timeout=120)
    assert process.returncode == 0
    async with place.open(audit=options()) as km:
        await seal(km)
        records = await km.audit.entries(action="order.paid")
        assert {record.details["number"]: len(record.node or "") > 0 for record in records} == dict.fromkeys(
            (1, 2, 3, 4), True
        )
        nodes = {record.details["number"]: record.node for record in records}
        assert nodes[1] == nodes[2] == nodes[4] != nodes[3]
    assert (await checked(place)).valid
