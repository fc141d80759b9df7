"""What a documented verification costs a node in processor time, beside what it cannot do without.

A decryption by RSA and a hash by Argon2id are measured in turn with it, and taken off: what is left is HTTP, GraphQL,
the database, the count of guesses, the audit trail and the metrics.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keystead.access.callers import Scope
from keystead.devices.hashing import Cost
from keystead.devices.pairs import Algorithm, OpenKey, encrypt_to, make_pair
from keystead.ports import PairKind
from soak.figures import Figures, Setting
from soak.harness import in_child
from soak.places import POSTGRESQL
from soak.serving import Node, Site, running
from tests.server.clients import SET_PASSCODE, VERIFY_PASSCODE, Client, sealed

WHERE: Final = POSTGRESQL
DECRYPTIONS: Final = 100
HASHES: Final = 10
BAR: Final = 5.0
PASSCODE: Final = "correct horse"
Key = dict[str, str]


def measure(setting: Setting, figures: Figures) -> None:
    """Verify, decrypt and hash in turn, again and again."""
    rounds, each = setting.choose(short=(2, 20), full=(25, 60))
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "cost"))
    with running(site, 1) as (node,):
        token = site.token("ada", Scope.DEVICES_USE)
        key = in_child(_begin, node.url, token)
        in_child(_verify, node.url, token, key, each)
        measured = [
            (_node_s(node, token, key, each), in_child(_decryption_s), in_child(_hash_s)) for _ in range(rounds)
        ]
    request, decryption, hashed = (statistics.median(column) for column in zip(*measured, strict=True))
    figures.tell(WHERE, "verifications in a round, and rounds", f"{each}, {rounds}")
    figures.tell(WHERE, "ms of a node's processor time for a verification", request * 1000)
    figures.tell(WHERE, "ms for Argon2id alone", hashed * 1000)
    figures.tell(WHERE, "ms for a decryption by RSA-2048 alone", decryption * 1000)
    rest = statistics.median((whole - one - other) / one for whole, one, other in measured)
    what = "all the rest of it, in decryptions, median of the rounds"
    if setting.is_full:
        figures.at_most(WHERE, what, rest, BAR)
    else:
        figures.tell(WHERE, what, rest)


def _begin(url: str, token: str) -> Key:
    async def main() -> Key:
        client = Client(url, token)
        key = await client.key()
        await client.done(SET_PASSCODE, {"encryptedPasscode": sealed(key, PASSCODE), "keyId": key["keyId"]})
        await client.aclose()
        return key

    return asyncio.run(main())


def _node_s(node: Node, token: str, key: Key, count: int) -> float:
    """Return the processor time that a verification takes of the node, out of so many."""
    before = _used_s(node.pid)
    in_child(_verify, node.url, token, key, count)
    return (_used_s(node.pid) - before) / count


def _verify(url: str, token: str, key: Key, count: int) -> None:
    sent = [
        {"encryptedPasscode": sealed(key, PASSCODE), "keyId": key["keyId"], "passwordAuthType": "PASSCODE"}
        for _ in range(count)
    ]

    async def main() -> None:
        client = Client(url, token)

        # One after the other: two hashes at a time take longer, each, than the one that is taken off.
        for each in sent:
            assert await client.done(VERIFY_PASSCODE, each) is True
        await client.aclose()

    asyncio.run(main())


def _used_s(pid: int) -> float:
    """Return the processor time of a process and its threads so far (``proc(5)``)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _decryption_s() -> float:
    pair = make_pair(PairKind.RSA_2048)
    key = OpenKey(PairKind.RSA_2048, pair.private)
    sent = encrypt_to(pair.public, PASSCODE.encode(), Algorithm.RSA_OAEP_SHA1)
    return _each_s(lambda: key.open(sent, Algorithm.RSA_OAEP_SHA1), DECRYPTIONS)


def _hash_s() -> float:
    cost, material = Cost(), bytes(32)

    def derive() -> bytes:
        salt = os.urandom(16)
        by = Argon2id(salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib)
        return by.derive(material)

    return _each_s(derive, HASHES)


def _each_s(action: Callable[[], object], count: int) -> float:
    action()
    started = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - started) / count
