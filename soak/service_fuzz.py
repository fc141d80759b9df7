"""Requests that fit the schemas of the service, and such that nearly do, made up by schemathesis.

Each API is taken as it describes itself: GraphQL by the schema of the documentation, REST by what the node serves as
OpenAPI. Both are asked at the same time, each on a node of its own over the same database. Every few requests another
user sends them, so that no limit of one keeps what comes next out.
"""

from __future__ import annotations

import json
import random
import re
import urllib.request
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import hypothesis
import requests
import schemathesis
from graphql import build_schema
from hypothesis import HealthCheck, Phase, strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from keystead.access.callers import EVERY_SCOPE
from soak import fuzzing
from soak.conforming import problem_of
from soak.figures import Figures, Setting
from soak.fuzzing import HANG_S, Found
from soak.places import POSTGRESQL
from soak.report import ROOT
from soak.serving import Node, Site, running

SDL: Final = ROOT / "docs" / "reference" / "schema.graphql"
TURN: Final = 250
"""Requests of one run of Hypothesis, which remembers what it has made up."""
USER_EVERY: Final = 5
ENVIRON: Final = {"KEYSTEAD_KEYGEN_MAX_PER_MINUTE": "30"}
"""Most requests for a key pair are refused: those that make one take a hundred times as long."""
IDS: Final = re.compile(r'(appVersion|deviceId|keyId|userId): "(?:[^"\\]|\\.)*"')
"""Ids in a document, every other of which is made one that may be: of what is made up, hardly any is."""
LONG: Final = {"POST /v1/maintain", "POST /v1/jobs/{name}/run", "POST /v1/rewrap", "POST /v1/audit/checkpoint"}
LONG_EVERY: Final = 50
"""How often those are sent: they go through all keyrings, of which the other requests make thousands, or wait until the
trail is sealed."""
DOTS: Final = frozenset({".", ".."})
"""Parts of a path that clients resolve, so that something else is asked for."""
Case = schemathesis.Case[Any]
Problem = Callable[[Case, schemathesis.Response], str | None]


def measure(setting: Setting, figures: Figures) -> None:
    """Send so many requests to each API, of a node of its own."""
    wanted, most_mib = setting.choose(short=(500, 64.0), full=(50_000, 16.0))
    site = Site(setting.databases.place(POSTGRESQL, setting.folder / "fuzz"), dict(ENVIRON))
    apis = ("GraphQL", "REST")
    with running(site, len(apis)) as nodes:
        token = site.token("fuzz", *EVERY_SCOPE)
        fuzzing.measure(
            figures,
            _fuzz,
            list(zip(apis, nodes, strict=True)),
            token,
            wanted=wanted,
            most_mib=most_mib,
            problems="errors of 500, hangs, answers that do not fit",
        )


def _fuzz(where: str, node: Node, seed: int, token: str, wanted: int) -> Found:
    schema, problem = _graphql(node) if where == "GraphQL" else _rest(node)
    cases = strategies.one_of(
        schema.as_strategy(), *(schema.as_strategy(generation_mode=mode) for mode in [GenerationMode.NEGATIVE])
    )
    found, session, chance = Found(), requests.Session(), random.Random(seed)

    def send(case: Case) -> None:
        number = found.answers.total()
        if number >= wanted or (case.operation.label in LONG and chance.randrange(LONG_EVERY)):
            return
        if not DOTS.isdisjoint(map(str, case.path_parameters.values())):
            return
        found.look(node, wanted)
        if number % 2 and isinstance(case.body, str):
            case.body = IDS.sub(r'\1: "phone"', case.body)
        user = f"user {number // USER_EVERY}"
        headers = {"Authorization": f"Bearer {token}", "X-Keystead-User": user}
        try:
            response = case.call(node.url, session, headers, timeout=HANG_S)
        except requests.RequestException as exc:
            found.answers["none"] += 1
            found.problems.setdefault(type(exc).__name__, f"{case.operation.label}: {exc!r}")
            return
        found.answers[_code(response)] += 1
        if told := problem(case, response):
            found.problems.setdefault(
                f"{case.operation.label}: {told}", f"{case.operation.label}: {told}: {case.body!r}"
            )

    while found.answers.total() < wanted:
        _turn(send, cases, chance.randrange(1 << 32))
    return found


def _code(response: schemathesis.Response) -> str:
    """Return what kind of answer it is: its status, and the code of GraphQL's error."""
    if b'"errors"' not in response.content:
        return str(response.status_code)
    return f"{response.status_code} {response.json()['errors'][0]['extensions']['code']}"


def _turn(send: Callable[[Case], None], cases: strategies.SearchStrategy[Any], seed: int) -> None:
    """Send some requests that are made up from a seed; nothing that is found stops them."""
    quiet = hypothesis.settings(
        max_examples=TURN,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    hypothesis.seed(seed)(quiet(hypothesis.given(cases)(send)))()


def _graphql(node: Node) -> tuple[schemathesis.BaseSchema, Problem]:
    text = SDL.read_text(encoding="utf-8")
    schema, types = schemathesis.graphql.from_file(text), build_schema(text)
    schema.location = f"{node.url}/graphql"

    def problem(case: Case, response: schemathesis.Response) -> str | None:
        try:
            body = response.json()
        except ValueError:
            return "no JSON"
        return problem_of(types, str(case.body), response.status_code, body)

    return schema, problem


def _rest(node: Node) -> tuple[schemathesis.BaseSchema, Problem]:
    with urllib.request.urlopen(f"{node.url}/openapi.json", timeout=HANG_S) as answer:
        schema = schemathesis.openapi.from_dict(json.load(answer))
    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]

    def problem(case: Case, response: schemathesis.Response) -> str | None:
        try:
            case.validate_response(response, checks=wanted)
        except FailureGroup as exc:
            told = "; ".join(each.title for each in exc.exceptions)
            return f"{told} ({response.status_code} to {urlsplit(response.request.url or '').path})"
        return None

    return schema, problem
