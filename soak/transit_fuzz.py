"""The machine API is sent anything: requests by its paths, and recorded ones that are changed, to a node for each."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from keystead.access.transit_scopes import transit_scope
from keystead.server.vault.answers import ROOMS
from soak.figures import Figures, Setting
from soak.growth import Moment, compare, look
from soak.harness import fork
from soak.places import POSTGRESQL
from soak.serving import Node, Site, running
from soak.transit_requests import Maker, shown
from tests.transit.replay.wire import Answer, Line, Request

MOMENTS: Final = 60
HANG_S: Final = 30.0
TIMEOUT_S: Final = 12 * 3600.0
WAYS: Final = ("by path", "recorded, changed")
REFUSED: Final = frozenset({"errors", "data", "warnings"})


@dataclass
class Found:
    """What came out of the requests to one node."""

    answers: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    slowest_s: float = 0.0


def measure(setting: Setting, figures: Figures) -> None:
    """Send so many requests of each kind."""
    wanted, most_mib = setting.choose(short=(500, 64.0), full=(100_000, 16.0))
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "transit-fuzz"))
    with running(site, len(WAYS)) as nodes:
        token = site.token("fuzz", transit_scope("transit:*:*"))
        seeds = [int.from_bytes(os.urandom(4), "big") for _ in WAYS]
        asked = list(zip(WAYS, nodes, seeds, strict=True))
        for (where, _, seed), child in zip(asked, [fork(_fuzz, *each, token, wanted) for each in asked], strict=True):
            found = child.result(TIMEOUT_S)
            figures.equal(where, "requests", found.answers.total(), wanted)
            told = ", ".join(f"{number} {code}" for code, number in sorted(found.answers.items()))
            figures.tell(where, "answers", told)
            figures.at_most(where, "seconds of the slowest", found.slowest_s, HANG_S)
            problems = [f"seed {seed}: {each}" for each in list(found.problems.values())[:5]]
            figures.equal(where, "errors of 500, hangs, answers of another form", "; ".join(problems) or "none", "none")
            compare(figures, where, found.moments, most_mib)


def _fuzz(where: str, node: Node, seed: int, token: str, wanted: int) -> Found:
    maker, line, found = Maker(token, random.Random(seed)), Line(node.url), Found()
    make = maker.by_path if where == WAYS[0] else maker.by_recording
    for request in maker.first():
        line.send(request)
    while found.answers.total() < wanted:
        request = make()
        if maker.is_rare(request):
            continue
        number = found.answers.total()
        if number % max(1, wanted // MOMENTS) == 0:
            found.moments.append(look(node, number))
        began = time.monotonic()
        answer = line.send(request)
        found.slowest_s = max(found.slowest_s, time.monotonic() - began)
        found.answers[str(answer.status)] += 1
        maker.keep(answer)
        if told := problem_of(request, answer):
            found.problems.setdefault(told, f"{told}: {shown(request)}")
    line.close()
    return found


def problem_of(request: Request, answer: Answer) -> str | None:
    """Return what is wrong with the answer to a request; None if nothing is."""
    if answer.status is None:
        return "the connection was closed"
    is_asked_for = isinstance(answer.body, dict) and "batch_results" in (answer.body.get("data") or {})
    if answer.status >= 500 and not is_asked_for and not request.sent_path.startswith("/v1/sys/health"):
        return f"HTTP {answer.status}"
    if request.method == "HEAD" or answer.status == 204:
        return None if answer.body is None else "a body where there is none"
    if not request.sent_path.startswith(ROOMS):
        return None
    if answer.headers.get("content-type") != "application/json" or not isinstance(answer.body, dict):
        return f"no JSON with {answer.status}"
    if answer.status < 300:
        return None if "errors" not in answer.body else "errors in a good answer"
    has_texts = isinstance(answer.body.get("errors"), list) and len(answer.errors) == len(answer.body["errors"])
    return None if has_texts or is_asked_for else f"no errors with {answer.status}"
