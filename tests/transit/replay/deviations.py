"""Where a server is meant to answer otherwise than the recorded one, and what that makes of the differences found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

from tests.transit.replay.compare import Difference
from tests.transit.replay.recordings import Exchange
from tests.transit.replay.wire import Answer, Request

_LISTED: Final = re.compile(r"\d+ errors? occurred:\n\t\* (.*?)\n*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A row of the table: which exchanges, how they differ, and why.

    Attributes:
        reason: a sentence, for whoever reads what Keystead does not do.
        scenario, indexes: of which exchanges; all scenarios and all their exchanges where none is named.
        method, path: regular expressions that the whole method and the whole path must match.
        when: what else must hold of the request.
        status: what is answered instead, with errors unless it is a success; None where only ``places`` differ.
        places: patterns of the places that may differ, such as ``body.data.keys.*``.
        is_sent: whether the request is sent at all.
    """

    reason: str
    scenario: str = ""
    indexes: frozenset[int] = frozenset()
    method: str = ".*"
    path: str = ".*"
    when: Callable[[Request], bool] = field(default=lambda _: True, repr=False)
    status: int | None = None
    places: tuple[str, ...] = ()
    is_sent: bool = True

    @property
    def is_of_one_scenario(self) -> bool:
        """Whether the row names exchanges, each of which it must be needed for."""
        return bool(self.scenario and self.indexes)

    def covers(self, scenario: str, exchange: Exchange, request: Request) -> bool:
        """Whether the row speaks of an exchange."""
        return (
            self.scenario in ("", scenario)
            and (not self.indexes or exchange.index in self.indexes)
            and self._matches(request)
        )

    def speaks_of(self, request: Request) -> bool:
        """Whether the row has a request that is in no scenario be answered in another way altogether."""
        is_other = self.status is not None or "status" in self.places or not self.is_sent
        return not self.scenario and is_other and self._matches(request)

    def _matches(self, request: Request) -> bool:
        return (
            re.fullmatch(self.method, request.method) is not None
            and re.fullmatch(self.path, request.path) is not None
            and self.when(request)
        )

    def left(self, found: Sequence[Difference], answer: Answer) -> list[Difference]:
        """Return the differences that the row does not account for."""
        if self.status is None:
            return [each for each in found if not any(fnmatchcase(each.place, place) for place in self.places)]
        if answer.status == self.status and (answer.errors or answer.status < 300):
            return []
        return list(found)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a server may do otherwise.

    Attributes:
        rows: the first that covers an exchange speaks for it.
        answers_user_errors_400: whether what the recorded server answers 500 to, with a text that blames the request,
            is answered 400 with the same text, which is not wrapped in a list of one.
        more_bytes_of_ciphertext: by how much a ciphertext of a symmetric key is longer.
    """

    rows: tuple[Deviation, ...] = ()
    answers_user_errors_400: bool = False
    more_bytes_of_ciphertext: int = 0

    def row(self, scenario: str, exchange: Exchange, request: Request) -> Deviation | None:
        """Return the row for an exchange, if there is one."""
        return next((row for row in self.rows if row.covers(scenario, exchange, request)), None)

    def expected(self, exchange: Exchange) -> Exchange:
        """Return an exchange with the answer that is expected instead of the recorded one."""
        recorded = exchange.recorded
        if not self.answers_user_errors_400 or recorded.status != 500:
            return exchange
        body = recorded.body
        if isinstance(body, dict) and isinstance(body.get("errors"), list):
            body = {**body, "errors": [text for each in body["errors"] for text in unwrapped(each)]}
        return replace(exchange, recorded=replace(recorded, status=400, body=body))


def unwrapped(text: str) -> list[str]:
    """Return the texts in an error that lists several, or one, with bullets."""
    listed = _LISTED.fullmatch(text)
    return [text] if listed is None else str(listed[1]).split("\n\t* ")


NOTHING: Final = Allowed()
