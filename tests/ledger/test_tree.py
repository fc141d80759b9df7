"""RFC 6962 trees: roots, proofs, and what no proof may show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.crypto.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from keystead.errors import InvalidInputError, InvalidProofError
from tests.ledger.vectors import read, unbase64

INCLUSION = read("transparency-dev-merkle/inclusion.json")
CONSISTENCY = read("transparency-dev-merkle/consistency.json")
TREE8 = read("transparency-dev-merkle/tree8.json")
LEAVES = [leaf_hash(str(number).encode()) for number in range(300)]


def subtree(level: int, number: int) -> bytes:
    """Return the root of a complete subtree of ``LEAVES``, from the definition."""
    return root_of(LEAVES[number << level : (number + 1) << level])


def defined_root(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    from hashlib import sha256

    return sha256(b"\x01" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


@pytest.mark.parametrize("case", INCLUSION, ids=lambda case: case["file"])
def test_inclusion_as_published(case: dict[str, Any]) -> None:
    def verify() -> None:
        verify_inclusion(
            unbase64(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            [unbase64(each) for each in case["proof"] or ()],
            unbase64(case["root"]),
        )

    if case["wantErr"]:
        with pytest.raises(InvalidProofError):
            verify()
    else:
        verify()


@pytest.mark.parametrize("case", CONSISTENCY, ids=lambda case: case["file"])
def test_consistency_as_published_but_for_proofs_from_the_empty_tree(case: dict[str, Any]) -> None:
    def verify() -> None:
        verify_consistency(
            case["size1"],
            case["size2"],
            unbase64(case["root1"]),
            unbase64(case["root2"]),
            [unbase64(each) for each in case["proof"] or ()],
        )

    if case["wantErr"] or case["size1"] == 0:
        with pytest.raises(InvalidProofError):
            verify()
    else:
        verify()


def test_the_published_counts() -> None:
    assert (len(INCLUSION), len(CONSISTENCY)) == (98, 98)


def test_the_reference_tree_of_eight() -> None:
    leaves = [leaf_hash(bytes.fromhex(each)) for each in TREE8["leafInputs"]]
    assert [leaf.hex() for leaf in leaves] == TREE8["nodeHashes"][0]
    assert [root_of(leaves[:size]).hex() for size in range(9)] == TREE8["rootHashesBySize"]


@pytest.mark.parametrize("size", [*range(70), 127, 128, 129, 300])
def test_a_root_is_the_same_however_it_came_to_be(size: int) -> None:
    one_by_one, at_once = Frontier(), Frontier()
    for leaf in LEAVES[:size]:
        one_by_one.append(leaf)
    at_once.extend(LEAVES[:size])
    assert one_by_one.root() == at_once.root() == defined_root(LEAVES[:size])
    assert one_by_one.roots == at_once.roots


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_leaves_may_come_in_any_portions(portions: list[int]) -> None:
    tree, at = Frontier(), 0
    for wanted in portions:
        portion = min(wanted, len(LEAVES) - at)
        tree.extend(LEAVES[at : at + portion])
        at += portion
    assert (tree.size, tree.root()) == (at, defined_root(LEAVES[:at]))


def test_a_frontier_goes_on_where_it_was_left() -> None:
    tree = Frontier()
    tree.extend(LEAVES[:77])
    again = Frontier(tree.size, tree.roots)
    again.extend(LEAVES[77:200])
    assert again.root() == defined_root(LEAVES[:200])


def test_a_copy_is_appended_to_apart() -> None:
    tree = Frontier()
    tree.extend(LEAVES[:5])
    copy = tree.copy()
    copy.append(LEAVES[5])
    assert (tree.root(), copy.root()) == (defined_root(LEAVES[:5]), defined_root(LEAVES[:6]))


@pytest.mark.parametrize(("size", "roots"), [(3, LEAVES[:1]), (1, []), (0, LEAVES[:1]), (-1, []), (1, [b"short"])])
def test_a_frontier_that_cannot_be_is_refused(size: int, roots: list[bytes]) -> None:
    with pytest.raises(InvalidInputError):
        Frontier(size, roots)


def test_every_leaf_of_every_small_tree_is_proved() -> None:
    for size in range(1, 40):
        root = defined_root(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, subtree)
            verify_inclusion(LEAVES[index], index, size, proof, root)


def test_every_growth_of_every_small_tree_is_proved() -> None:
    for new in range(1, 40):
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, subtree)
            verify_consistency(old, new, defined_root(LEAVES[:old]), defined_root(LEAVES[:new]), proof)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_no_other_leaf_place_size_or_path_is_proved(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, size, subtree), defined_root(LEAVES[:size])
    altered: list[tuple[bytes, int, int, list[bytes]]] = [
        (leaf_hash(b"another"), index, size, proof),
        (LEAVES[index], index, size, [*proof, LEAVES[0]]),
        (LEAVES[index], index, size, [LEAVES[0], *proof]),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        altered += [
            (LEAVES[index], index, size, [*proof[:at], LEAVES[299 - index], *proof[at + 1 :]]),
            (LEAVES[index], index, size, proof[:at] + proof[at + 1 :]),
            (LEAVES[index], (index + 1) % size, size, proof),
        ]
    for leaf, place, of, path in altered:
        with pytest.raises(InvalidProofError):
            verify_inclusion(leaf, place, of, path, root)


@settings(deadline=None)
@given(st.integers(2, 300), st.data())
def test_a_log_that_was_rewritten_is_no_continuation(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(st.integers(0, old - 1))
    other = [*LEAVES[:changed], leaf_hash(b"rewritten"), *LEAVES[changed + 1 :]]

    def rewritten(level: int, number: int) -> bytes:
        return root_of(other[number << level : (number + 1) << level])

    proof = consistency_proof(old, new, rewritten)
    with pytest.raises(InvalidProofError):
        verify_consistency(old, new, defined_root(LEAVES[:old]), defined_root(other[:new]), proof)


def test_nothing_is_proved_from_an_empty_tree() -> None:
    with pytest.raises(InvalidInputError):
        consistency_proof(0, 5, subtree)
    with pytest.raises(InvalidProofError):
        verify_consistency(0, 5, EMPTY_ROOT, defined_root(LEAVES[:5]), [])


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_a_leaf_that_is_not_there_has_no_proof(index: int) -> None:
    with pytest.raises(InvalidInputError):
        inclusion_proof(index, 5, subtree)


@given(st.integers(0, 200), st.integers(0, 200))
def test_one_leaf_many_times_is_as_many_leaves(size: int, count: int) -> None:
    one, other = Frontier(), Frontier()
    for tree in (one, other):
        tree.extend(LEAVES[:size])
    one.pad(LEAVES[7], count)
    other.extend([LEAVES[7]] * count)
    assert (one.size, one.roots) == (other.size, other.roots)


def test_a_leaf_is_added_as_often_as_nobody_counts() -> None:
    tree = Frontier()
    tree.extend(LEAVES[:5])
    tree.pad(LEAVES[7], 2**62)
    assert (tree.size, len(tree.roots)) == (2**62 + 5, (2**62 + 5).bit_count())
