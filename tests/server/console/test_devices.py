"""Devices, problematic keys and lockouts are seen and acted on at the console, in one's own tenant."""

from __future__ import annotations

import pytest

from keystead.access.callers import Scope
from keystead.ports import DeviceRecord, SecretKind
from tests.fakes.clock import FakeClock
from tests.server.clients import ROTATE, VERIFY_PASSCODE, Node, lock, sealed
from tests.server.console.visitors import text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


async def test_devices_are_listed_by_owner_and_tenant_and_their_keys_shown(node: Node, clock: FakeClock) -> None:
    bo = await node.client("bo", Scope.DEVICES_USE)
    key = await bo.key("phone/one & two")
    await (await node.client("cy", Scope.DEVICES_USE)).key("tablet")
    await (await node.client("dee", Scope.DEVICES_USE, tenant="north")).key("watch")
    ada = await visitor(node, Scope.DEVICES_ADMIN)
    listed = await ada.get("/console/devices")
    assert '<a href="/console/devices/phone%2Fone%20%26%20two/keys">phone/one &amp; two</a>' in listed.text
    assert "watch" not in listed.text
    of_bo = await ada.get("/console/devices?owner=bo")
    assert "Devices of bo" in text_of(of_bo)
    assert "tablet" not in of_bo.text
    shown = await ada.get("/console/devices/phone%2Fone%20%26%20two/keys")
    assert key["keyId"] in shown.text
    assert "PUBLIC KEY" not in shown.text
    north = await visitor(node, Scope.DEVICES_ADMIN, tenant="north")
    assert "watch" in (await north.get("/console/devices")).text
    assert (await north.get("/console/devices/tablet/keys")).status_code == 404


async def test_a_long_list_of_devices_is_shown_by_pages(node: Node) -> None:
    store = node.service.manager.require_session().surroundings.store
    async with store.transaction() as work:
        for number in range(51):
            await work.hold_device(DeviceRecord("", f"phone-{number:02}", "bo & co", node.service.now()))
    ada = await visitor(node, Scope.DEVICES_ADMIN)
    first = await ada.get("/console/devices?owner=bo+%26+co")
    assert "phone-50" not in first.text
    following = "/console/devices?owner=bo%20%26%20co&after=phone-49"
    assert f'<p class="more"><a href="{following.replace("&after", "&amp;after")}"' in first.text
    second = await ada.get(following)
    assert "phone-50" in second.text
    assert "phone-49" not in second.text


