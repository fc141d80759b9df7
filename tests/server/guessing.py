"""Guesses at a PIN, as whoever makes many of them would send them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, Final

import httpx

from tests.server.clients import SET_PIN, SHA256, VERIFY_PIN, Client, sealed

VERIFY_SECRET: Final = """
mutation VerifySecret($input: VerifySecretInput!) { verifySecret(input: $input) { ok reason retryAfter } }
"""
WAYS: Final = 5
"""Operations, spellings and algorithms by which one guess can be made."""
MANY: Final = 30


def guess(key: Mapping[str, str], pin: str, way: int = 0) -> tuple[str, dict[str, Any]]:
    """Return a document and its input by which a PIN is guessed, in one of the ways there are."""
    key_id = {"keyId": key["keyId"]}
    if way % WAYS == 1:
        return VERIFY_PIN, {"encryptedPasscode": sealed(key, pin), "passwordAuthType": "TRANSACTION_PIN", **key_id}
    if way % WAYS == 2:
        return VERIFY_SECRET, {"encryptedSecret": sealed(key, pin), "passwordAuthType": "TRANSACTION_PIN", **key_id}
    if way % WAYS == 3:
        return SET_PIN, {"encryptedPin": sealed(key, "915046"), "currentEncryptedPin": sealed(key, pin), **key_id}
    if way % WAYS == 4:
        return VERIFY_PIN, {"encryptedPin": sealed(key, pin, SHA256), "algorithm": "RSA_OAEP_SHA256", **key_id}
    return VERIFY_PIN, {"encryptedPin": sealed(key, pin), **key_id}


def outcome(answer: Mapping[str, Any]) -> str:
    """Return how a guess came out, by whichever way it was made: VERIFIED, WRONG, LOCKED, or another code."""
    if answer.get("errors"):
        code = str(answer["errors"][0]["extensions"]["code"])
        # A wrong current PIN is forbidden to be replaced.
        return "WRONG" if code == "FORBIDDEN" else code
    (result,) = answer["data"].values()
    if isinstance(result, dict):
        return str(result["reason"])
    return "VERIFIED" if result else str(answer["extensions"]["keystead"]["code"])


async def guessed(client: Client, key: Mapping[str, str], pin: str, way: int = 0, *, user: str | None = None) -> str:
    """Return how a guess came out, or ``nothing`` where the node was gone; ``user`` is named as whom it is for."""
    query, given = guess(key, pin, way)
    named = {} if user is None else {"X-Keystead-User": user.encode()}
    try:
        return outcome(await client.ask(query, {"input": given}, **named))
    except httpx.TransportError:
        await asyncio.sleep(0.2)
        return "nothing"


async def flood(
    clients: Sequence[Client],
    keys: Sequence[Mapping[str, str]],
    pins: Iterable[str],
    *,
    connections: int,
    user: str | None = None,
) -> Counter[str]:
    """Guess each PIN once, by so many at a time for each client, by every way; return how they came out.

    Every other guess names ``user``: who acts for a user is the user.
    """
    seen: Counter[str] = Counter()
    numbered = enumerate(pins)

    async def send(client: Client) -> None:
        for number, pin in numbered:
            named = user if number % 2 else None
            seen[await guessed(client, keys[number % len(keys)], pin, number, user=named)] += 1

    await asyncio.gather(*(send(client) for client in clients for _ in range(connections)))
    return seen


def many_in_one(key: Mapping[str, str], pins: Iterator[str]) -> dict[str, Any]:
    """Return bodies of one request each that hold many guesses, by how they do."""

    def one() -> str:
        return f'verifyTransactionPin(input: {{ encryptedPin: "{sealed(key, next(pins))}", keyId: "{key["keyId"]}" }})'

    def request(query: str) -> dict[str, str]:
        return {"query": query}

    aliases = " ".join(f"a{number}: {one()}" for number in range(MANY))
    spreads = " ".join(f"...F{number}" for number in range(4))
    fragments = " ".join(f"fragment F{number} on Mutation {{ f{number}: {one()} }}" for number in range(4))
    operations = " ".join(f"mutation M{number} {{ {one()} }}" for number in range(MANY))
    inputs = [{"query": VERIFY_PIN, "variables": {"input": guess(key, next(pins))[1]}} for _ in range(MANY)]
    return {
        "aliases": request(f"mutation {{ {aliases} }}"),
        "fragments": request(f"mutation {{ {spreads} }} {fragments}"),
        "inline fragments": request(f"mutation {{ ... on Mutation {{ a: {one()} }} ... {{ b: {one()} }} }}"),
        "operations": request(operations),
        "a batch": inputs,
    }


def spellings(key: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a key with its id written otherwise, each of which is another id or none at all."""
    key_id = key["keyId"]
    others = (key_id.upper(), f" {key_id}", f"{key_id}\n", f"{key_id}\0", key_id.replace("key_", "key_0", 1), "", "*")
    return [{**key, "keyId": other} for other in others]


def pins(*, but: str, length: int = 4) -> Iterator[str]:
    """Return every PIN of a length but one, again and again."""
    return cycle(f"{number:0{length}d}" for number in range(10**length) if f"{number:0{length}d}" != but)
