"""When a log is told that another session is due: the KMS key has another version, or its name leads to another key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keystead.ledger.format.session_source import KmsSessions
from keystead.model import KeyDescription
from keystead.testing import FakeKMS

STREAM = "example.org/app"


def drawn(provider: Any, key_id: str = "audit") -> KmsSessions:
    sessions = KmsSessions(provider, key_id)
    sessions.draw(STREAM, epoch_s=900, start_ms=1)
    return sessions


def test_a_version_that_is_newer_is_noticed_once() -> None:
    kms = FakeKMS()
    sessions = drawn(kms.provider())
    assert not sessions.has_rotated()
    kms.rotate("audit")
    assert sessions.has_rotated()
    sessions.draw(STREAM, epoch_s=900, start_ms=1)
    assert not sessions.has_rotated()


def test_an_alias_that_was_moved_is_noticed() -> None:
    kms = FakeKMS()
    for name in ("one", "two"):
        kms.create_key(name)
    kms.add_alias("alias/audit", "one")
    sessions = drawn(kms.provider(), "alias/audit")
    assert not sessions.has_rotated()
    kms.add_alias("alias/audit", "two")
    assert sessions.has_rotated()
    sessions.draw(STREAM, epoch_s=900, start_ms=1)
    assert not sessions.has_rotated()


class Quiet:
    """A client whose answers do not say which version wrapped, as some services' do not."""

    provider_name = "fake"

    def __init__(self, kms: FakeKMS, *, describes_as: str | None = None) -> None:
        self._inner = kms.provider()
        self._describes_as = describes_as

    async def encrypt(self, *given: Any, **named: Any) -> Any:
        sealed = await self._inner.encrypt(*given, **named)
        return replace(sealed, key_reference=replace(sealed.key_reference, key_version=None))

    async def decrypt(self, *given: Any, **named: Any) -> bytes:
        return await self._inner.decrypt(*given, **named)

    async def describe(self, key_id: str) -> KeyDescription:
        found = await self._inner.describe(key_id)
        as_id = self._describes_as or found.key_reference.key_id
        return replace(found, key_reference=replace(found.key_reference, key_id=as_id))


def test_where_no_answer_says_which_version_wrapped_the_one_described_first_counts() -> None:
    kms = FakeKMS()
    sessions = drawn(Quiet(kms))
    assert not sessions.has_rotated()
    kms.rotate("audit")
    assert sessions.has_rotated()


def test_a_service_that_describes_a_key_by_another_id_costs_one_session_and_no_more() -> None:
    sessions = drawn(Quiet(FakeKMS(), describes_as="another spelling"))
    assert sessions.has_rotated()
    sessions.draw(STREAM, epoch_s=900, start_ms=1)
    assert not sessions.has_rotated()


def test_who_may_not_describe_the_key_goes_on_with_the_session() -> None:
    kms = FakeKMS()
    sessions = drawn(kms.provider())
    kms.deny("describe")
    assert not sessions.has_rotated()