async def test_the_older_key_pairs_of_a_device_are_behind_the_newest(
    node: Node, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.server.console.devices.KEYS", 2)
    bo = await node.client("bo", Scope.DEVICES_USE)
    made = []
    for _ in range(3):
        made.append((await bo.done(ROTATE, {"deviceId": "phone & co"}))["keyId"])
        clock.advance(1)
    ada = await visitor(node, Scope.DEVICES_ADMIN)
    newest = await ada.get("/console/devices/phone%20%26%20co/keys")
    assert [each in newest.text for each in made] == [False, True, True]
    following = f"/console/devices/phone%20%26%20co/keys?after={made[1]}"
    assert f'<p class="more"><a href="{following}">Older</a>' in newest.text
    older = await ada.get(following)
    assert [each in older.text for each in made] == [True, False, False]
    assert 'class="more"' not in older.text


async def test_a_device_is_revoked_and_released_once_its_id_was_typed(node: Node) -> None:
    await (await node.client("bo", Scope.DEVICES_USE)).key("phone")
    ada = await visitor(node, Scope.DEVICES_ADMIN)
    at = "/console/devices/phone"
    assert "It belongs to bo." in text_of(await ada.get(f"{at}/revoke"))
    assert "type phone to confirm" in text_of(await ada.does(f"{at}/revoke", {"typed": "bo"}))
    assert "active" in text_of(await ada.get(f"{at}/keys"))
    page = await ada.does(f"{at}/revoke", {"typed": "phone"})
    assert "The device phone is revoked, and its private keys are erased." in text_of(page)
    assert "erased" in text_of(await ada.get(f"{at}/keys"))
    assert f"{at}/revoke" not in (await ada.get(f"{at}/keys")).text
    page = await ada.does(f"{at}/release", {"typed": "phone"})
    assert "belongs to the next user who uses it" in text_of(page)
    assert f"{at}/release" not in page.text
    assert "nobody" in text_of(await ada.get("/console/devices"))


async def test_a_user_is_forgotten_once_the_name_was_typed(node: Node) -> None:
    bo = await node.client("bo", Scope.DEVICES_USE)
    await bo.set_passcode(await bo.key("phone"), "915046")
    ada = await visitor(node, Scope.DEVICES_ADMIN)
    at = "/console/users/bo/forget"
    assert at in (await ada.get("/console/devices?owner=bo")).text
    assert "bo's devices (1)" in text_of(await ada.get(at))
    assert "type bo to confirm" in text_of(await ada.does(at))
    told = text_of(await ada.does(at, {"typed": "bo"}))
    assert "bo is forgotten: 1 device(s), 1 key pair(s) and 1 secret(s) are removed." in told
    assert "No device." in told


async def test_keys_that_fail_too_often_are_shown_with_whose_fault_it_is(node: Node) -> None:
    ada = await visitor(node, Scope.METRICS_READ)
    assert "None: no key failed too often in the last day." in text_of(await ada.get("/console/problematic-keys"))
    bo = await node.client("bo", Scope.DEVICES_USE)
    key = await bo.key()
    for text in (*(sealed(key, "915046") for _ in range(3)), "garbage!", "garbage!"):
        await bo.done(VERIFY_PASSCODE, {"encryptedPasscode": text, "keyId": key["keyId"]})
    await node.service.devices.metrics.flush()
    page = await ada.get("/console/problematic-keys?hours=1")
    assert key["keyId"] in page.text
    assert "5 2 (40 %) Failed to decrypt data: 2 (caller)" in text_of(page)
    assert (await ada.get("/console/problematic-keys?hours=2")).status_code == 400


async def test_who_is_locked_out_is_seen_by_pages_and_released(node: Node, clock: FakeClock) -> None:
    ada = await visitor(node, Scope.SECRETS_RESET)
    assert "Nobody is locked out." in text_of(await ada.get("/console/lockouts"))
    for number in range(51):
        await lock(node, f"user {number:02}")
    await lock(node, "dee", "north", SecretKind.TRANSACTION_PIN)
    first = await ada.get("/console/lockouts")
    assert "in 1 hour" in text_of(first)
    assert "dee" not in first.text
    assert "user 50" not in first.text
    following = "/console/lockouts?after=2030-01-01T01%3A00%3A00.000000Z%2Cpasscode%2Cuser%2049"
    assert f'<p class="more"><a href="{following}"' in first.text
    assert "user 50" in (await ada.get(following)).text
    for wrong in ("?after=", "?after=yesterday,passcode,a", "?after=2030-01-01,passcode,a"):
        assert (await ada.get(f"/console/lockouts{wrong}")).status_code == 400
    at = "/console/lockouts/passcode/user%2050/release"
    preview = text_of(await ada.get(at))
    assert "It is locked after 1 wrong ones, until 2030-01-01 01:00 UTC." in preview
    assert "5 may be wrong before the next lock" in preview
    assert "The passcode of user 50 may be tried again." in text_of(await ada.does(at))
    again = await ada.get(at)
    assert again.status_code == 404
    assert "is not locked, or not any more" in text_of(again)
    assert (await ada.get("/console/lockouts/pin/dee/release")).status_code == 400
    assert (await ada.get("/console/lockouts/transaction_pin/dee/release")).status_code == 404
    north = await visitor(node, Scope.SECRETS_RESET, tenant="north")
    assert "PIN of dee may be tried again" in text_of(await north.does("/console/lockouts/transaction_pin/dee/release"))
