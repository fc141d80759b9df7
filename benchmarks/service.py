"""The key service beside the documented one over Apollo Server, on the same PostgreSQL and under the same load.

The load comes from a process of its own. It is encrypted before the clock runs, each request anew, for Keystead takes a
ciphertext once; every answer is looked at. The two services run beside each other, and are asked in turn.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.documents import hard_documents, numbered
from benchmarks.load import Load, graphql_request, send
from benchmarks.reencryption import postgres
from benchmarks.servers import PROCESSES, Apollo, Keystead, Server, absent_apollo, versions
from tests.server.clients import GENERATE, SET_PASSCODE, VERIFY_PASSCODE, sealed

USERS: Final = 32
CONNECTIONS: Final = 16
PASSCODE: Final = "correct horse"
BURST: Final = 100
READY: Final = 120
"""Pairs that Keystead keeps ready: a burst takes no other."""
FILL_S: Final = 300.0
DOCUMENT_TURNS: Final = 5

OURS: Final = "Keystead"
THEIRS: Final = "Apollo Server"

Key = dict[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """What one service was seen to do: a load for each round.

    Attributes:
        verified: verifications over all connections.
        at_once: key pairs for new devices, on a connection each, all asked for in the same moment.
        in_turn: the same one after the other, on one connection.
    """

    verified: list[Load] = field(default_factory=list)
    at_once: list[Load] = field(default_factory=list)
    in_turn: list[Load] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """All figures of this module.

    Attributes:
        cells: by service; ours alone where the other could not run, and none without a database.
        documents_ms: by what is hard about a document, the median of what it takes until it is answered.
        versions: of what runs beside Keystead.
        absent: why something is not there; empty where nothing is missing.
    """

    cells: dict[str, Cell]
    documents_ms: dict[str, float]
    versions: dict[str, str]
    absent: str = ""

    def rate_times(self) -> float:
        """Return how many times as many verifications Keystead does, as the median over the rounds."""
        return self._median(lambda ours, theirs: ours.rate / theirs.rate)

    def p95_times(self) -> float:
        """Return how many times as long as Apollo's the p95 of Keystead's verifications is."""
        return self._median(lambda ours, theirs: ours.p95_ms / theirs.p95_ms)

    def _median(self, of: Callable[[Load, Load], float]) -> float:
        pairs = zip(self.cells[OURS].verified, self.cells[THEIRS].verified, strict=True)
        return median(of(ours, theirs) for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Size:
    """How long a run is: rounds of verifications and how many in each, and rounds of bursts."""

    rounds: int
    verifications: int
    bursts: int


FULL: Final = Size(rounds=7, verifications=10 * USERS, bursts=3)
SHORT: Final = Size(rounds=3, verifications=5 * USERS, bursts=1)


def run(folder: Path, size: Size) -> ServiceFigures:
    """Measure everything of this module; without a database nothing of it."""
    try:
        with postgres() as url:
            return _measured(folder, url, size)
    except ImportError as exc:
        return ServiceFigures({}, {}, {}, f"no module `{exc.name}` on this Python")


def _measured(folder: Path, url: str, size: Size) -> ServiceFigures:
    absent = absent_apollo()
    with ExitStack() as stack:
        keystead = Keystead(folder, url, READY)
        servers = {OURS: stack.enter_context(keystead.running(USERS))}
        if not absent:
            servers[THEIRS] = stack.enter_context(Apollo(folder, url).running(USERS))
        loads = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        cells = {name: Cell() for name in servers}
        keys = {name: loads.submit(_begin, server).result() for name, server in servers.items()}
        _wait_for_pairs(keystead)
        for number in range(-1, size.rounds):
            for name in _in_turn(servers, number):
                load = loads.submit(_verify, servers[name], keys[name], size.verifications).result()
                # The first round warms up.
                cells[name].verified.extend([load] if number >= 0 else [])
        for number in range(size.bursts):
            for name in _in_turn(servers, number):
                for connections, taken in ((BURST, cells[name].at_once), (1, cells[name].in_turn)):
                    _wait_for_pairs(keystead)
                    devices = [f"{name}-{number}-{connections}-{each}" for each in range(BURST)]
                    taken.append(loads.submit(_generate, servers[name], devices, connections).result())
        _wait_for_pairs(keystead)
        documents_ms = loads.submit(_documents, servers[OURS]).result()
    return ServiceFigures(cells, documents_ms, {} if absent else versions(), absent)


def _in_turn(servers: dict[str, Server], number: int) -> list[str]:
    names = list(servers)
    return names if number % 2 else names[::-1]


def _wait_for_pairs(keystead: Keystead) -> None:
    """Wait until Keystead makes no pairs.

    Raises:
        RuntimeError: it did not have them all in time.
    """
    until = time.monotonic() + FILL_S
    while not keystead.has_pairs(READY):
        if time.monotonic() > until:
            raise RuntimeError(f"{READY} key pairs were not ready within {FILL_S:.0f} s")
        time.sleep(0.2)
    # Each process may be at one more.
    time.sleep(1.0)


def _begin(server: Server) -> list[Key]:
    """Get a key for a device of each user, and set the user's passcode; return the keys."""
    asked = [
        graphql_request(GENERATE, {"input": {"deviceId": f"{server.port}-{number}"}}, header)
        for number, header in enumerate(server.headers)
    ]
    keys: list[Key] = [_only(answer) for answer in send(server.port, asked, connections=1)[1]]
    given = [
        graphql_request(SET_PASSCODE, _passcode(key), header) for key, header in zip(keys, server.headers, strict=True)
    ]
    _require(send(server.port, given, connections=1)[1], lambda done: done is True)
    return keys


