"""What comes in by REST is bounded, and whatever is wrong with it is told in one shape, without what was sent."""

from __future__ import annotations

import json
from unittest.mock import AsyncMock

import httpx
import pytest

from keystead.errors import (
    ConfigurationError,
    ConflictError,
    KeyDecryptionFailError,
    KeyInUseError,
    KeyRotationError,
    ProviderConnectionError,
    RotationNotSupportedError,
    StoreFullError,
    StoreRestoredError,
)
from keystead.manager import admin
from keystead.server.errors import RETRY_S
from keystead.server.rest.problems import MEDIA_TYPE, problem_of
from scripts.gen_error_docs import TARGET
from tests.server.clients import Node
from tests.server.rest import OPERATIONS, Administrator, administrator, require_declared, routes

SECRET = "hunter2-was-sent-by-mistake"
on_any_store = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


@pytest.fixture
async def root(node: Node) -> Administrator:
    """Who may do everything."""
    return await administrator(node)


async def test_a_body_that_cannot_be_is_refused(root: Administrator) -> None:
    bodies = [
        b"",
        b"{",
        b"[" * 50_000,
        b"\xff\xfe",
        b'{"name": NaN}',
        b'{"name": "a", "name": 1}',
        b"[]",
        b'"orders"',
        b"null",
        b"1" * 5_000,
        b"{}",
        b'{"name": "\\ud800"}',
        b'{"name": "a\\u0000b"}',
        b'{"name": ""}',
        b'{"name": 5}',
        b'{"name": ["orders"]}',
        b'{"name": "orders", "isForFiles": 1}',
        b'{"name": "orders", "isForFiles": "false"}',
        b'{"name": "orders", "purpose": "wrap"}',
        b'{"name": "orders", "is_for_files": true}',
        json.dumps({"name": "x" * 201}).encode(),
    ]
    for body in bodies:
        problem = await root.fails("POST", "/v1/keyrings", content=body)
        told = (problem["status"], problem["code"], problem["type"])
        assert told == (400, "BAD_USER_INPUT", "/errors.md#invalid_input"), body[:100]


@on_any_store
async def test_what_was_sent_is_not_told_again(root: Administrator) -> None:
    for body in ({SECRET: 1}, {"name": SECRET * 9}, {"name": {SECRET: SECRET}}, {"name": "a", "isForFiles": SECRET}):
        answer = await root.send("POST", "/v1/keyrings", body)
        assert answer.status_code == 400
        assert SECRET not in answer.text
    for query in ({"limit": SECRET}, {SECRET: "1"}, {"cursor": SECRET}, {"state": SECRET}):
        answer = await root.send("GET", "/v1/keys", query=query)
        assert answer.status_code == 400
        assert SECRET not in answer.text
    assert SECRET not in (await root.send("POST", "/v1/keyrings", content=f'{{"{SECRET}'.encode())).text


async def test_it_is_told_where_a_request_is_wrong(root: Administrator) -> None:
    problem = await root.fails("POST", "/v1/keyrings/default/rotate", {"minAgeSeconds": "30d", "now": True})
    assert problem["detail"] == ("body.minAgeSeconds: it is no whole number; body has a member that is not known")
    problem = await root.fails("GET", "/v1/keyrings", query={"page": "2"})
    assert problem["detail"] == "the query has a parameter that is not known; there are: cursor, limit"


@on_any_store
async def test_a_body_is_json_by_its_type(root: Administrator) -> None:
    body = b'{"name": "orders"}'
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"):
        problem = await root.fails("POST", "/v1/keyrings", content=body, headers={"Content-Type": kind})
        assert (problem["status"], problem["detail"]) == (415, "a body is application/json")
    answer = await root.send(
        "POST", "/v1/keyrings", content=body, headers={"Content-Type": "Application/JSON; charset=x"}
    )
    assert answer.status_code == 201


@on_any_store
async def test_a_body_is_read_up_to_its_limit(root: Administrator) -> None:
    body = b'{"promote": "now"}'
    padded = body + b" " * (65_536 - len(body))
    assert (await root.send("POST", "/v1/keyrings/default/rotate", content=padded)).status_code == 200
    problem = await root.fails("POST", "/v1/keyrings/default/rotate", content=padded + b" ")
    assert (problem["status"], problem["detail"]) == (413, "a request has up to 65536 bytes")
    assert (await root.fails("GET", "/v1/keyrings", content=padded + b" "))["status"] == 413


async def test_where_nothing_is_taken_nothing_is_ignored(root: Administrator) -> None:
    assert (await root.fails("POST", "/v1/keys/default/1/disable", {"for": "7d"}))["detail"] == "this takes no body"
    assert (await root.fails("POST", "/v1/maintain?force=1"))["status"] == 400
    assert (await root.send("POST", "/v1/maintain", {})).status_code == 200


