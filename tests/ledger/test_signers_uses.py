"""Signers over a KMS: what is told of them, and their end."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest

from keystead.errors import (
    InvalidInputError,
    ProviderAuthError,
    SystemShutdownError,
)
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.ports import AuditEvent
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.signer_keys import (
    MESSAGE,
    Alone,
    each_key,
    each_native_key,
    signer,
    with_keys,
)


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return with_keys(FakeKMS(keys=[], clock=clock))


@pytest.mark.parametrize(
    "settings", [{"ttl_s": -5}, {"grace_s": -1}, {"concurrency": 0}, {"batch": "some"}, {"ttl_s": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        SignerSettings(**settings)


async def test_each_use_of_a_key_is_audited_and_no_message_is(kms: FakeKMS, clock: FakeClock) -> None:
    events: list[AuditEvent] = []
    one = signer(kms, audit=events.append)
    for _ in range(50):
        await one.sign(MESSAGE)
        await one.get_key()
    await signer(kms, audit=events.append).verify(MESSAGE, await one.sign(MESSAGE))
    clock.advance(300)
    await one.sign(MESSAGE)
    await kms.rotate_key("aes")
    await one.rotate_check()
    assert [(event.action, event.details["version"], event.details["outcome"]) for event in events] == [
        ("key.draw", "1", "ok"),
        ("key.get", "1", "ok"),
        ("key.unwrap", "1", "ok"),
        ("key.refresh", "1", "ok"),
        ("key.rotate", "2", "ok"),
        ("key.draw", "2", "ok"),
    ]


@each_native_key
async def test_each_signature_of_the_kms_is_audited_and_a_batch_once(kms: FakeKMS, key_id: str) -> None:
    events: list[AuditEvent] = []
    one = signer(Alone(kms), key_id, audit=events.append)
    await one.sign(MESSAGE)
    await one.sign_batch([b"a", b"b", b"c"])
    assert [(event.action, event.details.get("count")) for event in events] == [("key.sign", None), ("key.sign", "3")]


async def test_a_refusal_is_audited_with_its_code(kms: FakeKMS) -> None:
    events: list[AuditEvent] = []
    one = signer(kms, audit=events.append)
    kms.fail_next(1, ProviderAuthError("denied"), operation="generate_data_key")
    with pytest.raises(ProviderAuthError):
        await one.sign(MESSAGE)
    assert [(event.action, event.details["outcome"]) for event in events] == [("key.draw", "provider_auth")]


async def test_an_audit_that_fails_lets_no_key_out(kms: FakeKMS) -> None:
    def full(event: AuditEvent) -> None:
        raise OSError("the audit is full")

    one = signer(kms, audit=full)
    for call in (one.get_key(), one.sign(MESSAGE)):
        with pytest.raises(OSError, match="the audit is full"):
            await call


async def test_uses_are_logged_with_fields(kms: FakeKMS, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="keystead.ledger"):
        await signer(kms).sign(MESSAGE)
    record: Any = caplog.records[-1]
    assert (record.getMessage(), record.key_id, record.key_version, record.outcome) == (
        "key used: key.draw",
        "aes",
        "1",
        "ok",
    )


@each_key
async def test_after_close_nothing_works_and_the_keys_are_gone(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    signature = await one.sign(MESSAGE)
    await one.verify(MESSAGE, await signer(kms, key_id).sign(MESSAGE))
    held = [each.known for each in (*one._sessions._current.values(), *one._sessions._opened.values())]
    buffers = [buffer for session in held if session for buffer in (session.key._key, session.signing._key)]
    await one.aclose()
    await one.aclose()
    assert set(map(bytes, buffers)) <= {bytes(32)}
    for call in (one.sign(MESSAGE), one.verify(MESSAGE, signature), one.rotate_check(), one.current_key_id()):
        with pytest.raises(SystemShutdownError):
            await call


async def test_closing_closes_the_provider_unless_it_is_somebody_elses(kms: FakeKMS) -> None:
    async with signer(kms):
        pass
    await KmsSigner(kms, "aes", owns_provider=False).aclose()
    assert kms.calls["aclose"] == 1


@pytest.mark.parametrize("key_id", ["", None, 7])
def test_a_signer_needs_a_key(kms: FakeKMS, key_id: Any) -> None:
    with pytest.raises(InvalidInputError):
        KmsSigner(kms, key_id)


async def test_text_is_not_signed(kms: FakeKMS) -> None:
    with pytest.raises(InvalidInputError, match="encode"):
        await signer(kms).sign("text")  # type: ignore[arg-type]


def test_a_signer_works_in_one_event_loop_after_the_other(kms: FakeKMS, clock: FakeClock) -> None:
    one = signer(kms)
    signature = asyncio.run(one.sign(MESSAGE))
    clock.advance(250)
    asyncio.run(one.verify(MESSAGE, signature))
    assert asyncio.run(one.sign(MESSAGE)) == signature


def test_importing_signers_loads_no_sdk_and_no_cryptography() -> None:
    script = (
        "import sys, keystead.ledger.signers.signer, keystead.ledger.signers.material\n"
        "loaded = {'boto3', 'hvac', 'google.cloud', 'azure', 'pydantic', 'sqlalchemy', 'cryptography'}\n"
        "sys.exit(' '.join(loaded & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
