"""Transit keys are seen and changed at the console, by their tenant and within the scopes of the engine."""

from __future__ import annotations

import re

import pytest

from keystead.access.transit_scopes import transit_scope
from keystead.manager import transit_keys
from keystead.manager.transit_keys import KeyFacts
from tests.server.clients import Node
from tests.server.console.visitors import Visitor, text_of, visitor

pytestmark = pytest.mark.parametrize("installation", ["sqlite"], indirect=True)
"""Of what does not depend on the store."""


async def made(ada: Visitor, name: str, kind: str = "aes256-gcm96", **fields: str) -> str:
    """Make a key, and return what is told."""
    return text_of(await ada.does("/console/new-transit-key", {"name": name, "type": kind, **fields}))


async def facts(node: Node, name: str, tenant: str = "") -> KeyFacts:
    return await transit_keys.facts(node.service.manager, tenant, name)


async def test_a_key_is_made_rotated_and_configured(node: Node) -> None:
    ada = await visitor(node)
    told = await made(ada, "orders", derived="yes", convergent="yes", auto_rotate="30d")
    assert "The aes256-gcm96 key orders is there, and version 1 is used." in told
    assert "every 30d" in told
    assert "Convergent: equal plaintexts of a context have equal ciphertexts." in told
    assert "A new version 2 is made" in text_of(await ada.get("/console/transit/orders/rotate"))
    page = await ada.does("/console/transit/orders/rotate")
    assert "Version 2 of orders is the one that is used." in text_of(page)
    assert re.search(r"<svg .*?v2.*?v1.*?</svg>", page.text, re.DOTALL)
    at = "/console/transit/orders/config"
    sent = {"min_decryption": "2", "min_encryption": "2", "auto_rotate": "0s", "deletion_allowed": "yes"}
    page = await ada.does(at, sent)
    assert "refused as one before 2" in text_of(page)
    assert "It may be deleted" in text_of(page)
    record = (await facts(node, "orders")).key
    assert (record.min_decryption, record.min_encryption, record.auto_rotate_s) == (2, 2, 0)
    assert record.deletion_allowed
    assert 'value="yes" checked> Deletion is allowed' in (await ada.get(at)).text
    for changed, why in (
        ({"min_decryption": "3"}, "cannot set min decryption version of 3, latest key version is 2"),
        ({"min_decryption": "-1"}, "the oldest version that decrypts is a number"),
        ({"auto_rotate": "soon"}, "a duration reads like"),
        ({"auto_rotate": "5m"}, "at least an hour"),
    ):
        refused = await ada.does(at, {**sent, **changed})
        assert refused.status_code == 400
        assert why in text_of(refused)
    assert (await facts(node, "orders")).key == record


async def test_what_cannot_be_made_is_refused_with_the_reason(node: Node) -> None:
    ada = await visitor(node)
    await made(ada, "orders")
    for name, kind, fields, why in (
        ("orders", "aes256-gcm96", {}, "there is a Transit key 'orders' already"),
        ("", "aes256-gcm96", {}, "invalid key name"),
        ("a b", "aes256-gcm96", {}, "invalid key name"),
        ("new", "aes", {}, "unknown key type aes"),
        ("new", "rsa-2048", {"derived": "yes"}, "not supported for keys of type rsa-2048"),
        ("new", "aes256-gcm96", {"convergent": "yes"}, "requires derivation to be enabled"),
        ("new", "hmac", {"key_size": "16"}, "invalid key_size 16"),
    ):
        assert why in await made(ada, name, kind, **fields)
    assert "Its versions have 32 bytes." in await made(ada, "codes", "hmac")


async def test_the_public_half_of_a_key_pair_is_shown_and_nothing_else_of_it(node: Node) -> None:
    ada = await visitor(node)
    await made(ada, "signing", "ecdsa-p256")
    page = await ada.get("/console/transit/signing")
    [version] = (await facts(node, "signing")).versions
    assert version.public_key is not None
    assert version.public_key in page.text
    assert "PRIVATE" not in page.text


