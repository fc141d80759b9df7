"""What entries are searched by: whatever an authentic entry says, it is sealed, and keeps no other out."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from keystead.ledger.audit.entries import MAX_KEY_ID, Entry
from keystead.ledger.audit.trail import Told, Trail
from keystead.ports import AuditEvent
from tests.audit.places import Place, auditing_of, options, seal
from tests.fakes.clock import FakeClock

STRANGE: list[dict[str, str]] = [
    {"key_id": str(MAX_KEY_ID + 1)},
    {"key_id": "9" * 19},
    {"key_id": "9" * 400},
    {"keyring": "a\0b"},
    {"keyring": "\ud800"},
    {"keyring": "x" * 300},
    {"action": "order.\0"},
    {"action": "order." + "x" * 300},
    {"time": "2030-01-01\ud80000:00:00.000000+00:00"},
    {"time": "2030-01-01\x0000:00:00.000000+00:00"},
]


def forge(place: Place, trail: Trail, changed: Mapping[str, str], content: bytes | None = None) -> None:
    """Write an entry as somebody does who has the session's key: of other bytes, or with some members changed."""
    [row], written = trail.draw_rows([Told(AuditEvent("order.strange"), None)])
    trail.settle(written, is_committed=True)
    # Escaped, for what UTF-8 has no bytes for.
    entry = content or json.dumps({**Entry.parse(row.entry).members, **changed}).encode()
    code = written.session.make_code(entry)
    place.insert(row.id, row.session, entry, code)


@pytest.mark.parametrize("strange", STRANGE, ids=ascii)
async def test_an_entry_that_no_column_can_hold_is_sealed_without_it(
    place: Place, clock: FakeClock, strange: dict[str, str]
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await seal(km)
        forge(place, auditing_of(km).trail, strange)
        await km.audit.record("order.fine")
        await seal(km)
        assert place.waiting() == 0
        assert len(await km.audit.entries(action="order.fine")) == 1
        assert (await km.audit.verify()).valid


@pytest.mark.parametrize(
    "content",
    [b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[]", b"{", b"\xff"],
    ids=["deep", "list", "open", "bytes"],
)
async def test_what_is_no_entry_is_rejected_and_keeps_no_other_out(sqlite_place: Place, content: bytes) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await seal(km)
        forge(sqlite_place, auditing_of(km).trail, {}, content)
        await km.audit.record("order.fine")
        await seal(km)
        assert [each.rejected for each in await km.audit.entries() if each.rejected] == ["malformed"]
        assert len(await km.audit.entries(action="order.fine")) == 1
