"""What was done to keys and secrets stands in the audit trail, and nobody with the database changes it unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.places import Place, an_empty_place, options, seal
from tests.devices.room import ADA, PIN, Client, devices

ACTIONS = {
    "client_key.create",
    "client_key.rotate",
    "secret.set",
    "secret.attempt",
    "secret.verify",
    "device.revoke",
    "user.forget",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store with its schema."""
    return an_empty_place(request, tmp_path)


async def written(place: Place) -> None:
    """Do everything to a user's devices and secrets, and seal what is told of it."""
    async with place.open(audit=options()) as km:
        room = await devices(km)
        ada = await Client.of(room)
        await ada.set("915046", PIN)
        assert [await ada.is_right(pin, PIN) for pin in ("915047", "915046")] == [False, True]
        await room.keys.rotate(ADA, "phone")
        await room.owners.revoke(ADA, "phone")
        await room.owners.forget(ADA, "ada")
        await seal(km)


async def test_no_entry_about_a_secret_or_a_device_is_changed_or_removed_unseen(place: Place) -> None:
    await written(place)
    numbers = dict(place.execute("SELECT action, max(seq) FROM audit_log GROUP BY action"))
    assert set(numbers) >= ACTIONS
    place.tamper()
    async with place.open(audit=None) as km:
        assert (await km.audit.verify()).valid
        for action in sorted(ACTIONS):
            line = bytes(place.execute("SELECT line FROM audit_log WHERE seq = ?", numbers[action])[0][0])
            assert b"ada" in line
            for written_over, is_valid in ((line.replace(b"ada", b"eve"), False), (line, True)):
                place.execute("UPDATE audit_log SET line = ? WHERE seq = ?", written_over, numbers[action])
                assert (await km.audit.verify()).valid is is_valid, action
        place.execute("DELETE FROM audit_log WHERE seq = ?", numbers["secret.set"])
        assert not (await km.audit.verify()).valid
