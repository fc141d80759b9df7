"""What two answers may differ in, and what not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.transit.deviations import OF_KEYSTEAD
from tests.transit.differential.pair import FollowUp, Pair, Told, follow_ups, same_error
from tests.transit.differential.stories import Earlier, Step
from tests.transit.replay.deviations import NOTHING
from tests.transit.replay.wire import Answer, Request


@dataclass
class Nobody:
    """A server that is never asked."""

    url: str = "http://127.0.0.1:1"
    root_token: str = "root"


@pytest.fixture(params=["alike", "keystead"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two servers, and a story that has begun."""
    made = Pair(Nobody(), Nobody(), NOTHING if request.param == "alike" else OF_KEYSTEAD)
    made.begin()
    yield made
    made.close()


def told(first: Answer, second: Answer, body: Any = None) -> Told:
    request = Request("POST", "/v1/transit/encrypt/k", body=body or {})
    return Told((request, request), (first, second))


def data(**fields: Any) -> Answer:
    return Answer(200, body={"data": fields})


def error(status: int, text: str) -> Answer:
    return Answer(status, body={"errors": [text]})


WRAPPED = "1 error occurred:\n\t* no\n\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (data(ciphertext="vault:v1:AAAA"), data(ciphertext="vault:v1:BBBB")),
        (data(signature="vault:v1:AAAA"), data(signature="vault:v1:BBBBBBBB")),
        (data(keys={"1": 1700000000}), data(keys={"1": 1700000009})),
        (data(plaintext="AAAA"), data(plaintext="BBBB")),
        (error(400, "no"), error(400, "no")),
        (error(403, WRAPPED), error(403, "no")),
    ],
)
def test_what_servers_cannot_have_in_common_may_differ(pair: Pair, first: Answer, second: Answer) -> None:
    assert pair.unlike(told(first, second)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (data(), Answer(204)),
        (data(ciphertext="vault:v1:AAAA"), data(ciphertext="vault:v2:AAAA")),
        (data(ciphertext="vault:v1:AAAA"), data(ciphertext="vault:v1:AAAAAAAA")),
        (data(ciphertext="vault:v1:AAAA"), data(ciphertext="vault:v1:AAAA", key_version=1)),
        (data(key_version=1), data(key_version=2)),
        (data(key_version=1), data(key_version="1")),
        (data(valid=True), data(valid=False)),
        (data(keys={"1": 1}), data(keys={"1": 1, "2": 1})),
        (error(400, "no"), error(400, "never")),
        (error(400, "no"), error(403, "no")),
        (error(400, "no"), Answer(None)),
    ],
)
def test_everything_else_has_to_be_alike(pair: Pair, first: Answer, second: Answer) -> None:
    assert pair.unlike(told(first, second))


def test_a_ciphertext_of_keystead_is_longer_by_what_it_names_and_by_no_more() -> None:
    pair = Pair(Nobody(), Nobody(), OF_KEYSTEAD)
    texts = [f"vault:v1:{base64.b64encode(bytes(size)).decode()}" for size in (33, 59, 58, 60)]
    assert pair.unlike(told(data(ciphertext=texts[0]), data(ciphertext=texts[1]))) == []
    assert pair.unlike(told(data(ciphertext=texts[0]), data(ciphertext=texts[2])))
    assert pair.unlike(told(data(ciphertext=texts[0]), data(ciphertext=texts[3])))
    assert pair.unlike(told(data(hmac=texts[0]), data(hmac=texts[1])))
    pair.close()


def test_a_plaintext_that_somebody_sent_has_to_come_back(pair: Pair) -> None:
    pair._sent.add("AAAA")
    assert pair.unlike(told(data(plaintext="AAAA"), data(plaintext="BBBB")))


def test_only_keystead_answers_400_for_500() -> None:
    answers = told(error(500, WRAPPED), error(400, "no"))
    for allowed, is_alike in ((NOTHING, False), (OF_KEYSTEAD, True)):
        pair = Pair(Nobody(), Nobody(), allowed)
        assert (pair.unlike(answers) == []) is is_alike
        pair.close()


def test_of_two_fields_that_cannot_be_read_either_may_be_named() -> None:
    text = 'Field validation failed: error converting input for field "{}": junk'
    assert same_error(text.format("derived"), text.format("key_size"))
    assert not same_error(text.format("derived"), text.format("derived") + "!")
    assert not same_error(text.format("derived"), "encryption key not found")


def test_faults_of_a_batch_may_be_told_in_any_order_and_all_have_to_be() -> None:
    text = "failed to parse batch input: {}\n{}"
    assert same_error(text.format("[0] is none", "[1] is none"), text.format("[1] is none", "[0] is none"))
    assert not same_error(text.format("[0] is none", "[1] is none"), text.format("[1] is none", "[2] is none"))


def test_signatures_of_other_letters_may_be_broken_or_wrong_and_never_valid_on_one_server(pair: Pair) -> None:
    def verified(ours: str, theirs: str, first: Answer, second: Answer) -> list[str]:
        sent = [Request("POST", "/v1/transit/verify/k", body={"signature": text}) for text in (ours, theirs)]
        return pair.unlike(Told((sent[0], sent[1]), (first, second)))

    broken = error(400, "invalid base64 signature value")
    assert verified("vault:v1:AA+A", "vault:v1:AAAA", broken, data(valid=False)) == []
    assert verified("vault:v1:AAAA", "vault:v1:BBBB", broken, data(valid=False))
    assert verified("vault:v1:AA+A", "vault:v1:AAAA", broken, data(valid=True))


def test_an_encryption_is_decrypted_with_what_it_was_bound_to() -> None:
    body = {"plaintext": "YQ==", "context": "Yg==", "key_version": 1}
    (follow,) = follow_ups(Step("encrypt/{0}", body))
    assert follow == FollowUp("ciphertext", "decrypt", {"context": "Yg=="})
    assert follow.is_right(body, {}, {"plaintext": "YQ=="})
    assert not follow.is_right(body, {}, {"plaintext": "Yg=="})


def test_a_data_key_is_what_its_wrapped_form_decrypts_to() -> None:
    (follow,) = follow_ups(Step("datakey/plaintext/{0}", {}))
    assert follow.is_right({}, {"plaintext": "YQ=="}, {"plaintext": "YQ=="})
    assert not follow.is_right({}, {"plaintext": "YQ=="}, {"plaintext": "Yg=="})


@pytest.mark.parametrize("verb", ["hmac", "sign"])
def test_what_vouches_for_a_message_has_to_be_valid(verb: str) -> None:
    (follow,) = follow_ups(Step(f"{verb}/{{0}}", {"input": "YQ=="}))
    assert follow.verb == "verify"
    assert follow.is_right({}, {}, {"valid": True})
    assert not follow.is_right({}, {}, {"valid": False})


def test_an_earlier_value_is_each_servers_own_and_of_the_key(pair: Pair) -> None:
    pair._values["ciphertext"] = [("a0", "b0", "k"), ("a1", "b1", "other")]
    resolved = [pair._resolved([Earlier("ciphertext", 0)], "decrypt/k", side) for side in (0, 1)]
    assert resolved == [["a0"], ["b0"]]
    assert pair._resolved(Earlier("ciphertext", 0, is_of_any_key=True), "decrypt/k", 0) == "a1"
