"""What a service stands on, and what is gone for a while: the database, the KMS, the right time, room on the disk.

The database goes under nodes that are processes. The other faults are met by a node in a process of ours, whose KMS,
clock and limits can be reached.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from keystead.access.callers import Scope
from keystead.ports import KmsProvider
from keystead.providers import registry
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.testing import FakeKMS
from soak.figures import Figures, Setting
from soak.harness import fork, in_child
from soak.lives import PIN, WRONG, Lives, answer_of
from soak.places import POSTGRESQL, SQLITE, Databases, Place, own_server, rows
from soak.serving import Node, Site, running
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresServer
from tests.fakes.world import polled
from tests.server import clients
from tests.server.clients import GENERATE, ROTATE, SET_PIN, VERIFY_PIN, Client, Installation, sealed

GOOD: Final = "good"
GONE: Final = "UNAVAILABLE"
READY: Final = "ready"
USER: Final = "ada"
SCOPES: Final = (Scope.DEVICES_USE, Scope.SECRETS_RESET, Scope.ACT_AS)
LIST: Final = "query List($deviceId: String!) { listClientEncryptionKeys(deviceId: $deviceId) { keyId } }"
DOCUMENTED: Final = frozenset(
    {GOOD, GONE, "DECRYPTION_FAILED", "KEY_EXPIRED", "LOCKED", "RATE_LIMITED", "FORBIDDEN", "WRONG"}
)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEPS: Final = (-HOUR, HOUR, -DAY, DAY, -400 * DAY, 31 * DAY, 400 * DAY)
PATIENCE_S: Final = 60.0
RECOVERY_S: Final = 30.0
MOST: Final = 2_000
ROOM: Final = 1024 * 1024
MANY_KEYS: Final = {"KEYSTEAD_KEYGEN_MAX_PER_MINUTE": "1000000"}
"""Users get new keys as fast as nodes make them: what ends that is the quota of each."""
Key = Mapping[str, str]


def measure(setting: Setting, figures: Figures) -> None:
    """Meet each fault."""
    seconds = setting.choose(short=2.0, full=30.0)
    with own_server() as server:
        site = Site(Databases(server.url()).place(POSTGRESQL, setting.folder / "database"), MANY_KEYS)
        with running(site, 2) as nodes:
            outage = Outage(site, nodes, site.token(USER, *SCOPES))
            outage.key = in_child(_begin, nodes[0].url, outage.token)
            outage.meet(figures, "database gone", _gone(server), seconds)
            outage.meet(figures, "database silent", server.silent(), seconds)
        report, _ = site.trail()
        figures.equal("database", "the audit trail verifies, as one chain", report.valid, True)
    for part in (_kms_gone, _clock_steps, _disk_full):
        folder = setting.folder / part.__name__
        folder.mkdir()
        figures.rows += in_child(part, folder).rows


@contextmanager
def _gone(server: PostgresServer) -> Iterator[None]:
    server.stop(crash=True)
    yield
    server.start()


class KmsOfService:
    """Opens ``soakkms:`` as the one KMS in memory that there is in this process."""

    kms: ClassVar[FakeKMS]

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[KmsProvider, str | None]:
        """Return it, and the key that the URI names."""
        return cls.kms, uri.body


class Outage:
    """Nodes, users who keep them busy, and one who asks for everything again and again while the database is away."""

    def __init__(self, site: Site, nodes: list[Node], token: str) -> None:
        self.site = site
        self.nodes = nodes
        self.token = token
        self.key: Key = {}

    def meet(self, figures: Figures, where: str, fault: AbstractContextManager[None], seconds: float) -> None:
        """Have the fault for so long, and compare what was told before, during and after it."""
        folder = self.site.place.folder / where.replace(" ", "-")
        folder.mkdir()
        lives = Lives([node.url for node in self.nodes], self.token, folder, at_once=2)
        worker = fork(lives.work, where)
        time.sleep(seconds / 2)
        compared = self.site.compared()[USER]
        with fault:
            begun = time.monotonic()
            asker = fork(self._ask, folder / "over")
            time.sleep(seconds)
            # No health is asked for where nobody answers: a request waits, as it may.
            health = in_child(_health, self.nodes[0].url) if where == "database gone" else ""
            guessed = self.site.compared()[USER] - compared
            (folder / "over").touch()
        during, after, recovered_s = asker.result(PATIENCE_S + seconds)
        lives.stop.touch()
        seen = worker.result(PATIENCE_S + seconds)
        if health:
            figures.equal(where, "answers meanwhile, to everything", set(during), {GONE})
            figures.equal(where, "alive, and ready", health, "200, 503 UNAVAILABLE")
            figures.equal(where, "guesses compared meanwhile", guessed, 0)
        figures.tell(where, "seconds", time.monotonic() - begun)
        figures.at_most(where, "seconds until everything is answered again", recovered_s, RECOVERY_S)
        codes = (set(during) | set(after)) - {GOOD, GONE}
        figures.equal(where, "other answers", codes or "none", "none")
        figures.equal(
            where, "users who met an error of 500", sum(seen[c] for c in seen if "INTERNAL" in c or "HTTP" in c), 0
        )
        figures.tell(
            where, "answers to users", ", ".join(f"{count} {code}" for code, count in sorted(seen.items()) if count)
        )
        figures.equal(where, "what users were told and does not hold", in_child(lives.look) or "nothing", "nothing")

    def _ask(self, over: Path) -> tuple[Counter[str], Counter[str], float]:
        """Ask until the fault is over, and then until everything is good; return the codes of both, and seconds."""

        async def main() -> tuple[Counter[str], Counter[str], float]:
            during, after = Counter[str](), Counter[str]()
            client = Client(self.nodes[-1].url, self.token)
            while not over.exists():
                told = await codes(client, self.key)
                (after if over.exists() else during).update(told.values())
                await asyncio.sleep(0.1)
            begun = time.monotonic()
            while set((told := await codes(client, self.key)).values()) != {GOOD}:
                after.update(told.values())
                await asyncio.sleep(0.1)
            await client.aclose()
            return during, after, time.monotonic() - begun

        return asyncio.run(main())


@dataclass
class Own:
    """A node in this process, with its clock, a client and the key of a device."""

    node: clients.Node
    clock: FakeClock
    client: Client
    key: Key

    async def codes(self) -> dict[str, str]:
        """Ask for everything; return what was answered."""
        return await codes(self.client, self.key)

    async def guess(self, pin: str) -> str:
        """Return how a guess came out."""
        return await _code(self.client, VERIFY_PIN, {"encryptedPin": sealed(self.key, pin), "keyId": self.key["keyId"]})


@asynccontextmanager
async def _own(folder: Path, **environ: str) -> AsyncIterator[Own]:
    clock = FakeClock(instant=False)
    installation = Installation(folder, f"sqlite:///{folder}/keys.db", clock)
    async with installation.node(environ={f"KEYSTEAD_{name}": value for name, value in environ.items()}) as node:
        client = await node.client(USER, *SCOPES)
        yield Own(node, clock, client, await _begun(client))


def _kms_gone(folder: Path) -> Figures:
    """Have a KMS in memory be away for half a minute, then until nothing is used without it, and come back."""
    figures, where = Figures(), "KMS gone"
    KmsOfService.kms = kms = FakeKMS()
    registry.register("soakkms", f"{__name__}:{KmsOfService.__name__}")

    async def main() -> None:
        async with _own(folder, KMS="soakkms:kek", KEYGEN_MAX_PER_DEVICE="1000") as own:
            kms.fail_always()
            told: set[str] = set()
            for _ in range(10):
                await _later(own, timedelta(seconds=3))
                told |= set((await own.codes()).values())
            figures.equal(where, "answers while it is away for 30 s", told, {GOOD})
            await _later(own, 2 * HOUR + timedelta(minutes=5))
            compared = own.node.service.devices.secrets.evaluated
            away = await own.codes()
            figures.equal(where, "answers after the grace: verify, set, ready", _some(away), {GONE})
            figures.equal(where, "other answers then", set(away.values()) - {GOOD, GONE} or "none", "none")
            figures.equal(where, "guesses compared then", own.node.service.devices.secrets.evaluated - compared, 0)
            kms.heal()
            waited = 0
            while set((await own.codes()).values()) != {GOOD} and waited < PATIENCE_S:
                waited += 1
                await _later(own, timedelta(seconds=1))
            figures.at_most(where, "seconds until everything is answered again", waited, RECOVERY_S)

    asyncio.run(main())
    return figures


def _some(told: Mapping[str, str]) -> set[str]:
    return {told["verify"], told["set"], told[READY]}


def _clock_steps(folder: Path) -> Figures:
    """Have the wall time be wrong, one way and the other, and right again."""
    figures, where = Figures(), "clock steps"

    async def main() -> None:
        async with _own(folder, KEYGEN_MAX_PER_DEVICE="5") as own:
            right = own.clock.now()
            told: set[str] = set()
            for step in STEPS:
                own.clock.set(right + step)
                await polled(own.node.service.manager)
                told |= set((await own.codes()).values())
                told.add(await own.guess(WRONG))
                own.clock.set(right)
                await polled(own.node.service.manager)
            figures.equal(where, "steps", len(STEPS), len(STEPS))
            figures.tell(where, "answers while the time is wrong", ", ".join(sorted(told)))
            figures.equal(where, "of them not documented", told - DOCUMENTED or "none", "none")
            await _compare_times(figures, where, own)

    asyncio.run(main())
    return figures


async def _compare_times(figures: Figures, where: str, own: Own) -> None:
    """See that a lock, a quota and a secret are as they were, whatever the time has been."""
    right = own.clock.now()
    # A reset ends what the wrong guesses have begun.
    await own.codes()
    figures.equal(where, "the right PIN afterwards", await own.guess(PIN), GOOD)
    for _ in range(5):
        await own.guess(WRONG)
    answers = {}
    for step in (-DAY, -HOUR, timedelta(0)):
        own.clock.set(right + step)
        answers[step] = await own.guess(PIN)
    figures.equal(where, "the right PIN while locked, at times before that", set(answers.values()), {"LOCKED"})
    made = 0
    for step in (timedelta(0), -HOUR, -DAY, timedelta(0)):
        own.clock.set(right + step)
        made += [await _code(own.client, ROTATE, {"deviceId": "tablet"}) for _ in range(5)].count(GOOD)
    figures.equal(where, "new keys of a device while the time goes back and forth within a day", made, 5)


def _disk_full(folder: Path) -> Figures:
    """Forbid the store's files to grow, ask for everything, and allow it again."""
    figures, where = Figures(), "disk full"

    async def main() -> None:
        async with _own(folder, KEYGEN_MAX_PER_USER="100000", KEYGEN_MAX_PER_MINUTE="100000") as own:
            largest = max(path.stat().st_size for path in folder.glob("keys.db*"))
            _limit(largest + ROOM)
            devices: list[str] = []
            code = GOOD
            while code == GOOD and len(devices) < MOST:
                devices.append(f"device-{len(devices)}")
                code = await _code(own.client, GENERATE, {"deviceId": devices[-1], "kind": "X25519"})
            figures.equal(where, "the answer that ends new keys", code, GONE)
            compared, counted = own.node.service.devices.secrets.evaluated, _counted(folder)
            # What is small may find room where a key pair does not, and takes the last of it.
            full = await own.codes()
            for _ in range(MOST):
                if {full["set"], full["verify"]} == {GONE}:
                    break
                full = await own.codes()
            figures.equal(where, "answers while it is full: set, verify", {full["set"], full["verify"]}, {GONE})
            figures.equal(where, "other answers then", set(full.values()) - {GOOD, GONE} or "none", "none")
            compared = own.node.service.devices.secrets.evaluated - compared
            figures.at_most(where, "guesses compared then, of those counted", compared, _counted(folder) - counted)
            _limit(resource.RLIM_INFINITY)
            figures.equal(
                where, "answers once there is room, without restart", set((await own.codes()).values()), {GOOD}
            )
            kept = [await _code(own.client, LIST, {}, deviceId=device) for device in devices[:-1]]
            figures.at_least(where, "keys handed out before it was full", len(kept), 10)
            figures.equal(where, "of them there", kept.count(GOOD), len(kept))

    asyncio.run(main())
    return figures


