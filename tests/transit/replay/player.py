"""Sends the exchanges of a scenario to a fresh server, in order and whole."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.transit.replay.compare import Difference, differences, related
from tests.transit.replay.deviations import NOTHING, Allowed, Deviation
from tests.transit.replay.recordings import Exchange, Scenario
from tests.transit.replay.values import NoValueError, at, resolved
from tests.transit.replay.wire import Answer, Line, Request
from tests.transit.targets.target import Stage

INVALID_TOKEN: Final = "no-server-issued-this-token"
LATE_S: Final = 0.25
"""By how much a wait may be longer than when it was recorded: leases of a second or two are among what is compared."""
TRIES: Final = 4
_NAMED_KEY: Final = re.compile(r"/v1/transit/(?:keys|encrypt|restore)/([^/]+)(?:/import)?")
_OF_KEY: Final = re.compile(
    r"/v1/transit/(?:keys|encrypt|decrypt|rewrap|hmac|sign|verify|export|backup|restore|datakey/[^/]+)(?:/[^/]+)*"
)


class _SkippedError(Exception):
    """An exchange is not played: what it needs was deliberately not had."""


@dataclass
class Played:
    """What became of a scenario.

    Attributes:
        differences: what nothing accounts for.
        compared: how many answers were compared.
        deviated: the exchanges that differ, or were not sent, and the reason of the row, which may be an earlier
            exchange's.
        late_s: by how much the longest wait, with the exchanges before it, was longer than its scenario has it.
    """

    differences: list[Difference] = field(default_factory=list)
    compared: int = 0
    deviated: dict[int, str] = field(default_factory=dict)
    late_s: float = 0.0

    def __str__(self) -> str:
        return "\n".join(map(str, self.differences))


def play(
    scenario: Scenario,
    target: Stage,
    allowed: Allowed = NOTHING,
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> Played:
    """Play a scenario on a fresh server and return what is different."""
    player = _Player(scenario, target, allowed, sleep)
    try:
        for exchange in scenario.exchanges:
            player.play(exchange)
    finally:
        player.line.close()
    return player.played


def play_in_time(
    scenario: Scenario, opened: Callable[[], AbstractContextManager[Stage]], allowed: Allowed = NOTHING
) -> Played:
    """Play a scenario, and anew on another server where it differs and the machine was too busy to keep its times."""
    for _ in range(TRIES):
        with opened() as target:
            played = play(scenario, target, allowed)
        if not played.differences or played.late_s < LATE_S:
            break
    return played


class _Player:
    def __init__(self, scenario: Scenario, target: Stage, allowed: Allowed, sleep: Callable[[float], object]) -> None:
        self.played = Played()
        self.line = Line(target.url)
        self._scenario, self._target, self._allowed, self._sleep = scenario, target, allowed, sleep
        self._tokens = {"root": target.root_token, "invalid": INVALID_TOKEN}
        self._answers: dict[int, Answer] = {}
        self._refused_keys: dict[str, str] = {}
        self._known_keys: set[str] = set()
        self._waited_at = time.monotonic()

    def play(self, exchange: Exchange) -> None:
        """Send one request and compare its answer."""
        self._exchange(exchange)
        if exchange.wait_s:
            now = time.monotonic()
            self.played.late_s = max(self.played.late_s, now - self._waited_at - exchange.wait_s)
            self._waited_at = now

    def _exchange(self, exchange: Exchange) -> None:
        if exchange.wait_s:
            self._sleep(exchange.wait_s)
        try:
            request = self._request(exchange)
        except _SkippedError as skipped:
            self.played.deviated[exchange.index] = str(skipped)
            self._note_key(exchange, None)
            return
        except NoValueError as error:
            self._add(exchange, "reference", "a value", str(error))
            return
        row = self._allowed.row(self._scenario.name, exchange, request)
        if row is not None and not row.is_sent:
            self.played.deviated[exchange.index] = row.reason
            self._note_key(exchange, None)
            return
        translated = self._target.translated(request)
        answer = translated if isinstance(translated, Answer) else self.line.send(translated)
        self._answers[exchange.index] = answer
        self._keep(exchange, answer)
        if not exchange.is_fault:
            self.played.compared += 1
            self._compare(exchange, request, answer, row, is_translated=translated is answer)

    def _request(self, exchange: Exchange) -> Request:
        headers = dict(exchange.headers)
        if exchange.token is not None:
            headers["X-Vault-Token"] = self._token(exchange.token)
        for name, value in headers.items():
            if (role := value.partition("TOKEN:")[2]) and name == "Authorization":
                headers[name] = f"Bearer {self._token(role)}"
        body = resolved(exchange.body, self._find)
        raw = None if exchange.raw_body is None else exchange.raw_body.encode()
        return Request(exchange.method, exchange.path, exchange.query, headers, body, raw)

    def _token(self, role: str) -> str:
        if role not in self._tokens:
            saving = next(
                each.index for each in self._scenario.exchanges if each.saves_token and each.saves_token["role"] == role
            )
            raise self._missing(saving, f"the token of {role!r}")
        return self._tokens[role]

    def _find(self, reference: str) -> Any:
        where, _, path = reference.partition(".")
        index = int(where.rpartition("-")[2])
        try:
            return at(self._answers[index].body, path)
        except (LookupError, TypeError, ValueError):
            raise self._missing(index, reference) from None

    def _missing(self, index: int, what: str) -> Exception:
        reason = self.played.deviated.get(index)
        return NoValueError(what, index) if reason is None else _SkippedError(reason)

    def _keep(self, exchange: Exchange, answer: Answer) -> None:
        if (saving := exchange.saves_token) is not None:
            try:
                self._tokens[saving["role"]] = at(answer.body, saving["from"])
            except (LookupError, TypeError, ValueError):
                self._tokens.pop(saving["role"], None)

    def _compare(
        self, exchange: Exchange, request: Request, answer: Answer, row: Deviation | None, *, is_translated: bool
    ) -> None:
        expected = self._allowed.expected(exchange)
        found = differences(self._scenario.name, expected, answer)
        if is_translated:
            found = [each for each in found if each.place == "status"]
        elif answer.status == expected.recorded.status:
            found += self._unrelated(exchange, answer)
        left = self._left(exchange, request, answer, row, found)
        self._note_key(exchange, answer)
        if row is not None and row.is_of_one_scenario and not found:
            self._add(exchange, "table", f"a difference: {row.reason}", "none: the row is not needed")
        self.played.differences += left

    def _left(
        self, exchange: Exchange, request: Request, answer: Answer, row: Deviation | None, found: list[Difference]
    ) -> list[Difference]:
        """Return what neither a row of the table nor a key that it refused accounts for."""
        if not found:
            return []
        left = found if row is None else row.left(found, answer)
        if row is not None and len(left) < len(found):
            self.played.deviated[exchange.index] = row.reason
        if left and (reason := self._refused_key(request)) and answer.status in (400, 403, 404):
            self.played.deviated[exchange.index] = reason
            return []
        return left

    def _unrelated(self, exchange: Exchange, answer: Answer) -> list[Difference]:
        values: dict[str, Any] = {}
        for pairs in (exchange.same_as, exchange.differs_from):
            for reference in pairs.values():
                try:
                    values[reference["$ref"]] = self._find(reference["$ref"])
                except (NoValueError, _SkippedError):
                    return []
        return [Difference(self._scenario.name, exchange.index, *each) for each in related(exchange, answer, values)]

    def _note_key(self, exchange: Exchange, answer: Answer | None) -> None:
        """Remember a key that was to be made here, and was not since a row says so."""
        named = _NAMED_KEY.fullmatch(exchange.path)
        if named is None or exchange.method not in ("POST", "PUT"):
            return
        if answer is not None and answer.status is not None and answer.status < 300:
            self._known_keys.add(named[1])
        elif (reason := self.played.deviated.get(exchange.index)) and named[1] not in self._known_keys:
            self._refused_keys[named[1]] = reason

    def _refused_key(self, request: Request) -> str | None:
        if _OF_KEY.fullmatch(request.path) is None:
            return None
        parts: Mapping[str, None] = dict.fromkeys(request.path.split("/"))
        return next((reason for name, reason in self._refused_keys.items() if name in parts), None)

    def _add(self, exchange: Exchange, place: str, recorded: Any, answered: Any) -> None:
        self.played.differences.append(Difference(self._scenario.name, exchange.index, place, recorded, answered))
