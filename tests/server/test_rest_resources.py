"""Tokens, devices, users, jobs and re-encryptions, by REST."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keystead.fields import Field, ReencryptPlan, VersionRows
from keystead.fields.plan_text import plan_text
from keystead.jobs.runner import Job
from keystead.ports import ReencryptionRecord, SecretKind, WishState
from tests.fakes.clock import FakeClock
from tests.server.clients import GENERATE, ROTATE, Client, Node
from tests.server.rest import Administrator, administrator


@pytest.fixture
async def root(node: Node) -> Administrator:
    """Who may do everything."""
    return await administrator(node)


async def test_a_token_is_shown_once_and_lets_in_until_it_is_revoked(
    node: Node, root: Administrator, clock: FakeClock
) -> None:
    given = {"user": "bob", "tenant": "north", "scopes": ["devices:use"], "label": "a phone", "expiresInSeconds": 60}
    answer = await root.send("POST", "/v1/tokens", given)
    assert answer.status_code == 201
    made = answer.json()
    text = made.pop("token")
    assert text.startswith("kst1_")
    assert made == await root.get(answer.headers["location"])
    assert (made["user"], made["tenant"], made["scopes"], made["label"]) == ("bob", "north", ["devices:use"], "a phone")
    assert made["expiresAt"] == "2030-01-01T00:01:00Z"
    assert text not in (await root.send("GET", "/v1/tokens")).text
    bob = Client(node.app, text)
    await bob.key("phone")
    revoked = await root.post(f"/v1/tokens/{made['id']}/revoke")
    assert revoked["revokedAt"] is not None
    clock.advance(5)
    assert await root.post(f"/v1/tokens/{made['id']}/revoke") == revoked
    assert (await bob.ask(GENERATE, {"input": {"deviceId": "phone"}}))["errors"][0]["extensions"] == {
        "code": "UNAUTHENTICATED"
    }


async def test_a_token_that_cannot_be_is_refused(root: Administrator) -> None:
    before = await root.get("/v1/tokens")
    good: dict[str, object] = {"user": "a", "scopes": ["devices:use"]}
    wrong: list[dict[str, object]] = [
        {},
        {"user": "a"},
        {**good, "scopes": []},
        {**good, "scopes": ["everything"]},
        {**good, "user": ""},
        {**good, "user": " "},
        {**good, "user": "a\x00"},
        {**good, "user": "x" * 256},
        {**good, "tenant": "\u202e"},
        {**good, "label": "\n"},
        {**good, "label": "x" * 256},
        {**good, "expiresInSeconds": 0},
        {**good, "expiresInSeconds": "60"},
        {**good, "expiresInSeconds": 10**12},
        {**good, "expires_in_seconds": 60},
        {**good, "id": "0123456789abcdef"},
    ]
    for given in wrong:
        problem = await root.fails("POST", "/v1/tokens", given)
        assert (problem["status"], problem["code"]) == (400, "BAD_USER_INPUT"), given
    assert await root.get("/v1/tokens") == before


async def test_tokens_are_listed_the_newest_first(root: Administrator, clock: FakeClock) -> None:
    made = []
    for number in range(7):
        clock.advance(number // 3)  # some of them at the same moment
        token = await root.post("/v1/tokens", {"user": f"user {number}", "tenant": "x", "scopes": ["devices:use"]})
        made.append((token["createdAt"], token["id"]))
    newest_first = sorted(made, key=lambda each: each[1])
    newest_first.sort(key=lambda each: each[0], reverse=True)
    for limit in (1, 2, 7, 100):
        listed = await root.all("/v1/tokens", limit=limit, tenant="x")
        assert [(token["createdAt"], token["id"]) for token in listed] == newest_first


async def test_a_device_is_revoked_and_released(node: Node, root: Administrator, ada: Client, clock: FakeClock) -> None:
    first = await ada.key("a/keys")
    clock.advance(1)
    listed = (await root.get("/v1/devices/a%2Fkeys/keys"))["items"]
    assert [(key["id"], key["publicKey"], key["isErased"]) for key in listed] == [
        (first["keyId"], first["publicKey"], False)
    ]
    assert not {"privateKey", "wrappedPrivateKey"} & set(listed[0])
    revoked = await root.post("/v1/devices/a%2Fkeys/revoke")
    assert (revoked["deviceId"], revoked["owner"]) == ("a/keys", "ada")
    assert revoked["revokedAt"] == "2030-01-01T00:00:01Z"
    clock.advance(1)
    assert await root.post("/v1/devices/a%2Fkeys/revoke") == revoked
    assert (await root.get("/v1/devices/a%2Fkeys/keys"))["items"][0]["isErased"] is True
    assert (await ada.fails(GENERATE, {"deviceId": "a/keys"}))["code"] == "FORBIDDEN"
    released = await root.post("/v1/devices/a%2Fkeys/release")
    assert (released["owner"], released["revokedAt"]) == (None, None)
    bob = await node.client("bob")
    await bob.key("a/keys")
    assert (await root.get("/v1/devices"))["items"][0]["owner"] == "bob"


async def test_devices_are_listed_by_id_and_by_owner(node: Node, root: Administrator, ada: Client) -> None:
    bob = await node.client("bob")
    for name in ("c", "a", "e"):
        await ada.key(name)
    for name in ("b", "\u00a0d"):
        await bob.key(name)
    every = (await root.get("/v1/devices"))["items"]
    assert {device["deviceId"] for device in every} == {"a", "b", "c", "\u00a0d", "e"}
    for limit in (1, 2, 5):
        assert await root.all("/v1/devices", limit=limit) == every
        of_ada = await root.all("/v1/devices", limit=limit, owner="ada")
        assert [device["deviceId"] for device in of_ada] == ["a", "c", "e"]


async def test_the_key_pairs_of_a_device_are_paged(root: Administrator, ada: Client, clock: FakeClock) -> None:
    made = [(await ada.key())["keyId"]]
    for _ in range(3):
        clock.advance(1)
        made.append((await ada.done(ROTATE, {"deviceId": "device-123"}))["keyId"])
    for limit in (1, 3, 4):
        listed = await root.all("/v1/devices/device-123/keys", limit=limit)
        assert [key["id"] for key in listed] == made[::-1]


async def test_a_user_is_forgotten_and_what_others_have_stays(node: Node, root: Administrator, ada: Client) -> None:
    key, bob = await ada.key(), await node.client("bob")
    kept = await bob.key("laptop")
    await ada.set_passcode(key, "a secret")
    assert await root.post("/v1/users/ada/forget") == {"devices": 1, "clientKeys": 1, "secrets": 1}
    assert await root.post("/v1/users/ada/forget") == {"devices": 0, "clientKeys": 0, "secrets": 0}
    async with node.service.reading() as work:
        assert await work.find_credential("", "ada", SecretKind.PASSCODE) is None
    assert await bob.key("laptop") == kept
    assert (await root.fails("POST", "/v1/users/a%00b/forget"))["status"] == 400


async def test_jobs_are_told_and_run_before_they_are_due(node: Node, root: Administrator, clock: FakeClock) -> None:
    session, ran = await node.service.manager.session(), []

    async def once(lease: object) -> None:
        ran.append(lease)

    async def never(lease: object) -> None:
        raise ValueError("of its own")

    session.jobs.add(Job("tests.once", 3600.0, once), wait=True)
    session.jobs.add(Job("tests.never", 3600.0, never), wait=True)
    clock.advance(600)
    jobs = {job["name"]: job for job in await root.all("/v1/jobs", limit=2)}
    assert {"keystead.rotate", "keystead.maintain", "keystead.client_keys", "tests.once"} <= set(jobs)
    assert list(jobs) == sorted(jobs)
    once_ = jobs["tests.once"]
    assert (once_["everySeconds"], once_["dueInSeconds"], once_["heldBy"]) == (3600.0, 3000.0, None)
    assert await root.post("/v1/jobs/tests.once/run") == {"name": "tests.once", "outcome": "done", "errorCode": None}
    assert len(ran) == 1
    jobs = {job["name"]: job for job in await root.all("/v1/jobs", limit=500)}
    assert jobs["tests.once"]["dueInSeconds"] == 3600.0
    last = jobs["tests.once"]["lastRun"]
    assert (last["errorCode"], last["node"], last["seconds"]) == (None, session.surroundings.node.value, 0)
    failed = await root.post("/v1/jobs/tests.never/run")
    assert (failed["outcome"], failed["errorCode"]) == ("failed", "unexpected")
    async with session.surroundings.store.transaction() as work:
        await work.claim_lease("tests.once", "another node", 60_000)
    assert (await root.post("/v1/jobs/tests.once/run"))["outcome"] == "held"
    jobs = {job["name"]: job for job in await root.all("/v1/jobs", limit=500)}
    assert jobs["tests.once"]["heldBy"] == "another node"
    assert (await root.fails("POST", "/v1/jobs/none/run"))["code"] == "NOT_FOUND"


async def test_maintenance_does_what_is_due_to_keys_and_client_keys(
    node: Node, root: Administrator, ada: Client, clock: FakeClock
) -> None:
    key = await ada.key()
    nothing = await root.post("/v1/maintain")
    assert (nothing["rotated"], nothing["clientKeys"]["erased"], nothing["failures"]) == (0, 0, {})
    session = await node.service.manager.session()
    clock.advance(timedelta(days=80))
    await session.poll()
    done = await root.post("/v1/maintain")
    assert done["failures"] == {}
    # The service may have done it by itself a moment before.
    assert (await root.get("/v1/keyrings/default"))["active"]["version"] == 2
    assert done["clientKeys"]["erased"] <= 1
    async with session.surroundings.store.reading() as work:
        kept = await work.find_client_key(key["keyId"])
    assert kept is not None
    assert kept.wrapped_private_key is None


async def test_reencryptions_are_listed_paused_resumed_and_ended(node: Node, root: Administrator) -> None:
    session = await node.service.manager.session()
    for number in range(3):
        record = ReencryptionRecord(f"job{number}", f"people.{number}", "sql:app", batch_rows=100, target="{}")
        async with session.surroundings.store.transaction() as work:
            await work.add_reencryption(record)
    listed = await root.all("/v1/reencryptions", limit=2)
    assert [each["id"] for each in listed] == ["job0", "job1", "job2"]
    assert [each["id"] for each in await root.all("/v1/reencryptions", limit=2, field="people.1")] == ["job1"]
    states = [(await root.post(f"/v1/reencryptions/job1/{word}"))["state"] for word in ("pause", "resume", "cancel")]
    assert states == ["paused", "running", "cancelled"]
    shown = await root.get("/v1/reencryptions/job1")
    assert (shown["fieldId"], shown["state"], shown["read"], shown["failures"]) == ("people.1", "cancelled", 0, [])
    assert shown["seconds"] is not None
    assert (await root.get("/v1/reencryptions/job2"))["seconds"] is None
    assert (await root.fails("GET", "/v1/reencryptions/none"))["code"] == "NOT_FOUND"
    assert (await root.fails("POST", "/v1/reencryptions/job1/pause"))["status"] == 409
    assert (await root.fails("POST", "/v1/reencryptions/none/pause"))["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/users/a%0Ab/forget"),
        ("POST", "/v1/users/%0A/forget"),
        ("GET", "/v1/devices/a%0Ab/keys"),
        ("POST", "/v1/devices/a%0A/revoke"),
        ("POST", "/v1/keyrings/a%0Ab/rotate"),
        ("GET", "/v1/keyrings/default%0A"),
        ("GET", "/v1/keyrings/a%0Ab"),
    ],
)
async def test_a_name_with_a_line_feed_is_looked_at_as_any_other(root: Administrator, method: str, path: str) -> None:
    problem = await root.fails(method, path)
    assert (problem["status"], problem["code"]) == (400, "BAD_USER_INPUT")


async def test_no_key_is_found_by_an_id_with_a_line_feed_behind_it(root: Administrator) -> None:
    (key, *_) = (await root.get("/v1/keys"))["items"]
    assert await root.get(f"/v1/keys/{key['id']}") == key
    assert (await root.fails("GET", f"/v1/keys/{key['id']}%0A"))["status"] == 404


async def test_a_re_encryption_is_asked_for_and_what_became_of_it_is_told(node: Node, root: Administrator) -> None:
    km = node.service.manager
    for column in ("email", "name", "<b>phone</b>"):
        field = Field("people", column)
        await km.load_fields(field)
        await km.register_field(field, "app:people")
    listed = await root.all("/v1/fields", limit=1)
    assert [each["id"] for each in listed] == ["people.<b>phone</b>", "people.email", "people.name"]
    assert (listed[0]["waitingWorkers"], listed[0]["command"], listed[0]["wishes"]) == (0, None, [])
    asked = await root.post("/v1/reencryption-wishes", {"field": "people.email", "kind": "plan"})
    assert (asked["fieldId"], asked["kind"], asked["state"]) == ("people.email", "plan", "open")
    again = await root.fails("POST", "/v1/reencryption-wishes", {"field": "people.email", "kind": "run"})
    assert again["status"] == 409
    other = await root.post("/v1/reencryption-wishes", {"field": "people.name", "kind": "run"})
    assert (await root.post(f"/v1/reencryption-wishes/{other['id']}/cancel"))["state"] == "cancelled"
    assert (await root.fails("POST", f"/v1/reencryption-wishes/{other['id']}/cancel"))["status"] == 409
    session = await km.session()
    found = ReencryptPlan(12, [VersionRows(7, "default", 1, 12)], 1, 0, 2, 10, 9, 3.5, "job")
    async with session.surroundings.store.transaction() as work:
        await work.listen("people.email", "worker", 60_000)
        await work.take_wish(asked["id"], "worker", 60_000)
        await work.end_wish(asked["id"], "worker", WishState.DONE, plan=plan_text(found))
    (shown,) = (await root.get("/v1/fields", field="people.email"))["items"]
    assert shown["waitingWorkers"] == 1
    (ended,) = shown["wishes"]
    assert ended["askedBy"] == asked["askedBy"] != ""
    assert ended["plan"] == {
        **{"rows": 12, "otherVersions": 0, "otherRows": 0, "empty": 1, "erased": 0, "plaintext": 2},
        **{"sampleRows": 10, "sampleChanges": 9, "seconds": 3.5, "unfinished": "job"},
        "versions": [{"keyring": "default", "version": 1, "rows": 12}],
    }
    absent = await root.fails("POST", "/v1/reencryption-wishes", {"field": "people.none", "kind": "run"})
    assert absent["code"] == "NOT_FOUND"
    assert (await root.get("/v1/fields", field="people.none"))["items"] == []
