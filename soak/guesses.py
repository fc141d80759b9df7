"""Guesses at a PIN by whoever has a user's token, and may use every connection, node and spelling there is.

The nodes' wall time stands still, so that the lock of the first five wrong ones is in force however long it takes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from keystead.access.callers import Scope
from soak.figures import Figures, Setting
from soak.harness import fork, in_child
from soak.places import POSTGRESQL, rows
from soak.serving import Node, Site, StandingClock, running
from tests.server.clients import SET_PIN, Client, sealed
from tests.server.guessing import WAYS, flood, guessed, many_in_one, pins, spellings

USER: Final = "ada"
PIN: Final = "8259"
DEVICES: Final = ("phone", "Phone", "PHONE", "phone ", "phöne")
"""Ids of devices that are written nearly alike: each is a device of the user's, with a key of its own."""
USERS: Final = ("Ada", "ADA", "a.da", "ada\u0301", "\uff41\uff44\uff41")
"""Users that are written nearly alike: each is somebody else, who has no PIN."""
NEARLY: Final = frozenset({"DECRYPTION_FAILED", "BAD_USER_INPUT"})
"""What is answered to a name that is nearly right."""
WHERE: Final = "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Attack:
    """What whoever guesses has: nodes to ask, a token, connections to each, and the keys of devices."""

    nodes: list[Node]
    token: str
    connections: int
    keys: list[dict[str, str]]


def measure(setting: Setting, figures: Figures) -> None:
    """Guess by requests that hold many, by a flood over nodes that are restarted, and once more when the lock ends."""
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "guesses"))
    number, connections, devices = setting.choose(short=(2, 10, 2), full=(4, 200, len(DEVICES)))
    count, more = setting.choose(short=(200, 20), full=(10_000, 1_000))
    with running(site, number, StandingClock(datetime.now(UTC))) as nodes:
        token = site.token(USER, Scope.DEVICES_USE, Scope.ACT_AS)
        keys, taken = in_child(_begin, nodes[0], token, DEVICES[:devices])
        attack = Attack(nodes, token, connections, keys)
        figures.tell(WHERE, "nodes x connections to each", f"{number} x {connections}")
        figures.equal(WHERE, "requests that hold many guesses, and names that are nearly right: taken", taken, "none")
        by_nodes = _flood(figures, attack, count)
        figures.equal(WHERE, "guesses compared with the hash, as the nodes count", by_nodes, 5)
        figures.equal(WHERE, "guesses compared with the hash, as the hash counts", dict(site.compared()), {USER: 5})
        figures.equal(WHERE, "attempts in the row, and forgiven", _attempts(site), (5, 0))
        _end_lock(attack)
        in_child(_guess, attack, more)
        figures.equal(WHERE, f"compared of {more} more, once the first lock has run out", site.compared()[USER], 6)
        figures.equal(WHERE, "the right one then", set(in_child(_right, attack)), {"LOCKED"})
    report, entries = site.trail("secret.attempt")
    figures.equal(WHERE, "attempts in the audit trail", dict(Counter(each["user"] for each in entries)), {USER: 6})
    figures.equal(WHERE, "the trail verifies", report.valid, True)


def _flood(figures: Figures, attack: Attack, count: int) -> int:
    """Send the guesses, restart every node meanwhile, and try the right PIN; return what the nodes have compared."""
    first = in_child(_guess, attack, count // 2)
    compared = _compared(attack.nodes)
    rest = fork(_guess, attack, count - count // 2)
    for turn, node in enumerate(attack.nodes):
        # One after the other, and not all in the same way.
        node.kill() if turn % 2 else node.stop()
        node.start()
        node.wait()
    seen = first + rest.result(3600)
    figures.equal(WHERE, "guesses sent", seen.total(), count)
    figures.equal(WHERE, "answered: wrong", seen["WRONG"], 5)
    others = ", ".join(sorted(set(seen) - {"WRONG", "LOCKED", "UNAVAILABLE", "nothing"})) or "none"
    figures.equal(WHERE, "answered: anything but wrong, locked and unavailable", others, "none")
    told = f"{seen['UNAVAILABLE']}, {seen['nothing']}"
    figures.tell(WHERE, "not counted, for the database has too much to do; not answered, for a node is restarted", told)
    right = in_child(_right, attack)
    figures.equal(WHERE, "the right one meanwhile, by every way, node and device", set(right), {"LOCKED"})
    return compared + _compared(attack.nodes)


def _end_lock(attack: Attack) -> None:
    """Let a minute pass on every node."""
    for node in attack.nodes:
        node.stop()
        assert isinstance(node.clock, StandingClock)
        node.clock = StandingClock(node.clock.now() + timedelta(seconds=61))
        node.start()
    for node in attack.nodes:
        node.wait()


def _compared(nodes: list[Node]) -> int:
    return sum((node.inside() or {}).get("evaluated", 0) for node in nodes)


def _attempts(site: Site) -> tuple[int, int]:
    query = f"SELECT counted, cleared FROM user_credentials WHERE user_id = '{USER}' AND kind = 'transaction_pin'"
    ((counted, cleared),) = rows(site.place, query)
    return counted, cleared


def _begin(node: Node, token: str, devices: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Set the PIN, send requests that hold many guesses, and names that are nearly right.

    Return the keys of the devices, and what was not refused.
    """

    async def main() -> tuple[list[dict[str, str]], str]:
        client = Client(node.url, token)
        keys = [await client.key(device) for device in devices]
        await client.done(SET_PIN, {"encryptedPin": sealed(keys[0], PIN), "keyId": keys[0]["keyId"]})
        answers = {name: await client.post(body) for name, body in many_in_one(keys[0], pins(but=PIN)).items()}
        executed = [name for name, answer in answers.items() if answer.json().get("data") or answer.is_server_error]
        for key in spellings(keys[0]):
            if (told := await guessed(client, key, PIN)) not in NEARLY:
                executed.append(f"{key['keyId']!r}: {told}")
        for user in USERS:
            if (told := await guessed(client, keys[0], PIN, user=user)) not in NEARLY:
                executed.append(f"{user!r}: {told}")
        await client.aclose()
        return keys, ", ".join(executed) or "none"

    return asyncio.run(main())


def _guess(attack: Attack, count: int) -> Counter[str]:
    """Send so many wrong guesses over every connection, and return how they came out."""

    async def main() -> Counter[str]:
        connections = attack.connections
        clients = [Client(node.url, attack.token, connections=connections) for node in attack.nodes]
        wrong = islice(pins(but=PIN), count)
        seen = await flood(clients, attack.keys, wrong, connections=connections, user=USER)
        for client in clients:
            await client.aclose()
        return seen

    return asyncio.run(main())


def _right(attack: Attack) -> Counter[str]:
    """Send the right PIN to every node, by every way, from every device; return how it came out."""

    async def main() -> Counter[str]:
        seen: Counter[str] = Counter()
        for node in attack.nodes:
            client = Client(node.url, attack.token)
            seen.update([await guessed(client, key, PIN, way) for key in attack.keys for way in range(WAYS)])
            await client.aclose()
        return seen

    return asyncio.run(main())