def _verify(server: Server, keys: list[Key], count: int) -> Load:
    users = [(keys[number % len(keys)], server.headers[number % len(keys)]) for number in range(count)]
    asked = [graphql_request(VERIFY_PASSCODE, _passcode(key), header) for key, header in users]
    load, answers = send(server.port, asked, connections=CONNECTIONS)
    _require(answers, lambda verified: verified is True)
    return load


def _generate(server: Server, devices: list[str], connections: int) -> Load:
    asked = [
        graphql_request(GENERATE, {"input": {"deviceId": device}}, server.headers[number % len(server.headers)])
        for number, device in enumerate(devices)
    ]
    load, answers = send(server.port, asked, connections=connections)
    # A service with too much to do may say so, and is told of.
    given = [answer for answer in answers if "errors" not in answer]
    _require(given, lambda key: key["publicKey"].startswith("-----BEGIN PUBLIC KEY-----"))
    if len({_only(answer)["keyId"] for answer in given}) != len(given):
        raise RuntimeError("two devices have the same key")
    return replace(load, refused=len(answers) - len(given))


def _documents(server: Server) -> dict[str, float]:
    """Return the milliseconds that each document takes, the median of some turns."""
    taken: dict[str, list[float]] = {}
    for number in range(DOCUMENT_TURNS * PROCESSES):
        for name, text in hard_documents().items():
            asked = graphql_request(numbered(text, number), {}, server.headers[0])
            load, (answer,) = send(server.port, [asked], connections=1)
            if not {"data", "errors"} & set(answer):
                raise RuntimeError(f"{name}: {answer}")
            taken.setdefault(name, []).extend(load.taken_ms)
    return {name: median(each) for name, each in taken.items()}


def _passcode(key: Key) -> dict[str, Any]:
    encrypted = {"encryptedPasscode": sealed(key, PASSCODE), "keyId": key["keyId"], "passwordAuthType": "PASSCODE"}
    return {"input": encrypted}


def _only(answer: Any) -> Any:
    """Return the one result of an answer.

    Raises:
        RuntimeError: it is an error.
    """
    if "errors" in answer:
        raise RuntimeError(f"answered: {answer}")
    (result,) = answer["data"].values()
    return result


def _require(answers: list[Any], is_right: Callable[[Any], bool]) -> None:
    """Look at every answer.

    Raises:
        RuntimeError: one is wrong.
    """
    for answer in answers:
        if not is_right(_only(answer)):
            raise RuntimeError(f"answered: {answer}")
