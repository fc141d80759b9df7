"""The bytes of erasures, as the specification has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keystead.crypto.ring_signer import RingSigner
from keystead.crypto.snapshot import LoadedKey
from keystead.erasure.lines import Codes, Erased, mark_behind
from keystead.erasure.receipts import ErasureReceipt
from keystead.erasure.subjects import subject_id
from keystead.errors import ErasureLogError, InvalidInputError, InvalidSignatureError
from keystead.ports import NO_ERASURES, ErasureMark
from tests.crypto.rings import ring
from tests.crypto.vectors import load

VECTORS = load("erasure-v1.json")
STORE: str = VECTORS["store"]
LOG: dict[str, Any] = VECTORS["log"]
CODES = Codes({int(version): bytes.fromhex(key) for version, key in LOG["keys"].items()})
FIRST: bytes = LOG["tests"][0]["line"].encode()
RECEIPT: dict[str, Any] = VECTORS["receipt"]["receipt"]
PUBLIC: str = VECTORS["receipt"]["public"]


@pytest.mark.parametrize("case", VECTORS["subjects"]["tests"], ids=lambda case: case["subject"][:10])
def test_a_subject_is_known_by_a_keyed_hash(case: dict[str, str]) -> None:
    assert subject_id(bytes.fromhex(VECTORS["subjects"]["key"]), case["subject"]).hex() == case["id"]


def test_lines_are_read_as_they_are_written() -> None:
    mark = NO_ERASURES
    for case in LOG["tests"]:
        line = case["line"].encode()
        erased = CODES.read(line, store_id=STORE, before=mark)
        assert (erased.keyring, [str(each) for each in erased.keys]) == (case["keyring"], case["keys"])
        mark = mark_behind(line, mark)
        assert mark.head.hex() == case["head"]
    assert mark.count == 4


def test_the_newest_key_writes() -> None:
    mark = NO_ERASURES
    for case in LOG["tests"]:
        version = json.loads(case["line"])["key"]
        codes = Codes({number: each for number, each in CODES.keys.items() if number <= version})
        erased = Erased(case["keyring"], tuple(int(each) for each in case["keys"]), json.loads(case["line"])["time"])
        assert codes.write(erased, store_id=STORE, before=mark) == case["line"].encode()
        mark = mark_behind(case["line"].encode(), mark)


@pytest.mark.parametrize("case", LOG["invalid_second"], ids=lambda case: case["comment"])
def test_a_line_that_nobody_of_the_store_wrote_there_is_refused(case: dict[str, str]) -> None:
    before = mark_behind(FIRST, NO_ERASURES)
    assert CODES.read(LOG["tests"][1]["line"].encode(), store_id=STORE, before=before)
    with pytest.raises(ErasureLogError):
        CODES.read(case["line"].encode(), store_id=STORE, before=before)


def test_a_line_says_itself_where_it_stands() -> None:
    with pytest.raises(ErasureLogError):
        CODES.read(FIRST, store_id=STORE, before=ErasureMark(0, bytes([1]) * 32))
    with pytest.raises(ErasureLogError, match="another store"):
        CODES.read(FIRST, store_id="0" * 32, before=NO_ERASURES)


def test_a_receipt_verifies_by_its_public_key_alone() -> None:
    receipt = ErasureReceipt.from_json(json.dumps(RECEIPT))
    receipt.verify(PUBLIC)
    assert json.loads(receipt.to_json()) == RECEIPT
    assert ErasureReceipt.from_json(receipt.to_json()) == receipt


def test_a_receipt_is_signed_as_the_specification_says() -> None:
    seed = LoadedKey(1, 1, bytearray.fromhex(VECTORS["receipt"]["seed"]))
    receipt = ErasureReceipt.from_json(json.dumps(RECEIPT))
    signed = receipt.signed_by(RingSigner(ring(seed, name="keystead.receipts", suite=0)))
    assert signed == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"store": "0" * 32},
        {"keyring": "keystead.subject." + "0" * 32},
        {"keys": ["9"]},
        {"time": "2031-01-01T00:00:00.000000Z"},
        {"log": {"count": 4, "head": RECEIPT["log"]["head"]}},
        {"keks": []},
        {"nodes": {"seen": 4, "unseen": 0}},
        {"signature": "AAAA"},
    ],
)
def test_an_altered_receipt_does_not_verify(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSignatureError):
        ErasureReceipt.from_json(json.dumps(RECEIPT | change)).verify(PUBLIC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        *(json.dumps(RECEIPT | each) for each in ({"v": 2}, {"backups": "none"}, {"more": 1}, {"keys": "9"})),
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        ErasureReceipt.from_json(text)


def test_any_of_several_keys_may_have_signed() -> None:
    receipt = ErasureReceipt.from_json(json.dumps(RECEIPT))
    [other] = RingSigner(ring(name="keystead.receipts", suite=0)).public_keys()
    receipt.verify([other, PUBLIC])
    receipt.verify(other + PUBLIC)
    with pytest.raises(InvalidSignatureError):
        receipt.verify(other)
    nothing: tuple[str | list[str], ...] = ("", "key", [])
    for none in nothing:
        with pytest.raises(InvalidInputError):
            receipt.verify(none)
