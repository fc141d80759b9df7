"""What the doctor finds about an audit trail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keystead.errors import StorageOperationError, StoreUnavailableError
from keystead.manager import doctor_store
from keystead.manager.audit_status import AuditStatus
from keystead.manager.doctor_audit import trail_findings
from keystead.manager.findings import DoctorReport, Finding, Health
from tests.fakes.world import World

WELL = AuditStatus(
    is_on=True,
    is_marked=True,
    stream="keystead/audit/x",
    records=41,
    sealed_by="a1",
    is_sealing=True,
    checkpoint_records=40,
    checkpoint_age_s=30.2,
    exported_records=40,
    exported_age_s=3_600.0,
)
LATE = replace(WELL, waiting=1, oldest_waiting_s=7_200.0)


def found(status: AuditStatus, nodes: int = 1) -> dict[str, Finding]:
    findings = trail_findings(status, nodes)
    assert {each.about for each in findings} == {"audit trail"}
    assert all((each.cure is None) is (each.status is Health.OK) for each in findings)
    return {each.check: each for each in findings}


def of_trail(report: DoctorReport) -> dict[str, Finding]:
    return {each.check: each for each in report.findings if each.about == "audit trail"}


def test_a_trail_that_is_well_says_how_far_it_has_come() -> None:
    assert {check: (each.status, each.detail) for check, each in found(WELL).items()} == {
        "kept": (Health.OK, "keystead/audit/x"),
        "sealed": (Health.OK, "41 records"),
        "waiting": (Health.OK, "nothing"),
        "sequencer": (Health.OK, "process a1"),
        "checkpoint": (Health.OK, "one over 40 records, 30s ago"),
        "exported": (Health.OK, "one over 40 records, 1h ago"),
        "rejected": (Health.OK, "no entry"),
    }


def test_a_store_without_a_trail_is_well_and_is_told_how_to_begin_one() -> None:
    [kept] = found(AuditStatus(is_on=False)).values()
    assert (kept.status, kept.detail) == (Health.OK, "there is none; `keystead audit begin` begins one")


def test_a_trail_that_was_ended_is_said_to_be() -> None:
    kept = found(replace(WELL, is_on=False, is_marked=False))["kept"]
    assert (kept.status, kept.detail) == (Health.OK, "keystead/audit/x, ended")


def test_a_mark_that_is_gone_is_a_warning() -> None:
    kept = found(replace(WELL, is_marked=False))["kept"]
    assert kept.status is Health.WARN
    assert "was not ended" in kept.detail


def test_a_state_that_cannot_be_read_is_a_failure() -> None:
    assert found(replace(WELL, stream=None))["kept"].status is Health.FAIL


def test_what_has_waited_for_seconds_is_no_fault() -> None:
    checks = found(replace(WELL, waiting=4, oldest_waiting_s=3.0, is_sealing=False))
    assert checks["waiting"].detail == "4 entries, the oldest for 3s"
    assert {checks[name].status for name in ("waiting", "sequencer")} == {Health.OK}


@pytest.mark.parametrize(
    ("status", "nodes", "told", "cure"),
    [
        (LATE, 2, "process a1 has it in hand, and does not seal", "that process"),
        (replace(LATE, is_sealing=False), 1, "none of 1 running process seals", "a KMS or a database"),
        (replace(LATE, is_sealing=False), 2, "none of 2 running processes seals", "a KMS or a database"),
        (replace(LATE, is_sealing=False), 0, "none: no process is running", "keystead maintain"),
    ],
)
def test_what_waits_for_long_is_a_warning_that_says_who_does_not_seal(
    status: AuditStatus, nodes: int, told: str, cure: str
) -> None:
    checks = found(status, nodes)
    assert (checks["waiting"].status, checks["sequencer"].status) == (Health.WARN, Health.WARN)
    assert checks["waiting"].detail == "1 entry, the oldest for 2h"
    assert checks["sequencer"].detail == told
    assert cure in (checks["sequencer"].cure or "")


def test_a_trail_without_a_checkpoint_or_one_elsewhere_is_a_warning() -> None:
    checks = found(replace(WELL, checkpoint_age_s=None, exported_age_s=None))
    assert (checks["checkpoint"].status, checks["exported"].status) == (Health.WARN, Health.WARN)
    assert "audit.checkpoint_file" in (checks["exported"].cure or "")


def test_entries_that_were_not_authentic_are_a_warning() -> None:
    one, three = found(replace(WELL, rejected=1))["rejected"], found(replace(WELL, rejected=3))["rejected"]
    assert (one.status, one.detail) == (Health.WARN, "1 entry was not authentic")
    assert three.detail == "3 entries were not authentic"


def test_what_a_sequencer_has_found_is_a_warning() -> None:
    told = found(replace(WELL, found="rolled_back", found_in=7))["found"]
    assert (told.status, told.detail) == (Health.WARN, "rolled_back, in record 7")


async def test_a_doctor_looks_at_the_trail_of_the_store(world: World) -> None:
    async with world.open() as km:
        assert of_trail(await km.doctor())["kept"].detail.startswith("there is none")
    async with world.open(audit=True) as km:
        await km.audit.checkpoint()
        checks = of_trail(await km.doctor())
        assert checks["kept"].detail.startswith("keystead/audit/")
        assert checks["exported"].status is Health.WARN


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StorageOperationError("no right on a table")])
async def test_a_trail_that_cannot_be_looked_at_is_a_finding(
    world: World, monkeypatch: pytest.MonkeyPatch, error: StorageOperationError
) -> None:
    async def fail(*given: Any, **named: Any) -> AuditStatus:
        raise error

    monkeypatch.setattr(doctor_store, "status_of", fail)
    async with world.open() as km:
        [kept] = of_trail(await km.doctor()).values()
    assert (kept.status, kept.detail) == (Health.FAIL, str(error))
