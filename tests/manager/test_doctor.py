"""What the doctor finds about providers, with every fault the fake KMS can have, and that it changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    MissingDependencyError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.manager.doctor import Patient, examine
from keystead.manager.doctor_kms import KmsUnderTest
from keystead.manager.findings import DoctorReport, Finding, Health
from keystead.model import EncryptedData, KeyPurpose, RotationPolicy
from keystead.ports import KmsProvider
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.runtime.clock import SystemClock
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import World
from tests.providers.stubs import Bare


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return FakeKMS(clock=clock, keys=["kek"])


async def examined(
    provider: KmsProvider, key_id: str | None = "kek", *, deadline_s: float = 15.0, **more: Any
) -> DoctorReport:
    """Examine one provider, called ``cloud``."""
    clock = more.pop("clock", FakeClock())
    under_test = KmsUnderTest(name="cloud", provider=provider, key_id=key_id, **more)
    return await examine(Patient(clock=clock, random=bytes, providers=[under_test]), deadline_s=deadline_s)


def told(report: DoctorReport, check: str, about: str = "provider cloud") -> Finding:
    [finding] = [each for each in report.findings if (each.about, each.check) == (about, check)]
    return finding


def statuses(report: DoctorReport, about: str = "provider cloud") -> dict[str, Health]:
    return {each.check: each.status for each in report.findings if each.about == about}


async def test_a_healthy_provider_is_well_in_everything(kms: FakeKMS) -> None:
    report = await examined(kms)
    assert report.is_well
    assert statuses(report) == dict.fromkeys(
        [
            "sdk",
            "reachable",
            "credentials",
            "key",
            "encrypt",
            "decrypt",
            "context",
            "data keys",
            "rewrap",
            "permissions",
            "rotation",
            "clock",
        ],
        Health.OK,
    )
    assert told(report, "key").detail == "kek, encrypt_decrypt, enabled, version 1"


async def test_it_never_rotates(kms: FakeKMS) -> None:
    await examined(kms)
    assert kms.calls["rotate_key"] == 0


FAULTS: list[tuple[str, Callable[[FakeKMS], object], str, str]] = [
    ("denied", lambda kms: kms.deny(), "credentials", "credentials that the service takes"),
    ("unreachable", lambda kms: kms.fail_always(), "reachable", "network"),
    ("throttled", lambda kms: kms.throttle(0), "reachable", "busy recovers by itself"),
    ("disabled", lambda kms: kms.disable(), "key", "enable the key"),
    ("destroyed", lambda kms: kms.destroy("kek"), "key", "enable the key"),
    ("no sdk", lambda kms: kms.fail_always(MissingDependencyError("pip install it")), "sdk", "the extra"),
    ("misconfigured", lambda kms: kms.fail_always(ConfigurationError("no region")), "configuration", "the setting"),
    ("no encrypt", lambda kms: kms.deny("encrypt"), "encrypt", "permissions on this key"),
    ("no decrypt", lambda kms: kms.deny("decrypt"), "decrypt", "permissions on this key"),
    ("no data keys", lambda kms: kms.deny("generate_data_key"), "data keys", "permissions on this key"),
    ("no rewrap", lambda kms: kms.deny("rewrap"), "rewrap", "permissions on this key"),
    ("ahead", lambda kms: setattr(kms, "clock_skew_s", 301.0), "clock", "NTP"),
    ("behind", lambda kms: setattr(kms, "clock_skew_s", -301.0), "clock", "NTP"),
]


@pytest.mark.parametrize(("fault", "check", "cure"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_each_fault_is_found_with_its_cure(
    kms: FakeKMS, fault: Callable[[FakeKMS], object], check: str, cure: str
) -> None:
    fault(kms)
    report = await examined(kms)
    assert not report.is_well
    finding = told(report, check)
    assert finding.status is Health.FAIL
    assert cure in (finding.cure or "")


async def test_a_missing_key_is_found_and_nothing_is_tried_with_it(kms: FakeKMS) -> None:
    report = await examined(kms, "absent")
    assert told(report, "key").status is Health.FAIL
    assert told(report, "reachable").status is Health.OK
    assert statuses(report)["encrypt"] is Health.SKIPPED
    assert kms.calls["encrypt"] == 0


async def test_who_may_not_describe_may_still_use_the_key(kms: FakeKMS) -> None:
    kms.deny("describe")
    report = await examined(kms)
    assert report.is_well
    assert told(report, "describe").status is Health.WARN
    assert told(report, "credentials").status is Health.OK
    assert told(report, "decrypt").status is Health.OK


@pytest.mark.parametrize(
    ("denied", "status", "detail"),
    [
        (("generate_data_key", "rewrap"), Health.WARN, "denied: generate_data_key, rewrap"),
        (("encrypt", "rewrap"), Health.FAIL, "denied: encrypt, rewrap"),
        (("rotate_key",), Health.OK, "nothing that is needed is denied"),
    ],
)
async def test_permissions_are_told_before_somebody_needs_them(
    kms: FakeKMS, denied: tuple[str, ...], status: Health, detail: str
) -> None:
    kms.deny(*denied)
    finding = told(await examined(kms), "permissions")
    assert (finding.status, finding.detail) == (status, detail)


async def test_permissions_are_asked_for_the_context_that_everything_else_is_tried_under(kms: FakeKMS) -> None:
    contexts: dict[str, Any] = {}

    class Noting(Bare):
        async def encrypt(
            self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
        ) -> EncryptedData:
            contexts["encrypt"] = context
            return await super().encrypt(plaintext, key_id, context=context)

        async def check_permissions(
            self, key_id: str, *, context: Mapping[str, str] | None = None
        ) -> Mapping[str, bool]:
            contexts["check_permissions"] = context
            return {}

    await examined(Noting(kms))
    assert contexts["check_permissions"] == contexts["encrypt"] == {"purpose": "keystead doctor"}


async def test_a_question_that_is_denied_is_no_fault(kms: FakeKMS) -> None:
    kms.deny("check_permissions", "get_rotation_policy")
    report = await examined(kms)
    assert report.is_well
    assert told(report, "permissions").status is told(report, "rotation").status is Health.SKIPPED


@pytest.mark.parametrize(("skew_s", "status"), [(60, Health.OK), (-61, Health.WARN), (300, Health.WARN)])
async def test_a_clock_that_is_a_little_wrong_is_a_warning(kms: FakeKMS, skew_s: float, status: Health) -> None:
    kms.clock_skew_s = skew_s
    assert told(await examined(kms), "clock").status is status


async def test_a_clock_that_cannot_be_asked_is_a_warning(kms: FakeKMS) -> None:
    kms.deny("service_time")
    assert told(await examined(kms), "clock").status is Health.WARN


async def test_a_service_that_swallows_every_call_ends_at_the_deadline(kms: FakeKMS) -> None:
    kms.clock = SystemClock()
    kms.delay_s = 3600.0
    report = await asyncio.wait_for(examined(kms, deadline_s=0.9), 60.0)
    assert told(report, "reachable").status is Health.FAIL
    assert kms.calls.total() == 2


async def test_a_service_that_is_slow_all_the_time_ends_at_the_deadline_too(kms: FakeKMS) -> None:
    kms.clock = SystemClock()
    kms.delay_s = 0.4
    report = await asyncio.wait_for(examined(kms, deadline_s=1.5), 60.0)
    assert "--timeout" in (told(report, "time").cure or "")
    assert told(report, "key").status is Health.OK


class AnyContext(Bare):
    """A provider that does not look at the context."""

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        return await super().encrypt(plaintext, key_id)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        return await super().decrypt(encrypted, context={})


async def test_a_provider_that_takes_any_context_is_unfit(kms: FakeKMS) -> None:
    report = await examined(AnyContext(kms))
    finding = told(report, "context")
    assert (finding.status, report.is_well) == (Health.FAIL, False)
    assert "exchanged unnoticed" in (finding.cure or "")


async def test_a_provider_that_gives_something_else_back_is_unfit(kms: FakeKMS) -> None:
    class Wrong(Bare):
        async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
            await super().decrypt(encrypted, context=context)
            return b"something else"

    assert told(await examined(Wrong(kms)), "decrypt").status is Health.FAIL


async def test_a_context_that_cannot_be_tried_is_no_finding_against_it(kms: FakeKMS) -> None:
    kms.fail_next(1, ProviderConnectionError("busy"), operation="nothing")

    class Busy(Bare):
        calls = 0

        async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
            Busy.calls += 1
            if Busy.calls == 2:
                raise ProviderConnectionError("busy")
            return await super().decrypt(encrypted, context=context)

    assert told(await examined(Busy(kms)), "context").status is Health.SKIPPED


async def test_a_provider_with_nothing_but_two_methods_is_examined_as_far_as_it_goes(kms: FakeKMS) -> None:
    report = await examined(Bare(kms))
    assert report.is_well
    assert statuses(report) == {
        "sdk": Health.OK,
        "key": Health.SKIPPED,
        "reachable": Health.OK,
        "credentials": Health.OK,
        "encrypt": Health.OK,
        "decrypt": Health.OK,
        "context": Health.OK,
    }
    kms.fail_always()
    assert told(await examined(Bare(kms)), "reachable").status is Health.FAIL


async def test_without_a_key_id_the_provider_itself_is_looked_at(kms: FakeKMS) -> None:
    report = await examined(kms, None)
    assert statuses(report) == {"sdk": Health.OK, "key": Health.SKIPPED, "clock": Health.OK}


async def test_a_signing_key_wraps_nothing(kms: FakeKMS) -> None:
    kms.create_key("signer", purpose=KeyPurpose.SIGN_VERIFY)
    report = await examined(kms, "signer")
    assert told(report, "key").status is Health.FAIL
    assert told(report, "sign").status is Health.OK


@pytest.mark.parametrize(
    ("purpose", "check", "operation"), [(KeyPurpose.MAC, "mac", "verify_mac"), (KeyPurpose.SIGN_VERIFY, "sign", "sign")]
)
async def test_a_key_for_something_else_is_tried_for_what_it_is(
    kms: FakeKMS, purpose: KeyPurpose, check: str, operation: str
) -> None:
    kms.create_key("other", purpose=purpose)
    assert statuses(await examined(kms, "other", is_kek=False))[check] is Health.OK
    kms.deny(operation)
    report = await examined(kms, "other", is_kek=False)
    assert statuses(report)[check] is statuses(report)["permissions"] is Health.FAIL


async def test_a_rotation_that_is_overdue_is_a_warning(kms: FakeKMS, clock: FakeClock) -> None:
    policies = [
        (RotationPolicy(next_rotation=clock.now() - timedelta(days=1)), Health.WARN, "was due on 2029-12-31"),
        (RotationPolicy(rotation_period_days=30), Health.OK, "every 30 days"),
        (RotationPolicy(enabled=False), Health.OK, "on request only"),
    ]
    for policy, status, detail in policies:

        async def answer(key_id: str, *, policy: RotationPolicy = policy) -> RotationPolicy:
            return policy

        client = kms.provider()
        client.get_rotation_policy = answer  # type: ignore[method-assign]
        finding = told(await examined(client), "rotation")
        assert finding.status is status
        assert detail in finding.detail


async def test_a_kek_that_can_be_copied_is_a_warning_in_production(tmp_path: Path) -> None:
    create_kek_file(tmp_path / "kek")
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "kek"))
    assert told(await examined(provider, "default"), "extractable").status is Health.OK
    report = await examined(provider, "default", is_production=True)
    assert (told(report, "extractable").status, report.is_well) == (Health.WARN, True)


async def test_a_key_that_does_not_leave_is_told_so(kms: FakeKMS) -> None:
    class Kept(Bare):
        async def is_extractable(self, key_id: str) -> bool:
            return False

    assert "does not leave" in told(await examined(Kept(kms)), "extractable").detail


async def test_a_missing_kek_file_is_found_and_not_made(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "kek", create=True))
    report = await examined(provider, "default")
    assert told(report, "key").status is Health.FAIL
    assert list(tmp_path.iterdir()) == []


async def test_several_providers_are_examined_at_the_same_time(kms: FakeKMS) -> None:
    together = asyncio.Barrier(2)

    class Meeting(Bare):
        async def encrypt(self, plaintext: bytes, key_id: str, **more: Any) -> EncryptedData:
            await together.wait()
            return await super().encrypt(plaintext, key_id, **more)

    both = [KmsUnderTest(name=name, provider=Meeting(kms), key_id="kek") for name in ("one", "two")]
    report = await examine(Patient(clock=FakeClock(), random=bytes, providers=both), deadline_s=5.0)
    assert report.is_well


async def test_each_member_of_a_set_is_examined_by_itself(kms: FakeKMS, clock: FakeClock) -> None:
    down = FakeKMS(keys=["kek"], clock=clock)
    down.deny()
    members = MultiKMSProvider({"up": kms, "down": down}, policy="any", key_ids={"up": "kek", "down": "kek"})
    report = await examined(members, "default")
    assert not report.is_well
    assert told(report, "wraps").detail == "wrapped without down"
    assert told(report, "describe").status is told(report, "wraps").status is Health.WARN
    assert told(report, "decrypt").status is Health.OK
    assert told(report, "rewrap").status is Health.SKIPPED
    assert set(statuses(report, "provider cloud/up").values()) == {Health.OK}
    assert told(report, "credentials", "provider cloud/down").status is Health.FAIL
    down.heal()
    assert (await examined(members, "default")).is_well


async def test_a_member_without_a_key_id_is_named(kms: FakeKMS) -> None:
    report = await examined(MultiKMSProvider({"a": kms}), "default")
    assert told(report, "configuration").status is Health.FAIL
    assert told(report, "key", "provider cloud/a").status is Health.SKIPPED


async def test_the_manager_examines_itself_before_and_after_its_start(world: World) -> None:
    km = world.manager()
    assert (await km.doctor()).is_well
    await km.initialize()
    report = await km.doctor()
    assert report.is_well
    assert {finding.about for finding in report.findings} == {"provider cloud", "store", "audit trail"}
    await km.close()
    with pytest.raises(SystemShutdownError):
        await km.doctor()


async def test_an_examination_needs_some_time(world: World) -> None:
    with pytest.raises(ConfigurationError, match="more than no time"):
        await world.manager().doctor(deadline_s=0)


async def test_a_manager_without_a_store_has_none_to_be_examined(kms: FakeKMS) -> None:
    from keystead import KeyManager

    km = KeyManager({"cloud": kms, "other": Bare(kms)}, "cloud", "kek")
    report = await km.doctor()
    assert told(report, "key", "provider other").status is Health.SKIPPED
    assert {finding.about for finding in report.findings} == {"provider cloud", "provider other"}
    await km.close()
