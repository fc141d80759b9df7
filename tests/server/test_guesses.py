"""Guesses at secrets, by every way that leads to the service: five are compared.

``soak/guesses.py`` does it at length, with nodes that are processes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import islice

from tests.server.clients import SET_PIN, Client, Installation, sealed
from tests.server.guessing import flood, guess, guessed, many_in_one, pins, spellings

PIN = "4711"


async def test_ten_thousand_guesses_by_every_way_are_five(installation: Installation) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(installation.node()) for _ in range(2)]
        token = await nodes[0].token("ada")
        clients = [Client(node.app, token) for node in nodes]
        key, wrong = await clients[0].key(), pins(but=PIN)
        assert await clients[0].done(SET_PIN, {"encryptedPin": sealed(key, PIN), "keyId": key["keyId"]}) is True
        # Many in one request: refused before anything is executed.
        for how, body in many_in_one(key, wrong).items():
            refused = (await clients[0].post(body)).json()
            told = refused["errors"][0]["message"]
            assert told.startswith(
                ("an operation does one", "a document has up to", "one request at a time", "the document has no")
            ), how
            assert not refused.get("data"), how
        # Ids of keys that are written otherwise are no ids of this key.
        for other in spellings(key):
            assert await guessed(clients[0], other, PIN) in ("DECRYPTION_FAILED", "BAD_USER_INPUT")
        # Many connections, to several nodes.
        seen = await flood(clients, [key], islice(wrong, 200), connections=20)
        # What a busy database has no time to count is not compared either.
        assert (seen["WRONG"], seen["LOCKED"] + seen["UNAVAILABLE"]) == (5, 195)
        assert sum(node.service.devices.secrets.evaluated for node in nodes) == 5
    # After a restart, with another key of another device.
    async with installation.node() as node:
        client = Client(node.app, token)
        other = await client.key("tablet")
        query, given = guess(other, PIN)
        answer = await client.ask(query, {"input": given})
        assert answer["data"] == {"verifyTransactionPin": False}
        assert answer["extensions"]["keystead"]["code"] == "LOCKED"
        assert 0 < answer["extensions"]["keystead"]["retryAfter"] <= 60
        assert node.service.devices.secrets.evaluated == 0
