"""The console's pages over an installation of years: how long does a node take for each, and what does it read?"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import quote

from fastapi import FastAPI

from keystead.server.console.router import DEEDS, PAGES
from keystead.server.rest.shapes import cursor_of
from soak.console_rows import ACTIONS, DEVICE, KEYRING, LATEST, OWNER, TRANSIT, Size, fill, forget_what_waits
from soak.figures import Figures, Setting
from soak.harness import fork
from soak.metrics import DAY, NOW
from soak.places import POSTGRESQL, SQLITE, Place, rows
from soak.statements import Reading, Statements, watched
from tests.fakes.clock import FakeClock
from tests.server.clients import Installation
from tests.server.console.visitors import Visitor, visitor
from tests.server.console.workers import JOB

BAR_MS: Final = 200.0
MOST_READ: Final = {POSTGRESQL: 12_000, SQLITE: 110_000}
"""What one statement may read however large a table is: rows, and steps, of which SQLite takes five or more a row."""
OF_TIMES: Final = "metric_counts"
"""Part of the names of tables that hold numbers of a time: those of the hours that are asked for are added up."""
WORST: Final = 8
"""How many pages are told of, the slowest first."""
TIMEOUT_S: Final = 2 * 3600.0


def measure(setting: Setting, figures: Figures) -> None:
    """Fill each database, and ask for each page."""
    size = setting.choose(
        short=Size(1_000, 20, 20_000, 20_000, 20_000, 20_000),
        full=Size(1_000, 30, 100_000, 1_000_000, 1_000_000, 100_000),
    )
    turns = setting.choose(short=1, full=15)
    # The short form has fewer rows, and more by far than a statement may read; it is the full one that tells of times.
    for place in setting.databases.each(setting.folder / "console"):
        figures.rows += fork(_measure, place, size, turns, is_full=setting.is_full).result(TIMEOUT_S)


@dataclass(slots=True)
class Asked:
    """A page that was asked for: what was answered, how long each took, and what its statements have read.

    It is asked for once before, for what is read and compiled at the first time only, and once behind, when its
    statements are watched, which takes time.
    """

    address: str
    statuses: set[int] = field(default_factory=set)
    took_ms: list[float] = field(default_factory=list)
    read: list[Reading] = field(default_factory=list)

    @property
    def first_ms(self) -> float:
        """How long it took at first."""
        return self.took_ms[0]

    @property
    def median_ms(self) -> float:
        """How long it took, mostly."""
        return statistics.median(self.took_ms[1:-1])


@dataclass(slots=True)
class Timed:
    """An application, and how long it took for its last answer, whole: nothing of a client or a network is in it."""

    app: FastAPI
    took_ms: float = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, and note how long that took."""
        begun = time.perf_counter()
        await self.app(scope, receive, send)
        self.took_ms = (time.perf_counter() - begun) * 1000


def _measure(place: Place, size: Size, turns: int, *, is_full: bool) -> list[Any]:
    with watched(place) as statements:
        return asyncio.run(_measured(place, size, turns, statements, is_full=is_full))


async def _measured(place: Place, size: Size, turns: int, statements: Statements, *, is_full: bool) -> list[Any]:
    figures, clock = Figures(), FakeClock(NOW - DAY, instant=False)
    installation = Installation(place.folder, place.url, clock)
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as node:
        begun = time.monotonic()
        await fill(node, place, clock, size)
        _tell_rows(figures, place, time.monotonic() - begun)
        timed = Timed(node.app)
        ada = await visitor(node)
        ada.app = cast(FastAPI, timed)
        asked = [Asked(address) for address in addresses(place)]
        for _ in range(1 + turns):
            for each in asked:
                await _ask(ada, timed, each)
        for each in asked:
            with statements.noted() as each.read:
                await _ask(ada, timed, each)
        forget_what_waits(place)
    _compare(figures, place, asked, turns, is_full=is_full)
    return figures.rows


async def _ask(ada: Visitor, timed: Timed, page: Asked) -> None:
    page.statuses.add((await ada.get(page.address)).status_code)
    page.took_ms.append(timed.took_ms)


def _tell_rows(figures: Figures, place: Place, seconds: float) -> None:
    counted = {
        "keyrings": "keyrings",
        "versions of keys": "data_keys",
        "devices": "client_devices",
        "records of the audit trail": "audit_log",
        "rows of metrics": "encryption_metrics",
    }
    for what, table in counted.items():
        [(number,)] = rows(place, f"SELECT count(*) FROM {table}")
        figures.tell(place.kind, what, number)
    figures.tell(place.kind, "seconds to fill it", seconds)