async def test_old_versions_are_trimmed_once_they_are_out_of_use_and_the_name_was_typed(node: Node) -> None:
    ada = await visitor(node)
    await made(ada, "orders")
    await ada.does("/console/transit/orders/rotate")
    at = "/console/transit/orders/trim"
    assert at not in (await ada.get("/console/transit/orders")).text
    refused = text_of(await ada.does(at, {"before": "2", "typed": "orders"}))
    assert "set the oldest versions that decrypt and encrypt first, by Configure" in refused
    await ada.does("/console/transit/orders/config", {"min_decryption": "2", "min_encryption": "2"})
    assert at in (await ada.get("/console/transit/orders")).text
    assert "to confirm; this was another text" in text_of(await ada.does(at, {"before": "2"}))
    assert "name the oldest version that stays" in text_of(await ada.does(at, {"typed": "orders"}))
    assert [each.version for each in (await facts(node, "orders")).versions] == [1, 2]
    page = text_of(await ada.does(at, {"before": "2", "typed": "orders"}))
    assert "Versions of orders before 2 are destroyed." in page
    assert [each.version for each in (await facts(node, "orders")).versions] == [2]


async def test_a_key_is_taken_out_of_use_and_back_and_deleted_where_it_allows_it(node: Node) -> None:
    ada = await visitor(node)
    await made(ada, "orders")
    page = await ada.does("/console/transit/orders/soft-delete")
    assert "Soft-deleted: whatever asks for this key is refused" in text_of(page)
    assert "/console/transit/orders/rotate" not in page.text
    assert "soft-deleted" in text_of(await ada.get("/console/transit"))
    assert "restore it first" in text_of(await ada.does("/console/transit/orders/rotate"))
    assert "orders is in use." in text_of(await ada.does("/console/transit/orders/restore"))
    at = "/console/transit/orders/delete"
    assert "This key does not allow it." in text_of(await ada.get(at))
    assert "allow it by Configure first" in text_of(await ada.does(at, {"typed": "orders"}))
    await ada.does("/console/transit/orders/config", {"deletion_allowed": "yes"})
    assert "type orders to confirm" in text_of(await ada.does(at, {"typed": "order"}))
    assert (await facts(node, "orders")).latest == 1
    assert "orders and all its versions are destroyed." in text_of(await ada.does(at, {"typed": "orders"}))
    gone = await ada.get("/console/transit/orders")
    assert gone.status_code == 404
    assert "there is no Transit key 'orders'" in text_of(gone)


async def test_keys_are_those_of_the_visitors_tenant_by_pages(node: Node) -> None:
    ada, bo = await visitor(node), await visitor(node, tenant="north")
    await made(ada, "orders")
    for number in range(52):
        await made(bo, f"key-{number:02}")
    assert (await bo.get("/console/transit/orders")).status_code == 404
    assert "key-00" not in (await ada.get("/console/transit")).text
    first = await bo.get("/console/transit")
    assert "Transit keys of north" in text_of(first)
    assert '<a href="/console/transit?after=key-49">' in first.text
    assert "key-50" not in first.text
    assert "key-51" in (await bo.get("/console/transit?after=key-49")).text
    assert (await facts(node, "key-00", "north")).latest == 1


async def test_what_a_scope_of_the_engine_does_not_allow_is_not_shown(node: Node) -> None:
    await made(await visitor(node), "orders")
    reads = await visitor(node, transit_scope("transit:list:*"), transit_scope("transit:read:orders"))
    listed = await reads.get("/console/transit")
    assert '<a href="/console/transit/orders">' in listed.text
    assert "/console/new-transit-key" not in listed.text
    assert "/console/transit/orders/" not in (await reads.get("/console/transit/orders")).text
    lists = await visitor(node, transit_scope("transit:list:*"))
    assert '<a href="/console/transit/orders">' not in (await lists.get("/console/transit")).text
    rotates = await visitor(node, transit_scope("transit:rotate:orders"))
    page = await rotates.does("/console/transit/orders/rotate")
    assert "Version 2 of orders is the one that is used." in text_of(page)
    assert "Transit keys" not in text_of(page)