async def test_names_that_cannot_be_are_refused_wherever_they_stand(root: Administrator) -> None:
    for name in ("%00", "a%0Ab", "%FF%00", "x" * 201, "%E2%80%AE"):
        for verb, path in (
            ("GET", f"/v1/keyrings/{name}"),
            ("POST", f"/v1/keyrings/{name}/rotate"),
            ("GET", f"/v1/keys/{name}/1"),
            ("GET", f"/v1/keys?keyring={name}"),
            ("GET", f"/v1/devices/{name}/keys"),
            ("POST", f"/v1/devices/{name}/revoke"),
            ("POST", f"/v1/jobs/{name}/run"),
            ("GET", f"/v1/tokens/{name}"),
            ("GET", f"/v1/audit/entries?keyring={name}"),
            ("DELETE", f"/v1/key-uses?keyring=default&name={name}"),
        ):
            status = (await root.fails(verb, path))["status"]
            assert status in (400, 404), path


@on_any_store
async def test_paths_that_are_none_and_methods_that_are_not_taken_are_problems(root: Administrator) -> None:
    for path in ("/v1", "/v1/", "/v1/keyring", "/v1/keyrings/", "/v2/keyrings", "/v1/keys/default/1/export", "/none"):
        problem = await root.fails("POST", path, {})
        assert problem["status"] in (404, 405), path
    missing = await root.fails("GET", "/v1/nothing")
    assert missing == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "code": "NOT_FOUND",
    }
    for operation in OPERATIONS.values():
        there = taken(operation.path)
        for verb in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"} - there:
            answer = await root.send(verb, operation.path)
            assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, there)


def taken(path: str) -> set[str]:
    return {verb for route in routes() if route.path_regex.match(path) for verb in route.methods or ()}


@on_any_store
async def test_what_belongs_to_others_is_left_free(root: Administrator) -> None:
    for room in ("transit", "auth", "sys"):
        assert (await root.fails("GET", f"/v1/{room}"))["code"] == "NOT_FOUND"
        assert (await root.fails("POST", f"/v1/{room}", {}))["code"] == "NOT_FOUND"
    taken = {route.path_format.split("/")[2] for route in routes()}
    assert not taken & {"transit", "auth", "sys"}


ERRORS: list[tuple[Exception, int, str, bool]] = [
    (KeyInUseError("people (3) still needs it"), 409, "KEY_STATE", True),
    (RotationNotSupportedError("a file has no other"), 409, "KEY_STATE", True),
    (ConflictError("somebody else was first"), 409, "CONFLICT", True),
    (ConfigurationError("no such extra"), 409, "NOT_CONFIGURED", True),
    (StoreRestoredError(), 503, "UNAVAILABLE", True),
    (KeyRotationError("the KMS failed"), 503, "UNAVAILABLE", True),
    (ProviderConnectionError("kms.internal:8200 refused", retry_after_s=1.5), 503, "UNAVAILABLE", False),
    (StoreFullError("/var/lib/keys.db"), 503, "UNAVAILABLE", False),
    (KeyDecryptionFailError("WRAP key 5 does not open"), 500, "DECRYPTION_FAILED", True),
    (ValueError("of its own"), 500, "INTERNAL_SERVER_ERROR", False),
]
"""Errors, and what they become: status, code, and whether their own text is told."""


@on_any_store
async def test_an_error_is_told_as_the_table_has_it(
    root: Administrator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error, status, code, is_told in ERRORS:
        monkeypatch.setattr(admin, "rewrap", AsyncMock(side_effect=error))
        caplog.clear()
        answer = await root.send("POST", "/v1/rewrap")
        problem = answer.json()
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert (str(error) in answer.text) == is_told
        known = getattr(error, "code", None)
        assert problem["type"] == ("about:blank" if known is None else f"/errors.md#{known}")
        told = getattr(error, "retry_after_s", None) or (RETRY_S if status == 503 else None)
        assert problem.get("retryAfter") == told
        noted = [record for record in caplog.records if record.name == "keystead.server"]
        assert (noted != []) == (status >= 500)
    assert "retry-after" not in answer.headers


def test_it_is_told_when_to_try_again_in_whole_seconds_as_well() -> None:
    answer = problem_of(ProviderConnectionError("it throttles", retry_after_s=1.5))
    assert json.loads(bytes(answer.body))["retryAfter"] == 1.5
    assert answer.headers["retry-after"] == "2"


@on_any_store
async def test_problems_link_to_the_page_of_errors(node: Node, root: Administrator) -> None:
    page = await root.send("GET", "/errors.md")
    assert page.text == TARGET.read_text(encoding="utf-8")
    problem = await root.fails("GET", "/v1/keyrings/none")
    path, _, anchor = problem["type"].partition("#")
    assert path == "/errors.md"
    assert f"{{#{anchor}}}" in page.text


def test_answers_that_are_not_declared_are_noticed() -> None:
    request = httpx.Request("GET", "http://localhost/v1/keyrings")
    with pytest.raises(AssertionError):
        require_declared(httpx.Response(418, request=request, headers={"Content-Type": MEDIA_TYPE}))