def _compare(figures: Figures, place: Place, asked: list[Asked], turns: int, *, is_full: bool) -> None:
    figures.tell(place.kind, "pages and previews asked for", len(asked))
    wrong = [each.address for each in asked if each.statuses != {200}]
    figures.equal(place.kind, "of those not answered as they should be", ", ".join(wrong) or "none", "none")
    slowest = sorted(asked, key=lambda each: -each.median_ms)
    what = f"median of {turns}, of the server's ms"
    figures.tell(place.kind, f"{what}, over all", statistics.median(each.median_ms for each in asked))
    for each in slowest[:WORST]:
        if is_full:
            figures.at_most(place.kind, f"{what}: {each.address}", each.median_ms, BAR_MS)
        else:
            # Of fewer rows, and beside other tests: what is read is what tells.
            figures.tell(place.kind, f"{what}: {each.address}", each.median_ms)
    first = max(asked, key=lambda each: each.first_ms)
    figures.tell(place.kind, f"ms of the slowest at the first time, {first.address}", first.first_ms)
    unit, most = ("rows" if place.kind == POSTGRESQL else "steps"), MOST_READ[place.kind]
    read = [(each.read, OF_TIMES in each.sql, page.address) for page in asked for each in page.read]
    for is_of_times in (False, True):
        some = [(number, address) for number, is_so, address in read if is_so == is_of_times]
        number, address = max(some)
        of = " over numbers of a time" if is_of_times else ""
        what = f"most {unit} that one of {len(some)} statements{of} reads: {address}"
        if is_of_times:
            figures.tell(place.kind, what, number)
        else:
            figures.at_most(place.kind, what, number, most)


def addresses(place: Place) -> list[str]:
    """Return every page and every preview that the router has, and further pages of lists, and searches."""
    examples = _examples(place)
    # A page with a parameter that has no example stops the scenario: it is measured, or somebody hears of it.
    paths = [*(page.path for page in PAGES), *(deed.path for deed in DEEDS)]
    of_router = [_filled(path, examples) for path in paths]
    return [*dict.fromkeys([*of_router, *_further(place), *_searches()])]


def _filled(path: str, examples: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: examples[found[1]], path)


def _examples(place: Place) -> dict[str, str]:
    [(middle,)] = rows(place, "SELECT max(seq) / 2 FROM audit_log")
    [(token,)] = rows(place, "SELECT min(id) FROM api_tokens")
    [(session,)] = rows(place, "SELECT min(id) FROM console_sessions")
    [(approval,)] = rows(place, "SELECT max(id) FROM approvals WHERE length(id) = 16")
    return {
        "keyring": KEYRING,
        "name": KEYRING,
        "key": f"{KEYRING}/1",
        "transit": TRANSIT,
        "device": DEVICE,
        "user": OWNER,
        "kind": "passcode",
        "record": str(middle),
        "job": "keystead.rotate",
        "reencryption": JOB.id,
        "field": "people.name",
        "wish": "0" * 16,
        "token": token,
        "session": session,
        "approval": approval,
    }


def _further(place: Place) -> Iterator[str]:
    """Yield pages in the middle of lists."""
    [(devices,)] = rows(place, "SELECT count(*) / 2 FROM client_devices")
    yield f"/console/keyrings?after=tenant-{LATEST + 500}"
    yield "/console/keyrings/tenant-1000000500"
    yield f"/console/transit?after=k{LATEST + 500}"
    yield f"/console/devices?after=d{LATEST + devices}"
    yield f"/console/devices?owner={OWNER}"
    yield f"/console/devices?owner={OWNER}&after=d{LATEST + devices}"
    for hours in (1, 168, 720):
        yield f"/console/problematic-keys?hours={hours}"
    for path, table in (("tokens", "api_tokens"), ("sessions", "console_sessions"), ("approvals",) * 2):
        query = f"SELECT created_at, id FROM {table} ORDER BY created_at DESC, id LIMIT 1 OFFSET 10000"
        [place_of_last] = rows(place, query)
        yield f"/console/{path}?after={cursor_of(*place_of_last)}"
    [(until, user)] = rows(
        place, "SELECT locked_until, user_id FROM user_credentials ORDER BY locked_until, user_id LIMIT 1 OFFSET 10000"
    )
    yield f"/console/lockouts?after={quote(f'{until},passcode,{user}')}"
    [(began, job)] = rows(place, "SELECT created_ms, id FROM reencryptions ORDER BY created_ms LIMIT 1 OFFSET 5000")
    yield f"/console/jobs?after={began},{job}"
    [(size,)] = rows(place, "SELECT max(seq) FROM audit_log")
    yield f"/console/audit?before={size // 2}"


def _searches() -> Iterator[str]:
    """Yield searches of the trail, most of which find nothing, and some a page far back."""
    early, late = (f"{NOW - timedelta(days=days):%Y-%m-%dT%H:%M}" for days in (400, -400))
    begin, end = (f"{NOW - timedelta(hours=hours):%Y-%m-%dT%H:%M}" for hours in (20, 19))
    asked = (
        "everything=yes",
        "actor=nobody",
        "actor=clerk-7",
        "action=order.absent",
        f"action={ACTIONS[1]}",
        "keyring=absent",
        f"keyring={KEYRING}",
        # Each of both has many, and none is of both.
        f"keyring={KEYRING}&action={ACTIONS[2]}",
        f"keyring={KEYRING}&key_id={LATEST}",
        f"action={ACTIONS[0]}&actor=nobody",
        "key_id=1",
        f"key_id={LATEST}",
        f"since={late}",
        f"until={early}",
        f"since={begin}&until={end}",
        f"since={begin}&until={end}&actor=nobody",
        f"since={begin}&until={end}&action={ACTIONS[1]}",
        f"until={early}&keyring={KEYRING}",
        f"since={late}&action={ACTIONS[0]}",
    )
    yield from (f"/console/audit?{each}" for each in asked)
