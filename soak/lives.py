"""What users do with a service whose nodes come and go; what each of them was told is noted in a file at once.

A life is that of one user with one device. What was not answered is asked again, of another node.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from soak.harness import ChildFailedError
from tests.server.clients import GENERATE, ROTATE, SET_PIN, VERIFY_PIN, Client, sealed

PIN: Final = "825914"
WRONG: Final = "915037"
AT_ONCE: Final = 8
GUESSES_AT_ONCE: Final = 4
PATIENCE: Final = 200
"""How often something is asked until it is answered."""
PAUSE_S: Final = 0.2
REVOKE: Final = "mutation RevokeDevice($deviceId: String!) { revokeDevice(deviceId: $deviceId) }"
Make = Callable[[], tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Noted:
    """What a user was told: ``what`` is key, full, secret, locked or revoked."""

    what: str
    user: str
    device: str
    key: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """An answer: its code, empty where it is good; and what was answered."""

    code: str
    result: Any = None
    was_lost_before: bool = False


@dataclass
class Lives:
    """Users, so many ``at_once``, who know nodes by their URLs and have a token that acts for each of them."""

    urls: Sequence[str]
    token: str
    folder: Path
    at_once: int = AT_ONCE
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def stop(self) -> Path:
        """The file that ends the work."""
        return self.folder / "stop"

    def begin_old(self, count: int) -> None:
        """Give keys to so many devices of one user."""

        async def main(clients: list[Client]) -> None:
            for number in range(count):
                await self._key(clients, "old", f"old-{number}", kind="X25519")

        self._run(main)

    def work(self, process: str) -> Counter[str]:
        """Live until told to stop; return how often what was answered."""

        async def main(clients: list[Client]) -> None:
            numbers = iter(range(1_000_000_000))

            async def live() -> None:
                while not self.stop.exists():
                    number = next(numbers)
                    user = f"{process}-{number}"
                    await LIVES[number % len(LIVES)](self, clients, user, f"{user}-phone")

            await asyncio.gather(*(live() for _ in range(self.at_once)))

        self._run(main)
        return self.seen

    def look(self) -> dict[str, int]:
        """Ask for what was noted; return how often it is not so, by what it was."""
        wrong: Counter[str] = Counter()

        async def main(clients: list[Client]) -> None:
            waiting = iter(noted(self.folder))

            async def ask() -> None:
                for each in waiting:
                    if each.what == "revoked":
                        answer = await self._until(clients, each.user, partial(_generate, each.device))
                        wrong[each.what] += answer.code != "FORBIDDEN"
                    elif each.what == "secret":
                        wrong[each.what] += await self._verify(clients, each.user, each.key, PIN) != "VERIFIED"

            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

        self._run(main)
        return dict(+wrong)

    def _run(self, work: Callable[[list[Client]], Awaitable[None]]) -> None:
        async def main() -> None:
            clients = [Client(url, self.token) for url in self.urls]
            await work(clients)
            for client in clients:
                await client.aclose()

        asyncio.run(main())

    async def _spend_quota(self, clients: list[Client], user: str, device: str) -> None:
        """Take new keys, several at a time, until there are no more."""

        async def rotate() -> None:
            while (answer := await self._until(clients, user, lambda: _generate(device, ROTATE))).code == "":
                self._note("key", user, device, answer.result)

        await asyncio.gather(rotate(), rotate(), rotate())
        self._note("full", user, device)

    async def _guess(self, clients: list[Client], user: str, device: str) -> None:
        """Set a PIN, and guess at it until it is locked."""
        key = await self._secret(clients, user, device)

        async def guess() -> str:
            verdict = ""
            while verdict != "LOCKED":
                verdict = await self._verify(clients, user, key, WRONG)
            return verdict

        await asyncio.gather(*(guess() for _ in range(GUESSES_AT_ONCE)))
        self._note("locked", user, device)

    async def _use(self, clients: list[Client], user: str, device: str) -> None:
        """Set a PIN, and verify it."""
        key = await self._secret(clients, user, device)
        self._note("secret", user, device, key)
        for _ in range(3):
            verdict = await self._verify(clients, user, key, PIN)
            self.seen["right and refused"] += verdict != "VERIFIED"

    async def _revoke(self, clients: list[Client], user: str, device: str) -> None:
        """Get a key, and revoke the device."""
        await self._key(clients, user, device, kind="X25519")
        answer = await self._until(clients, user, lambda: (REVOKE, {"deviceId": device}))
        if answer.code == "":
            self._note("revoked", user, device)

    async def _key(self, clients: list[Client], user: str, device: str, kind: str = "RSA_2048") -> Mapping[str, str]:
        answer = await self._until(clients, user, lambda: _generate(device, kind=kind))
        if answer.code:
            raise ChildFailedError(f"{user} gets no key: {answer.code}")
        self._note("key", user, device, answer.result)
        key: Mapping[str, str] = answer.result
        return key

    async def _secret(self, clients: list[Client], user: str, device: str) -> Mapping[str, str]:
        key = await self._key(clients, user, device)
        answer = await self._until(
            clients, user, lambda: (SET_PIN, {"input": {"encryptedPin": sealed(key, PIN), "keyId": key["keyId"]}})
        )
        # Where an answer was lost, it was set by what was asked before.
        if answer.code and not (answer.code == "FORBIDDEN" and answer.was_lost_before):
            raise ChildFailedError(f"{user} cannot set a PIN: {answer.code}")
        return key

    async def _verify(self, clients: list[Client], user: str, key: Mapping[str, str], pin: str) -> str:
        answer = await self._until(
            clients, user, lambda: (VERIFY_PIN, {"input": {"encryptedPin": sealed(key, pin), "keyId": key["keyId"]}})
        )
        return "VERIFIED" if answer.result is True else answer.code

    async def _until(self, clients: list[Client], user: str, make: Make) -> Answer:
        """Ask one node after another until one answers, anew each time."""
        was_lost = False
        for _ in range(PATIENCE):
            query, variables = make()
            try:
                response = await random.choice(clients).post(
                    {"query": query, "variables": variables}, **{"X-Keystead-User": user}
                )
            except httpx.TransportError:
                self.seen["not answered"] += 1
                was_lost = True
                await asyncio.sleep(PAUSE_S)
                continue
            answer = answer_of(response)
            self.seen[answer.code or "good"] += 1
            if answer.code not in ("UNAVAILABLE", "CONFLICT"):
                answer.was_lost_before = was_lost
                return answer
            was_lost = True
            await asyncio.sleep(PAUSE_S)
        raise ChildFailedError(f"{user} was not answered")

    def _note(self, what: str, user: str, device: str, key: Mapping[str, str] | None = None) -> None:
        line = json.dumps({"what": what, "user": user, "device": device, "key": key or {}})
        with (self.folder / "noted").open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


LIVES: Final[tuple[Callable[[Lives, list[Client], str, str], Awaitable[None]], ...]] = (
    Lives._use,
    Lives._spend_quota,
    Lives._guess,
    Lives._revoke,
)


def noted(folder: Path) -> Iterator[Noted]:
    """Give what was noted."""
    for line in (folder / "noted").read_text(encoding="utf-8").splitlines():
        yield Noted(**json.loads(line))


def answer_of(response: httpx.Response) -> Answer:
    """Return what a response says: ``HTTP`` and its status are the code of one that is no answer of GraphQL's."""
    if response.status_code not in (200, 503):
        return Answer(f"HTTP {response.status_code}")
    body = response.json()
    if body.get("errors"):
        return Answer(str(body["errors"][0]["extensions"]["code"]))
    (result,) = body["data"].values()
    told = body.get("extensions", {}).get("keystead", {})
    return Answer(str(told.get("code", "")), result)


def _generate(device: str, query: str = GENERATE, kind: str = "X25519") -> tuple[str, Mapping[str, Any]]:
    return query, {"input": {"deviceId": device, "kind": kind}}
