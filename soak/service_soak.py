"""A node that is kept busy with everything it does, good and bad, while what it has in use is watched."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from keystead.access.callers import Scope
from soak.figures import Figures, Setting
from soak.growth import Moment, compare, look
from soak.harness import Child, fork
from soak.lives import PIN, WRONG, answer_of
from soak.places import POSTGRESQL
from soak.serving import Node, Site, running
from tests.server.clients import GENERATE, ROTATE, SET_PIN, VERIFY_PIN, Client, sealed

WHERE: Final = POSTGRESQL
USERS: Final = 20
AT_ONCE: Final = 4
EVERY_S: Final = 0.2
MOMENTS: Final = 2_000
ENVIRON: Final = {
    "KEYSTEAD_CLIENT_KEYS_READY": "3",
    "KEYSTEAD_KEYGEN_MAX_PER_DEVICE": "1000000",
    "KEYSTEAD_KEYGEN_MAX_PER_USER": "1000000",
    "KEYSTEAD_KEYGEN_MAX_PER_MINUTE": "1000000",
}
SCOPES: Final = (Scope.DEVICES_USE, Scope.SECRETS_RESET, Scope.ACT_AS, Scope.METRICS_READ)
SUMMARY: Final = "{ getEncryptionMetricsSummary }"


def measure(setting: Setting, figures: Figures) -> None:
    """Keep a node busy, look at it again and again, and see whether it grows."""
    seconds, least, most_mib = setting.choose(short=(6.0, 240, 64.0), full=(1800.0, 10_000, 8.0))
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "soak"), dict(ENVIRON))
    with running(site, 1) as (node,):
        worker = fork(_work, node.url, site.token("back end", *SCOPES), seconds, least)
        moments = _watch(node, worker, max(EVERY_S, seconds / MOMENTS))
        seen = worker.result()
    figures.tell(WHERE, "requests", seen.total())
    figures.tell(WHERE, "answers", ", ".join(f"{number} {code}" for code, number in sorted(seen.items())))
    internal = {code for code in seen if code.startswith(("INTERNAL", "HTTP 5"))}
    figures.equal(WHERE, "answers of 500", ", ".join(internal) or "none", "none")
    compare(figures, WHERE, moments, most_mib)


def _watch(node: Node, worker: Child[Counter[str]], every_s: float) -> list[Moment]:
    begun, moments = time.monotonic(), list[Moment]()
    while worker.is_running():
        moments.append(look(node, time.monotonic() - begun))
        time.sleep(every_s)
    return moments


def _work(url: str, token: str, seconds: float, least: int) -> Counter[str]:
    """Do everything that clients do, right and wrong, for so long and so often at least; return what was answered."""

    async def main() -> Counter[str]:
        seen, until = Counter[str](), time.monotonic() + seconds
        client, nobody = Client(url, token), Client(url, "ks_nobody")
        keys: dict[str, Mapping[str, str]] = {}

        async def user() -> None:
            while time.monotonic() < until or seen.total() < least:
                name = f"user-{random.randrange(USERS)}"
                query, variables = _request(name, keys.get(name))
                # One in twenty shows a token that is none.
                asked = client if random.randrange(20) else nobody
                response = await asked.post({"query": query, "variables": variables}, **{"X-Keystead-User": name})
                answer = answer_of(response)
                seen[answer.code or "good"] += 1
                if isinstance(answer.result, dict):
                    keys[name] = answer.result

        await asyncio.gather(*(user() for _ in range(AT_ONCE)))
        await client.aclose()
        await nobody.aclose()
        return seen

    return asyncio.run(main())


def _request(user: str, key: Mapping[str, str] | None) -> tuple[str, Mapping[str, object] | None]:
    """Return a document and its variables, of one kind or another."""
    device = {"input": {"deviceId": f"{user}-phone"}}
    if key is None:
        return GENERATE, device
    key_id, kind = {"keyId": key["keyId"]}, random.randrange(20)
    if kind < 8:
        return VERIFY_PIN, {"input": {"encryptedPin": sealed(key, PIN), **key_id}}
    if kind < 11:
        return SET_PIN, {"input": {"encryptedPin": sealed(key, PIN), **key_id}}
    if kind < 13:
        return VERIFY_PIN, {"input": {"encryptedPin": sealed(key, WRONG), **key_id}}
    if kind < 15:
        return VERIFY_PIN, {"input": {"encryptedPin": "A" * 344, **key_id}}
    if kind < 17:
        return f"{{ nothing{random.randrange(1 << 60)} }}", None
    if kind < 18:
        return SUMMARY, None
    return (ROTATE if kind < 19 else GENERATE), device