def _counted(folder: Path) -> int:
    ((counted,),) = rows(Place(SQLITE, "", folder), "SELECT sum(counted) FROM user_credentials")
    return int(counted)


def _limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def _later(own: Own, step: timedelta) -> None:
    own.clock.advance(step)
    await polled(own.node.service.manager)


def _begin(url: str, token: str) -> Key:
    async def main() -> Key:
        client = Client(url, token)
        key = await _begun(client)
        await client.aclose()
        return key

    return asyncio.run(main())


async def _begun(client: Client) -> Key:
    key = await client.key()
    await client.done(SET_PIN, {"encryptedPin": sealed(key, PIN), "keyId": key["keyId"]})
    return key


def _health(url: str) -> str:
    async def main() -> str:
        client = Client(url)
        lives, told = await client.get("/livez"), await _ready(client)
        await client.aclose()
        return f"{lives.status_code}, {told}"

    return asyncio.run(main())


async def codes(client: Client, key: Key) -> dict[str, str]:
    """Ask a node for everything that it does for a device; return what was answered."""
    key_id, sent = key["keyId"], sealed(key, PIN)
    told = {
        "generate": await _code(client, GENERATE, {"deviceId": "device-123"}),
        "list": await _code(client, LIST, {}, deviceId="device-123"),
        "verify": await _code(client, VERIFY_PIN, {"encryptedPin": sealed(key, PIN), "keyId": key_id}),
        "set": await _code(client, SET_PIN, {"encryptedPin": sent, "keyId": key_id}),
    }
    ready = await _ready(client)
    return {**told, READY: GOOD if ready == "200" else ready.partition(" ")[2]}


async def _ready(client: Client) -> str:
    response = await client.get("/readyz")
    causes = {cause["component"] for cause in response.json().get("causes", ())}
    return f"{response.status_code} {GONE if causes & {'database', 'kms'} else ''}".strip()


async def _code(client: Client, query: str, given: Mapping[str, object], **variables: str) -> str:
    response = await client.post({"query": query, "variables": variables or {"input": given}})
    return answer_of(response).code or GOOD
