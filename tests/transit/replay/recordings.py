"""What was recorded: the scenarios in ``tests/transit/recordings``, whose README.md says what the words mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "recordings"
USUAL_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "Content-Type": "application/json"}
ENVELOPE: Final[Mapping[str, Any]] = {
    "auth": None,
    "lease_duration": 0,
    "lease_id": "",
    "renewable": False,
    "request_id": "<volatile:request_id>",
    "warnings": None,
    "wrap_info": None,
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a server answered.

    Attributes:
        status: None where it closed the connection instead.
        body: a JSON value with markers in it; None where there was none.
    """

    status: int | None
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, as it is to be sent, and its answer.

    Attributes:
        token: the role whose token is sent; None for no token.
        body: with references in it that earlier answers resolve; ``raw_body`` is sent as it stands.
        saves_token: a role, and the path of its token in the answer.
        varies: paths of the body whose values no two servers have in common.
        same_as, differs_from: paths of the body, and the reference whose value they are to be equal to, or not.
        is_fault: the server was wrong here, and nobody is to do the same.
    """

    index: int
    name: str
    method: str
    path: str
    recorded: Recorded
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    body: Any = None
    raw_body: str | None = None
    is_setup: bool = False
    wait_s: float = 0.0
    saves_token: Mapping[str, str] | None = None
    varies: frozenset[str] = frozenset()
    same_as: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differs_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_fault: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """Exchanges that start from a fresh server and make sense in their order, and whole."""

    name: str
    about: str
    exchanges: tuple[Exchange, ...]


def names() -> list[str]:
    """Return every scenario's name."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def scenario(name: str) -> Scenario:
    """Return a scenario."""
    given = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Scenario(given["scenario"], given["about"], tuple(_exchange(each) for each in given["exchanges"]))


def _exchange(given: Mapping[str, Any]) -> Exchange:
    request, response = given["request"], given["response"]
    body = response["body"]
    if response.get("envelope"):
        body = {**ENVELOPE, **body}
    return Exchange(
        index=given["index"],
        name=given["name"],
        method=request["method"],
        path=request["path"],
        recorded=Recorded(response["status"], response.get("headers", USUAL_HEADERS), body),
        query=request.get("query", ""),
        headers=request.get("headers", {}),
        token=request.get("token"),
        body=request.get("body"),
        raw_body=request.get("raw_body"),
        is_setup=given.get("setup", False),
        wait_s=given.get("wait_s", 0.0),
        saves_token=given.get("saves_token"),
        varies=frozenset(given.get("varies", ())),
        same_as=given.get("same_as", {}),
        differs_from=given.get("differs_from", {}),
        is_fault="quirk" in given,
    )
