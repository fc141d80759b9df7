"""What a documented verification costs a node in processor time, beside what it cannot do without.

A decryption by RSA and a hash by Argon2id are measured in turn with it, and taken off: what is left is HTTP, GraphQL,
the database, which keeps statements prepared, the count of guesses, the audit trail and the metrics.

They are measured in a process that rests before each as long as the node does for a verification, which waits for its
database. In a tight loop the same code takes less: its memory stays in the caches, and the
processor does not slow down. That loop is measured beside it, as a figure.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from keystead.access.callers import Scope
from keystead.crypto.argon2id import argon2id
from keystead.devices.hashing import Cost
from keystead.devices.pairs import Algorithm, OpenKey, encrypt_to, make_pair
from keystead.ports import PairKind
from soak.figures import Figures, Setting
from soak.harness import in_child
from soak.places import POSTGRESQL
from soak.serving import Node, Site, running
from tests.server.clients import SET_PASSCODE, VERIFY_PASSCODE, Client, sealed

WHERE: Final = POSTGRESQL
BAR: Final = 5.0
PASSCODE: Final = "correct horse"
Key = dict[str, str]


def measure(setting: Setting, figures: Figures) -> None:
    """Verify, decrypt and hash in turn, again and again."""
    rounds, each = setting.choose(short=(2, 20), full=(25, 60))
    place = setting.databases.place(POSTGRESQL, setting.folder / "cost")
    # As docs/guides/operate-the-service.md advises where no pooler stands between.
    site = Site(replace(place, url=f"{place.url}{'&' if '?' in place.url else '?'}prepare_threshold=5"))
    with running(site, 1) as (node,):
        token = site.token("ada", Scope.DEVICES_USE)
        key = in_child(_begin, node.url, token)
        in_child(_verify, node.url, token, key, each)
        measured = []
        for _ in range(rounds):
            node_s, rest_s = _node_s(node, token, key, each)
            measured.append((node_s, rest_s, *in_child(_bare_s, rest_s, each), *in_child(_bare_s, 0.0, each)))
    told = (
        "ms of a node's processor time for a verification",
        "ms that it rests meanwhile",
        "ms for a decryption by RSA-2048 alone, with such rests",
        "ms for Argon2id alone, with such rests",
        "ms for a decryption by RSA-2048 alone, without rests",
        "ms for Argon2id alone, without rests",
    )
    figures.tell(WHERE, "verifications in a round, and rounds", f"{each}, {rounds}")
    for what, column in zip(told, zip(*measured, strict=True), strict=True):
        figures.tell(WHERE, what, statistics.median(column) * 1000)
    rest = statistics.median((whole - one - other) / one for whole, _, one, other, *_ in measured)
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


def _node_s(node: Node, token: str, key: Key, count: int) -> tuple[float, float]:
    """Return the processor time that a verification takes of the node, out of so many, and how long that rests."""
    before = _used_s(node.pid)
    whole_s = in_child(_verify, node.url, token, key, count)
    used_s = (_used_s(node.pid) - before) / count
    return used_s, max(whole_s - used_s, 0.0)


def _verify(url: str, token: str, key: Key, count: int) -> float:
    sent = [
        {"encryptedPasscode": sealed(key, PASSCODE), "keyId": key["keyId"], "passwordAuthType": "PASSCODE"}
        for _ in range(count)
    ]

    async def main() -> float:
        client, began = Client(url, token), time.monotonic()
        # One after the other: two hashes at a time take longer, each, than the one that is taken off.
        for each in sent:
            assert await client.done(VERIFY_PASSCODE, each) is True
        whole_s = time.monotonic() - began
        await client.aclose()
        return whole_s / count

    return asyncio.run(main())


def _used_s(pid: int) -> float:
    """Return the processor time of a process and its threads so far (``proc(5)``)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_s(rest_s: float, count: int) -> tuple[float, float]:
    """Return the processor time of a decryption and of a hash, each out of so many, after a rest each time."""
    pair, cost, material = make_pair(PairKind.RSA_2048), Cost(), bytes(32)
    key = OpenKey(PairKind.RSA_2048, pair.private)
    sent = encrypt_to(pair.public, PASSCODE.encode(), Algorithm.RSA_OAEP_SHA1)
    used = [0.0, 0.0]
    for _ in range(count):
        time.sleep(rest_s)
        begun = time.process_time()
        key.open(sent, Algorithm.RSA_OAEP_SHA1)
        opened, salt = time.process_time(), os.urandom(16)
        argon2id(material, salt, length=32, **asdict(cost))
        used[0] += opened - begun
        used[1] += time.process_time() - opened
    return used[0] / count, used[1] / count
