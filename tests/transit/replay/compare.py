"""What is different between an answer and the recorded one, leaf by leaf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.transit.replay.recordings import Exchange
from tests.transit.replay.wire import Answer

_TEXT_MARKER: Final = re.compile(
    r"<volatile:(request_id|token|accessor|secret_id|entity_id|uuid|id|unseal_key|hostname|time)>"
)
_NUMBER_MARKER: Final = re.compile(r"<volatile:(unix_time|ttl)>")
_PRESENT_ONLY: Final = frozenset({"Retry-After", "X-Ratelimit-Reset"})
_ABSENT: Final = "<nothing>"
_PORT: Final = re.compile(r"(?<=//127\.0\.0\.1:)\d+")
_ANY_PORT: Final = "<port>"
_VERSIONED: Final = re.compile(r"vault:v\d+:")
SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where an answer is not as recorded.

    Attributes:
        place: ``status``, ``headers.<name>``, or the path of a leaf: ``body.<dotted path>``.
    """

    scenario: str
    index: int
    place: str
    recorded: Any
    answered: Any

    def __str__(self) -> str:
        return f"{self.scenario}-{self.index} {self.place}: {_short(self.recorded)} became {_short(self.answered)}"


def differences(scenario: str, exchange: Exchange, answer: Answer) -> list[Difference]:
    """Return where an answer is not as recorded, in status, headers and body."""
    found = [*_status(exchange, answer), *_headers(exchange, answer), *_body(exchange, answer)]
    return [Difference(scenario, exchange.index, *each) for each in found]


_Found = Iterator[tuple[str, Any, Any]]


def _status(exchange: Exchange, answer: Answer) -> _Found:
    if exchange.recorded.status != answer.status:
        yield "status", exchange.recorded.status, answer.status


def _headers(exchange: Exchange, answer: Answer) -> _Found:
    for name, recorded in exchange.recorded.headers.items():
        answered = answer.headers.get(name.lower(), _ABSENT)
        if answered != recorded and not (name in _PRESENT_ONLY and answered != _ABSENT):
            yield f"headers.{name}", recorded, answered


def _body(exchange: Exchange, answer: Answer) -> _Found:
    recorded = leaves(exchange.recorded.body)
    answered = leaves(_condensed(exchange.recorded.body, answer.body))
    for path in [*recorded, *(path for path in answered if path not in recorded)]:
        ours, theirs = answered.get(path, _ABSENT), recorded.get(path, _ABSENT)
        if not (_vary_alike(theirs, ours) if path in exchange.varies else _alike(theirs, ours)):
            yield f"body.{path}" if path else "body", theirs, ours


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return every value by its dotted path; an empty object or list is one, too."""
    if not isinstance(value, dict | list) or not value:
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for name, each in items:
        found |= leaves(each, f"{path}.{name}" if path else str(name))
    return found


def _alike(recorded: Any, answered: Any) -> bool:
    if isinstance(recorded, str) and _TEXT_MARKER.fullmatch(recorded):
        return isinstance(answered, str)
    if isinstance(recorded, str) and _NUMBER_MARKER.fullmatch(recorded):
        return isinstance(answered, int | float) and not isinstance(answered, bool)
    if isinstance(recorded, str) and isinstance(answered, str):
        return _PORT.sub(_ANY_PORT, recorded) == _PORT.sub(_ANY_PORT, answered)
    return type(recorded) is type(answered) and bool(recorded == answered)


def _vary_alike(recorded: Any, answered: Any) -> bool:
    if answered == _ABSENT or type(recorded) is not type(answered):
        return False
    if isinstance(recorded, str) and (prefix := _VERSIONED.match(recorded)):
        return bool(answered.startswith(prefix[0]))
    return True


def _condensed(recorded: Any, answered: Any) -> Any:
    """Return an answer with its long values cut where the recorded ones were."""
    if isinstance(recorded, dict) and "$list" in recorded and isinstance(answered, list) and answered:
        first = _condensed(recorded["$list"]["first"], answered[0])
        return {"$list": {"length": len(answered), "first": first}}
    if isinstance(recorded, dict) and "$string" in recorded and isinstance(answered, str):
        return {"$string": {"length": len(answered), "starts": answered[: len(recorded["$string"]["starts"])]}}
    if isinstance(recorded, dict) and isinstance(answered, dict):
        return {name: _condensed(recorded.get(name), each) for name, each in answered.items()}
    if isinstance(recorded, list) and isinstance(answered, list):
        known: list[Any] = recorded + [None] * max(0, len(answered) - len(recorded))
        return [_condensed(theirs, ours) for theirs, ours in zip(known, answered, strict=False)]
    return answered


def related(exchange: Exchange, answer: Answer, values: Mapping[str, Any]) -> _Found:
    """Return where a value is not the same as an earlier one, or not another one, as it was when recording."""
    mine = leaves(answer.body)
    for wanted, pairs in ((True, exchange.same_as), (False, exchange.differs_from)):
        for path, reference in pairs.items():
            other = values[reference["$ref"]]
            if (mine.get(path, _ABSENT) == other) is not wanted:
                word = "the same as" if wanted else "other than"
                yield f"body.{path}", f"{word} {reference['$ref']}", mine.get(path, _ABSENT)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
