from __future__ import annotations

import os
from dataclasses import replace

import pytest

from keystead.devices.hashing import Cost, Owner, SecretHash, hash_secret
from keystead.errors import InvalidInputError
from keystead.ports import SecretKind
from tests.crypto.vectors import load

FILE = load("secret-hash-v1.json")
PEPPER, PEPPER_ID = bytes.fromhex(FILE["pepper"]), int(FILE["pepper_id"])
CHEAP = Cost(memory_kib=8, iterations=1)
OWNER = Owner(SecretKind.PASSCODE, "user-1", "north")


def owner_of(case: dict[str, str]) -> Owner:
    return Owner(SecretKind(case["kind"]), case["user"], case["tenant"])


@pytest.mark.parametrize("case", FILE["tests"], ids=lambda case: case["comment"])
def test_a_hash_is_the_one_that_is_specified(case: dict[str, str]) -> None:
    found = SecretHash.parse(case["hash"])
    assert str(found) == case["hash"]
    assert (found.pepper_id, found.salt.hex()) == (PEPPER_ID, case["salt"])
    assert found.is_of(case["secret"], owner_of(case), PEPPER)
    salt = bytes.fromhex(case["salt"])
    made = hash_secret(
        case["secret"], owner_of(case), PEPPER, PEPPER_ID, random=lambda size: salt[:size], cost=found.cost
    )
    assert str(made) == case["hash"]


@pytest.mark.parametrize("case", FILE["invalid"], ids=lambda case: case["comment"])
def test_another_text_is_no_hash_and_is_not_shown(case: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SecretHash.parse(case["hash"])
    assert not case["hash"] or case["hash"] not in str(caught.value)


def test_only_the_secret_of_that_owner_under_that_pepper_is_its_own() -> None:
    made = hash_secret("123456", OWNER, PEPPER, PEPPER_ID, random=os.urandom, cost=CHEAP)
    assert made.is_of("123456", OWNER, PEPPER)
    assert not made.is_of("123457", OWNER, PEPPER)
    assert not made.is_of("", OWNER, PEPPER)
    assert not made.is_of("123456", OWNER, bytes(32))
    for other in (
        replace(OWNER, kind=SecretKind.TRANSACTION_PIN),
        replace(OWNER, user="user-2"),
        replace(OWNER, tenant=""),
        Owner(SecretKind.PASSCODE, "ser-1", "northu"),
    ):
        assert not made.is_of("123456", other, PEPPER)


def test_no_part_of_a_long_secret_is_left_out() -> None:
    long = "x" * 72
    made = hash_secret(long + "a", OWNER, PEPPER, PEPPER_ID, random=os.urandom, cost=CHEAP)
    assert not made.is_of(long + "b", OWNER, PEPPER)
    assert not hash_secret("a\0b", OWNER, PEPPER, PEPPER_ID, random=os.urandom, cost=CHEAP).is_of("a\0c", OWNER, PEPPER)


def test_equal_secrets_have_different_hashes_at_the_cost_that_is_set() -> None:
    hashes = {str(hash_secret("123456", OWNER, PEPPER, PEPPER_ID, random=os.urandom, cost=CHEAP)) for _ in range(3)}
    assert len(hashes) == 3
    assert "$m=19456,t=2,p=1," in str(hash_secret("123456", OWNER, PEPPER, PEPPER_ID, random=os.urandom))


@pytest.mark.parametrize(
    "cost", [(7, 1, 1), (8, 0, 1), (8, 65, 1), (8, 1, 0), (127, 1, 16), (1 << 21, 1, 1), (1024, 1, 17)]
)
def test_a_cost_that_is_no_cost_is_refused(cost: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match="Argon2id"):
        Cost(*cost)
