"""Guesses at secrets, by every way that leads to the service: five are compared."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.server.clients import SET_PIN, VERIFY_PIN, Installation, sealed


async def test_ten_thousand_guesses_by_every_way_are_five(installation: Installation) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(installation.node()) for _ in range(2)]
        token = await nodes[0].token("ada")
        clients = [await node.client() for node in nodes]
        for client in clients:
            client._headers["Authorization"] = f"Bearer {token}"
        key = await clients[0].key()
        assert await clients[0].done(SET_PIN, {"encryptedPin": sealed(key, "4711"), "keyId": key["keyId"]}) is True

        def given(number: int) -> dict[str, str]:
            return {"encryptedPin": sealed(key, f"{number:04d}"), "keyId": key["keyId"]}

        # Many in one request: refused before anything is executed.
        one = f'verifyTransactionPin(input: {{ encryptedPin: "{given(0)["encryptedPin"]}", keyId: "{key["keyId"]}" }})'
        aliases = "mutation { " + " ".join(f"a{number}: {one}" for number in range(30)) + " }"
        spread = f"mutation {{ ...F }} fragment F on Mutation {{ a: {one} b: {one} }}"
        for text in (aliases, spread):
            (error,) = (await clients[0].ask(text))["errors"]
            assert error["message"].startswith(("an operation does one thing", "a document has up to"))
        batch = await clients[0].post([{"query": VERIFY_PIN, "variables": {"input": given(0)}}] * 100)
        assert batch.status_code == 400
        # Many connections, to several nodes.
        asked = [clients[n % 2].ask(VERIFY_PIN, {"input": given(n)}) for n in range(200)]
        codes = [answer["extensions"]["keystead"]["code"] for answer in await asyncio.gather(*asked)]
        assert (codes.count("WRONG"), codes.count("LOCKED")) == (5, 195)
        assert sum(node.service.devices.secrets.evaluated for node in nodes) == 5
    # After a restart, with another key of another device.
    async with installation.node() as node:
        client = await node.client()
        client._headers["Authorization"] = f"Bearer {token}"
        other = await client.key("tablet")
        answer = await client.ask(
            VERIFY_PIN, {"input": {"encryptedPin": sealed(other, "4711"), "keyId": other["keyId"]}}
        )
        assert answer["data"] == {"verifyTransactionPin": False}
        assert answer["extensions"]["keystead"]["code"] == "LOCKED"
        assert 0 < answer["extensions"]["keystead"]["retryAfter"] <= 60
        assert node.service.devices.secrets.evaluated == 0
