"""Two servers that are told the same story, and what is not alike in their answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.transit.differential.stories import KEYS, Earlier, Step
from tests.transit.replay.compare import leaves
from tests.transit.replay.deviations import NOTHING, Allowed, unwrapped
from tests.transit.replay.edits import edited
from tests.transit.replay.wire import Answer, Line, Request
from tests.transit.targets.target import Server

PLACEHOLDER: Final = "vault:v1:AAAA"
"""What stands for an earlier value where there is none."""
_KINDS: Final = ("ciphertext", "hmac", "signature")
_ALIKE_IN_LENGTH: Final = frozenset({"ciphertext", "hmac", "random_bytes"})
_OF_ONE_SERVER: Final = frozenset({"signature", "request_id", "public_key", "publickey", "creation_time", "name_hash"})
_VERSION_TIME: Final = re.compile(r"data\.keys\.\d+")
_UNREADABLE: Final = re.compile(r'(?:Field validation failed: )?error converting input for field "(\w+)"')
_BROKEN: Final = {"invalid ciphertext length", "cipher: message authentication failed"}
"""What is told of a ciphertext whose end is cut off: either, as much as is left."""
_BATCH: Final = "failed to parse batch input: "
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9]")
_PREFIX: Final = re.compile(r"vault:v\d+:")


@dataclass(frozen=True, slots=True)
class Told:
    """A request, and what both servers answered."""

    request: tuple[Request, Request]
    answer: tuple[Answer, Answer]


@dataclass
class Pair:
    """Two servers, the first of which is right by definition.

    Attributes:
        allowed: what the second may answer otherwise; a request of which a row speaks is not sent to either.
    """

    first: Server
    second: Server
    allowed: Allowed = field(default=NOTHING, repr=False)
    _values: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _sent: set[str] = field(default_factory=set)
    _lines: tuple[Line, Line] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = (Line(self.first.url), Line(self.second.url))

    def close(self) -> None:
        """Close the connections."""
        for line in self._lines:
            line.close()

    def begin(self) -> None:
        """Begin a story with keys that no other has."""
        prefix = secrets.token_hex(6)
        self._names = [f"{prefix}-{number}" for number in range(KEYS)]
        self._values = {kind: [] for kind in _KINDS}
        self._sent = {""}

    def tell(self, step: Step) -> list[str]:
        """Send one request to both and return what is not alike; look at what they made, too."""
        told = self._told(step.method, step.path.format(*self._names), step.body)
        if told is None:
            return []
        wrong = self.unlike(told)
        self._keep(told)
        return wrong + [each for follow in follow_ups(step) for each in self._followed(told, follow)]

    def unlike(self, told: Told) -> list[str]:
        """Return what is not alike in two answers to one request."""
        first, second = told.answer
        expected = self._status(first)
        where = f"{told.request[0].method} {told.request[0].path} {told.request[0].body!r}"
        if "/verify/" in told.request[0].path and not spelt_alike(told.request) and _valid(first) == _valid(second):
            return []
        if second.status != expected:
            return [f"{where}: {first.status} {first.body!r} and {second.status} {second.body!r}"]
        ours, theirs = leaves(_normal(first)), leaves(_normal(second))
        paths = [*ours, *(path for path in theirs if path not in ours)]
        return [
            f"{where}: {path}: {ours.get(path, '<nothing>')!r} and {theirs.get(path, '<nothing>')!r}"
            for path in paths
            if path not in ours or path not in theirs or not self._alike(path, ours[path], theirs[path])
        ]

    def _alike(self, path: str, ours: Any, theirs: Any) -> bool:
        name = path.rpartition(".")[2]
        if type(ours) is not type(theirs):
            return False
        if name in _OF_ONE_SERVER or _VERSION_TIME.fullmatch(path):
            return _version(ours) == _version(theirs)
        if path.startswith("errors.") or name == "error":
            is_longer = self.allowed.more_bytes_of_ciphertext > 0
            return same_error(ours, theirs) or (is_longer and {ours, theirs} == _BROKEN)
        # What nobody sent is a data key: each server made its own.
        is_data_key = name == "plaintext" and not {ours, theirs} & self._sent
        if name in _ALIKE_IN_LENGTH or is_data_key:
            more = self.allowed.more_bytes_of_ciphertext if name == "ciphertext" else 0
            return _version(ours) == _version(theirs) and _size(theirs) - _size(ours) in (0, more)
        return bool(ours == theirs)

    def _status(self, first: Answer) -> int | None:
        return 400 if first.status == 500 and self.allowed.answers_user_errors_400 else first.status

    def _told(self, method: str, path: str, body: Any) -> Told | None:
        requests = tuple(
            Request(
                method,
                f"/v1/transit/{path}",
                headers={"X-Vault-Token": target.root_token},
                body=self._resolved(body, path, side),
            )
            for side, target in enumerate((self.first, self.second))
        )
        if any(row.speaks_of(request) for row in self.allowed.rows for request in requests):
            return None
        self._sent |= {
            value
            for path, value in leaves(requests[0].body).items()
            if path.endswith("plaintext") and isinstance(value, str)
        }
        answers = tuple(line.send(request) for line, request in zip(self._lines, requests, strict=True))
        return Told((requests[0], requests[1]), (answers[0], answers[1]))

    def _resolved(self, value: Any, path: str, side: int) -> Any:
        if isinstance(value, Earlier):
            known = self._values[value.kind]
            if not value.is_of_any_key:
                known = [each for each in known if each[2] in path.split("/")] or known
            text = known[-1 - value.back % len(known)][side] if known else PLACEHOLDER
            return _safely_edited(text, value.edits)
        if isinstance(value, list):
            return [self._resolved(each, path, side) for each in value]
        if isinstance(value, dict):
            return {name: self._resolved(each, path, side) for name, each in value.items()}
        return value

    def _keep(self, told: Told) -> None:
        ours, theirs = (leaves(answer.body) for answer in told.answer)
        key = next((name for name in self._names if name in told.request[0].path), "")
        for path, value in ours.items():
            kind = path.rpartition(".")[2]
            if kind in self._values and isinstance(value, str) and isinstance(theirs.get(path), str):
                self._values[kind].append((value, theirs[path], key))

    def _followed(self, told: Told, follow: FollowUp) -> list[str]:
        """Return what is wrong with what a request made, when it is used on the server that made it."""
        made = [_data(answer).get(follow.made) for answer in told.answer]
        if not all(isinstance(each, str) for each in made):
            return []
        name = told.request[0].path.split("/")[follow.name_at]
        body = {**follow.more, follow.made: Earlier(follow.made, 0)}
        used = self._told("POST", f"{follow.verb}/{name}", body)
        if used is None:
            return []
        wrong = self.unlike(used)
        for request, made_by, answer in zip(told.request, told.answer, used.answer, strict=True):
            if answer.status == 200 and not follow.is_right(request.body, _data(made_by), _data(answer)):
                wrong.append(f"{request.path} {request.body!r} was answered {made_by.body!r}, and then {answer.body!r}")
        return wrong


@dataclass(frozen=True, slots=True)
class FollowUp:
    """How what a request made is looked at.

    Attributes:
        made: the field that it is in, and in which it is sent back.
        verb: the path it is sent to.
        more: other fields that go along, the same as when it was made.
        name_at: where the key's name is in the path of the request that made it.
    """

    made: str
    verb: str
    more: Mapping[str, Any]
    name_at: int = 4

    def is_right(self, sent: Mapping[str, Any], made: Mapping[str, Any], answered: Mapping[str, Any]) -> bool:
        """Whether what came back is what went in; a signature and an HMAC are good."""
        if self.verb == "verify":
            return answered.get("valid") is True
        # A data key shows its plaintext, or does not; what was encrypted stood in the request.
        expected = made.get("plaintext", sent.get("plaintext"))
        return not isinstance(expected, str) or not expected.isascii() or answered.get("plaintext") == expected.strip()


def follow_ups(step: Step) -> Iterable[FollowUp]:
    """Return how to look at what a request makes, if it is one of a single value."""
    verb, given = step.path.partition("/")[0], step.body
    if not isinstance(given, dict) or "batch_input" in given:
        return
    fields = {name: given[name] for name in ("context", "associated_data") if name in given}
    if verb in ("encrypt", "datakey"):
        yield FollowUp("ciphertext", "decrypt", fields, 5 if verb == "datakey" else 4)
    if verb == "hmac" and step.path.count("/") == 1:
        more = {"hash_algorithm": given["algorithm"]} if "algorithm" in given else {}
        yield FollowUp("hmac", "verify", {**more, "input": given.get("input")})
    if verb == "sign":
        same = {name: value for name, value in given.items() if name != "key_version"}
        yield FollowUp("signature", "verify", same)


def spelt_alike(requests: tuple[Request, Request]) -> bool:
    """Whether the signatures in two requests have the same length, and the same signs among letters and digits.

    One that is read in the other of the two alphabets of base64 is broken there, or merely wrong, by chance.
    """
    ours, theirs = (leaves(request.body) for request in requests)
    return all(
        len(text) == len(theirs[path]) and set(_UNUSUAL.findall(text)) == set(_UNUSUAL.findall(theirs[path]))
        for path, text in ours.items()
        if path.endswith("signature") and isinstance(text, str)
    )


def same_error(ours: str, theirs: str) -> bool:
    """Whether two errors are the same.

    Of several fields that cannot be read a server may name any one; of several items, all of them in any order.
    """
    first, second = _UNREADABLE.match(ours), _UNREADABLE.match(theirs)
    if first is not None and second is not None and first[1] != second[1]:
        return True
    return sorted(_lines(ours)) == sorted(_lines(theirs))


def _lines(text: str) -> list[str]:
    """Return what is told of a batch, a line of each fault, without what stands before the first."""
    return text.removeprefix(_BATCH).splitlines()


def _data(answer: Answer) -> Mapping[str, Any]:
    data = answer.body.get("data") if isinstance(answer.body, dict) else None
    return data if isinstance(data, dict) else {}


def _normal(answer: Answer) -> Any:
    """Return a body with its errors as plain texts."""
    body = answer.body
    if isinstance(body, dict) and isinstance(body.get("errors"), list):
        return {**body, "errors": [text for each in body["errors"] for text in unwrapped(str(each))]}
    return body


def _valid(answer: Answer) -> list[str]:
    """Return where an answer says that something is valid."""
    return [path for path, value in leaves(answer.body).items() if path.endswith("valid") and value is True]


def _version(value: Any) -> str:
    found = _PREFIX.match(value) if isinstance(value, str) else None
    return found[0] if found else ""


def _size(text: str) -> int:
    """Return how many bytes a text is of, that has base64 behind its last colon."""
    encoded = text.rpartition(":")[2]
    return len(encoded) * 3 // 4 - encoded.count("=")


def _safely_edited(text: str, edits: Iterable[Mapping[str, Any]]) -> str:
    try:
        return edited(text, edits)
    except (AssertionError, IndexError, ValueError):
        return text
