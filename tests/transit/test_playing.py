"""Playing a scenario: what a row of the table accounts for, what follows from it, and what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.transit.replay.deviations import Allowed, Deviation
from tests.transit.replay.player import LATE_S, play, play_in_time
from tests.transit.replay.recordings import Scenario, scenario
from tests.transit.replay.wire import Answer, Request
from tests.transit.targets.openbao import OpenBaoTarget
from tests.transit.targets.roles import seconds_of
from tests.transit.targets.scopes import scopes_of_policy

NAME = "associated-data"


def beginning(length: int) -> Scenario:
    """Return the first exchanges: a mount, a key, what is encrypted and decrypted with it."""
    whole = scenario(NAME)
    return replace(whole, exchanges=whole.exchanges[:length])


def test_what_depends_on_an_exchange_that_is_not_sent_is_not_sent_either(fresh_openbao: OpenBaoTarget) -> None:
    row = Deviation("nobody encrypts here", NAME, frozenset({3}), is_sent=False)
    played = play(beginning(4), fresh_openbao, Allowed((row,)))
    assert (played.differences, played.compared) == ([], 2)
    assert played.deviated == {3: "nobody encrypts here", 4: "nobody encrypts here"}


def test_what_uses_a_key_that_a_row_keeps_from_being_made_may_be_refused(fresh_openbao: OpenBaoTarget) -> None:
    creating, encrypting = beginning(3).exchanges[1:]
    rotating = replace(creating, index=3, path=f"{creating.path}/rotate")
    played = play(
        Scenario(NAME, "", (beginning(1).exchanges[0], creating, rotating)),
        fresh_openbao,
        Allowed((Deviation("no such type", NAME, frozenset({2}), is_sent=False),)),
    )
    assert (played.differences, played.deviated[3]) == ([], "no such type")
    assert encrypting.index == 3


def test_a_key_that_is_missing_without_a_reason_is_a_difference(fresh_openbao: OpenBaoTarget) -> None:
    first, creating = beginning(2).exchanges
    rotating = replace(creating, path=f"{creating.path}/rotate")
    played = play(Scenario(NAME, "", (first, rotating)), fresh_openbao)
    assert "status" in [each.place for each in played.differences]


def test_a_row_that_nothing_needs_is_a_difference(fresh_openbao: OpenBaoTarget) -> None:
    row = Deviation("it is refused", NAME, frozenset({3}), status=400)
    (found,) = play(beginning(4), fresh_openbao, Allowed((row,))).differences
    assert (found.index, found.place) == (3, "table")


def test_a_value_that_an_earlier_answer_does_not_have_is_a_difference(fresh_openbao: OpenBaoTarget) -> None:
    first, _, encrypting, decrypting = beginning(4).exchanges
    broken = replace(encrypting, body={"plaintext": "no base64"})
    played = play(Scenario(NAME, "", (first, broken, decrypting)), fresh_openbao)
    assert "reference" in [each.place for each in played.differences]


@pytest.mark.parametrize(
    ("policy", "scopes"),
    [
        ('path "transit/encrypt/k" { capabilities = ["update"] }', ["transit:encrypt:k"]),
        ('path "transit/encrypt/*" { capabilities = ["create"] }', ["transit:create:*"]),
        ('path "transit/encrypt/*" { capabilities = ["create", "update"] }', ["transit:create:*", "transit:encrypt:*"]),
        ('path "transit/keys/k" { capabilities = ["read"] }', ["transit:read:k"]),
        ('path "transit/keys" { capabilities = ["list"] }', ["transit:list:*"]),
        ('path "transit/keys/k/rotate" { capabilities = ["update"] }', ["transit:rotate:k"]),
        (
            'path "transit/hmac/k" { capabilities = ["update"] }\n'
            'path "transit/hmac/k/*" { capabilities = ["update"] }',
            ["transit:hmac:k"],
        ),
        ('path "secret/x" { capabilities = ["read"] }', []),
    ],
)
def test_a_policy_becomes_scopes(policy: str, scopes: list[str]) -> None:
    assert scopes_of_policy(policy) == scopes


def test_what_a_policy_denies_is_no_scope() -> None:
    scopes = scopes_of_policy(
        'path "transit/*" { capabilities = ["update", "create", "read"] }\n'
        'path "transit/decrypt/*" { capabilities = ["deny"] }'
    )
    assert "transit:encrypt:*" in scopes
    assert "transit:decrypt:*" not in scopes


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("1h", 3600), (90, 90)])
def test_a_duration_is_read_in_seconds(text: str | int, seconds: int) -> None:
    assert seconds_of(text) == seconds


class Slow:
    """Answers for a server whose tokens live for less than its first players take."""

    url, root_token = "http://127.0.0.1:1", "none"

    def __init__(self, late_s: float, status: int) -> None:
        self._late_s, self._status = late_s, status

    def translated(self, request: Request) -> Request | Answer:
        time.sleep(self._late_s)
        return Answer(self._status, {}, None)


@pytest.mark.parametrize(("late_s", "tries", "is_different"), [(LATE_S, 2, False), (0.0, 1, True)])
def test_a_scenario_is_played_anew_where_its_times_were_not_kept(late_s: float, tries: int, is_different: bool) -> None:
    waiting = replace(beginning(2).exchanges[1], wait_s=0.01)
    opened: list[float] = []

    @contextmanager
    def opening() -> Iterator[Slow]:
        opened.append(late_s)
        yield Slow(late_s, 403) if len(opened) == 1 else Slow(0.0, waiting.recorded.status or 0)

    played = play_in_time(Scenario(NAME, "", (waiting,)), opening)
    assert (len(opened), bool(played.differences)) == (tries, is_different)
