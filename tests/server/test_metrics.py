"""What /metrics shows: what was done, by series whose number nobody outside can make grow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keystead import telemetry
from keystead.access.callers import EVERY_SCOPE, Scope
from keystead.devices.junk import AT_ONCE
from keystead.server.errors import _TABLE
from keystead.server.requests import _CODES
from tests.server.clients import GENERATE, SET_PIN, VERIFY_PIN, Client, Node, sealed

_PAGE: Final = Path(__file__).parents[2] / "docs" / "guides" / "operate-the-service.md"
ALL_TENANTS: Final = "this covers all tenants, and is not for a caller of one: use a token without a tenant"
SUMMARY: Final = "{ getEncryptionMetricsSummary }"
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

KUBERNETES = frozenset({"Status", "Encrypt", "Decrypt"})
"""Calls of the plugin, which counts in the same series where one process is both."""


class Watched:
    """The series of a process, as differences from when the test began."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: Series = {}

    async def begin(self) -> None:
        self._before = await self.series()

    async def series(self) -> Series:
        response = await self._client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain; version=")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    async def more(self, name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return (await self.series()).get(key, 0.0) - self._before.get(key, 0.0)


@pytest.fixture
async def watched(node: Node) -> Watched:
    made = Watched(await node.client("prometheus", Scope.METRICS_READ))
    await made.begin()
    return made


async def test_metrics_are_for_who_has_the_scope(node: Node) -> None:
    anonymous = await (await node.client()).get("/metrics")
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "UNAUTHENTICATED")
    others = await node.client("ada", *(EVERY_SCOPE - {Scope.METRICS_READ}))
    refused = await others.get("/metrics")
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")


async def test_metrics_cover_all_tenants_and_no_caller_of_one_is_told(node: Node) -> None:
    north, root = [await node.client("prometheus", Scope.METRICS_READ, tenant=tenant) for tenant in ("north", "")]
    refused = (await north.get("/metrics")).json()
    assert (refused["code"], refused["detail"]) == ("FORBIDDEN", ALL_TENANTS)
    (error,) = (await north.ask(SUMMARY))["errors"]
    assert (error["extensions"]["code"], error["message"]) == ("FORBIDDEN", ALL_TENANTS)
    assert (await root.get("/metrics")).status_code == 200
    assert "errors" not in await root.ask(SUMMARY)


async def test_metrics_are_open_in_development(development: Client) -> None:
    assert (await development.get("/metrics")).status_code == 200


async def test_guesses_that_were_evaluated_are_counted_and_no_others(node: Node, ada: Client, watched: Watched) -> None:
    key = await ada.key()
    await ada.done(SET_PIN, {"encryptedPin": sealed(key, "4711"), "keyId": key["keyId"]})
    given = [{"encryptedPin": sealed(key, f"{number:04d}"), "keyId": key["keyId"]} for number in range(20)]
    assert await ada.done(VERIFY_PIN, {"encryptedPin": sealed(key, "4711"), "keyId": key["keyId"]}) is True
    await asyncio.gather(*(ada.ask(VERIFY_PIN, {"input": each}) for each in given))
    assert node.service.devices.secrets.evaluated == 6
    assert await watched.more("keystead_secret_checks_total", result="right") == 1
    assert await watched.more("keystead_secret_checks_total", result="wrong") == 5
    assert await watched.more("keystead_secret_lockouts_total", kind="transaction_pin") == 1
    assert await watched.more("keystead_requests_total", operation="verifyTransactionPin", code="OK") == 1
    assert await watched.more("keystead_requests_total", operation="verifyTransactionPin", code="WRONG") == 5
    assert await watched.more("keystead_requests_total", operation="verifyTransactionPin", code="LOCKED") == 15
    name = "keystead_request_duration_seconds_count"
    assert await watched.more(name, operation="verifyTransactionPin") == 21


async def test_keys_that_are_new_are_told_from_those_that_a_device_had(ada: Client, watched: Watched) -> None:
    await ada.key()
    await ada.key()
    await ada.key("tablet")
    assert await watched.more("keystead_client_keys_given_total", origin="new") == 2
    assert await watched.more("keystead_client_keys_given_total", origin="had") == 1


async def test_decryptions_are_counted_by_result_and_what_is_refused_unread_apart(
    ada: Client, watched: Watched
) -> None:
    key = await ada.key()
    await ada.done(SET_PIN, {"encryptedPin": sealed(key, "4711"), "keyId": key["keyId"]})
    for _ in range(AT_ONCE + 2):
        await ada.ask(VERIFY_PIN, {"input": {"encryptedPin": "AAAA", "keyId": "key_0"}})
    name = "keystead_client_key_operations_total"
    assert await watched.more(name, operation="decrypt", result="ok") == 1
    assert await watched.more(name, operation="decrypt", result="key_not_found") == AT_ONCE
    assert await watched.more(name, operation="decrypt", result="rate_limited") == 2
    assert await watched.more("keystead_junk_refused_total") == 2


async def test_the_pool_of_ready_pairs_is_shown(node: Node, watched: Watched) -> None:
    kind = node.service.devices.policy.kind
    await node.service.devices.upkeep.fill(kind, 1)
    assert await watched.more("keystead_ready_pairs_made_total", kind=kind.value) == 1
    assert (await watched.series())["keystead_ready_pairs", frozenset({("kind", kind.value)})] == 1


async def test_nothing_that_clients_send_makes_a_series(node: Node, ada: Client, watched: Watched) -> None:
    key = await ada.key("canary-device")
    for number in range(5):
        await ada.get(f"/canary-{number}")
        await ada.ask(f"query canary{number} {{ __typename }}")
        await ada.ask(f"{{ canary{number} }}")
        await ada.ask(f'mutation {{ canary{number}: revokeDevice(deviceId: "canary-{number}") }}')
        await ada.post({"query": "{ __typename }"}, Authorization=f"Bearer canary{number}")
        await ada._http.request(f"CANARY{number}", "/graphql")
        await ada.ask(GENERATE, {"input": {"deviceId": f"canary-{number}"}}, **{"X-Keystead-User": "canary"})
    text = (await watched._client.get("/metrics")).text
    assert "canary" not in text.lower()
    assert key["keyId"] not in text
    codes = {code for _, code, _, _ in _TABLE} | {"OK", "GRAPHQL_VALIDATION_FAILED", "REFUSED", "WRONG", "NOT_SET"}
    codes |= set(_CODES.values())
    found = {
        (labels["operation"], labels["code"])
        for name, told in await watched.series()
        if name == "keystead_requests_total" and (labels := dict(told))["operation"] not in KUBERNETES
    }
    assert {code for _, code in found} <= codes
    assert ("other", "REFUSED") in found
    assert ("other", "NOT_FOUND") in found
    assert ("other", "UNAUTHENTICATED") in found


async def test_routes_are_counted_as_they_are_declared(node: Node, watched: Watched) -> None:
    client = await node.client()
    await client.get("/livez?canary=1")
    await client.get("/.well-known/keystead-keys")
    assert await watched.more("keystead_requests_total", operation="GET /livez", code="OK") == 1
    assert await watched.more("keystead_requests_total", operation="GET /.well-known/keystead-keys", code="OK") == 1


async def test_the_page_for_operators_names_every_series(watched: Watched) -> None:
    documented = set(re.findall(r"`(keystead_[a-z_]+)", _PAGE.read_text(encoding="utf-8")))
    assert documented == set(re.findall(r"keystead_[a-z_]+", telemetry.__doc__ or ""))
    shown = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name, _ in await watched.series()}
    assert {name for name in shown if name.startswith("keystead_")} <= documented
