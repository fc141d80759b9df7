"""The machine API is sent anything: requests by its paths, and recorded ones that are changed, to a node for each."""

from __future__ import annotations

import random
import time
from typing import Final

from keystead.access.transit_scopes import transit_scope
from keystead.server.vault.answers import ROOMS
from soak import fuzzing
from soak.figures import Figures, Setting
from soak.fuzzing import Found
from soak.places import POSTGRESQL
from soak.serving import Node, Site, running
from soak.transit_requests import Maker, shown
from tests.transit.replay.wire import Answer, Line, Request

WAYS: Final = ("by path", "recorded, changed")
LONGEST_TARGET: Final = 65_535
"""Characters of a path with its query that the HTTP server reads; it refuses a longer one before it is a request."""


def measure(setting: Setting, figures: Figures) -> None:
    """Send so many requests of each kind."""
    wanted, most_mib = setting.choose(short=(500, 64.0), full=(100_000, 16.0))
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "transit-fuzz"))
    with running(site, len(WAYS)) as nodes:
        token = site.token("fuzz", transit_scope("transit:*:*"))
        fuzzing.measure(
            figures,
            _fuzz,
            list(zip(WAYS, nodes, strict=True)),
            token,
            wanted=wanted,
            most_mib=most_mib,
            problems="errors of 500, hangs, answers of another form",
        )


def _fuzz(where: str, node: Node, seed: int, token: str, wanted: int) -> Found:
    maker, line, found, slowest_s = Maker(token, random.Random(seed)), Line(node.url), Found(), 0.0
    make = maker.by_path if where == WAYS[0] else maker.by_recording
    for request in maker.first():
        line.send(request)
    while found.answers.total() < wanted:
        request = make()
        if maker.is_rare(request):
            continue
        found.look(node, wanted)
        began = time.monotonic()
        answer = line.send(request)
        slowest_s = max(slowest_s, time.monotonic() - began)
        found.answers[str(answer.status)] += 1
        maker.keep(answer)
        if told := problem_of(request, answer):
            found.problems.setdefault(told, f"{told}: {shown(request)}")
    line.close()
    found.slowest_s = slowest_s
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
    if len(request.target) > LONGEST_TARGET:
        return None if answer.status == 400 else f"HTTP {answer.status} to a path that is too long"
    if not request.sent_path.startswith(ROOMS):
        return None
    if answer.headers.get("content-type") != "application/json" or not isinstance(answer.body, dict):
        return f"no JSON with {answer.status}"
    if answer.status < 300:
        return None if "errors" not in answer.body else "errors in a good answer"
    has_texts = isinstance(answer.body.get("errors"), list) and len(answer.errors) == len(answer.body["errors"])
    return None if has_texts or is_asked_for else f"no errors with {answer.status}"
