"""Merkle trees of RFC 6962 (section 2.1): roots while appending, proofs that a leaf is in and that a tree only grew.

Verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2, which say the same in the form of algorithms.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from keystead.errors import InvalidInputError, InvalidProofError

HASH_SIZE: Final = 32
BATCH: Final = 512
"""Leaves that are added at once: level by level takes half the time of one by one."""
EMPTY_ROOT: Final = sha256(b"").digest()

new_leaf: Final = sha256(b"\x00").copy
new_node: Final = sha256(b"\x01").copy
"""Hashes that a leaf and a node begin with: copying one takes less time than making it."""

Subtree = Callable[[int, int], bytes]
"""Returns the root of the complete subtree of 2**level leaves: level, then how many such subtrees stand before it."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that is appended to, as the roots of its complete subtrees, one for each bit of its size.

    Raises:
        InvalidInputError: ``roots`` are not as many as ``size`` has bits set, or not hashes.
    """

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Iterable[bytes] = ()) -> None:
        self.size = size
        self._roots = list(roots)
        if size < 0 or len(self._roots) != size.bit_count() or any(len(root) != HASH_SIZE for root in self._roots):
            raise InvalidInputError("a tree has a hash of 32 bytes for each bit set in its size")

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, the largest first."""
        return tuple(self._roots)

    def copy(self) -> Frontier:
        """Return the same tree, to be appended to apart from this one."""
        return Frontier(self.size, self._roots)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given its hash."""
        roots, size = self._roots, self.size
        while size & 1:
            leaf = sha256(b"\x01" + roots.pop() + leaf).digest()
            size >>= 1
        roots.append(leaf)
        self.size += 1

    def extend(self, leaves: list[bytes]) -> None:
        """Add leaves, given their hashes: level by level, which takes half the time of one by one."""
        roots, size = self._roots, self.size
        level, nodes = 0, leaves
        # From the bottom: at each level the subtree that waits there, if any, comes before the new nodes.
        merged: list[bytes] = []
        while nodes or size >> level:
            if size >> level & 1:
                nodes = [roots.pop(), *nodes]
            if len(nodes) & 1:
                merged.append(nodes[-1])
            nodes = parents(nodes)
            level += 1
        roots += reversed(merged)
        self.size += len(leaves)

    def pad(self, leaf: bytes, count: int) -> None:
        """Add one leaf so many times, given its hash; takes no longer for many than a number of them has digits."""
        subtrees = [leaf]
        end = self.size + count
        while self.size < end:
            # The largest subtree that begins here and is not too large: all below it is complete.
            level = min((self.size & -self.size or end).bit_length(), (end - self.size).bit_length()) - 1
            while len(subtrees) <= level:
                subtrees.append(node_hash(subtrees[-1], subtrees[-1]))
            node, size = subtrees[level], self.size >> level
            while size & 1:
                node = node_hash(self._roots.pop(), node)
                size >>= 1
            self._roots.append(node)
            self.size += 1 << level

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


def parents(nodes: Sequence[bytes]) -> list[bytes]:
    """Return the nodes above ``nodes``, pair by pair; of an odd one nothing comes."""
    above = []
    pairs = iter(nodes)
    for left, right in zip(pairs, pairs, strict=False):
        node = new_node()
        node.update(left + right)
        above.append(node.digest())
    return above


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree, given the hashes of its leaves."""
    tree = Frontier()
    tree.extend(list(leaves))
    return tree.root()


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that the leaf ``index`` is in the tree of ``size`` leaves, from the leaf to the root.

    Raises:
        InvalidInputError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise InvalidInputError(f"a tree of {size} leaves has no leaf {index}")
    return _path(index, 0, size, subtree)


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that the tree of ``new`` leaves begins with the tree of ``old`` leaves.

    Raises:
        InvalidInputError: ``old`` is zero, of which nothing can be proved, or above ``new``.
    """
    if not 0 < old <= new:
        raise InvalidInputError("a consistency proof goes from a tree that is not empty to one that is no smaller")
    return _subproof(old, 0, new, subtree, is_known=True)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if ``proof`` shows that ``leaf`` (its hash) is at ``index`` in the tree of ``size`` leaves under ``root``.

    Raises:
        InvalidProofError: it does not.
    """
    if len(root) != HASH_SIZE or not hmac.compare_digest(root_from_inclusion(leaf, index, size, proof), root):
        raise InvalidProofError("the record is not in the log at this place")


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root of the tree of ``size`` leaves that has ``leaf`` (its hash) at ``index``, given its ``proof``.

    Raises:
        InvalidProofError: no tree of this size has such a proof.
    """
    if not 0 <= index < size or not _are_hashes([leaf, *proof]):
        raise InvalidProofError("the proof of inclusion is malformed")
    sides = list(_sides(index, size - 1))
    if len(proof) > len(sides):
        raise InvalidProofError("the proof of inclusion is longer than its tree is high")
    if len(proof) < len(sides):
        raise InvalidProofError("the proof of inclusion is shorter than its tree is high")
    found = leaf
    for each, is_left in zip(proof, sides, strict=True):
        found = node_hash(each, found) if is_left else node_hash(found, each)
    return found


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Return if ``proof`` shows that the tree under ``new_root`` begins with the one under ``old_root``.

    Raises:
        InvalidProofError: it does not; ``old`` is zero, from which everything would follow; or ``new`` is smaller.
    """
    if not 0 < old <= new or not _are_hashes(proof):
        raise InvalidProofError("the proof of consistency is malformed")
    if old == new:
        if proof or not hmac.compare_digest(old_root, new_root):
            raise InvalidProofError("two trees of one size differ")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise InvalidProofError("the proof of consistency is too short")
    inside, outside = old - 1, new - 1
    while inside & 1:
        inside >>= 1
        outside >>= 1
    first, *rest = path
    sides = list(_sides(inside, outside))
    if len(rest) > len(sides):
        raise InvalidProofError("the proof of consistency is longer than its tree is high")
    second = first
    for each, is_left in zip(rest, sides, strict=False):
        if is_left:
            first, second = node_hash(each, first), node_hash(each, second)
        else:
            second = node_hash(second, each)
    is_whole = len(rest) == len(sides)
    if not is_whole or not (hmac.compare_digest(first, old_root) and hmac.compare_digest(second, new_root)):
        raise InvalidProofError("the log is no continuation of what it was")


def _sides(inside: int, outside: int) -> Iterator[bool]:
    """Yield from the bottom up, until the root, whether a proof's next hash stands left of what is known."""
    while outside:
        is_left = bool(inside & 1) or inside == outside
        yield is_left
        while is_left and inside and not inside & 1:
            inside >>= 1
            outside >>= 1
        inside >>= 1
        outside >>= 1


def complete_subtrees(size: int, roots: Iterable[bytes]) -> dict[tuple[int, int], bytes]:
    """Return the complete subtrees over the first ``size`` leaves, whose roots are given largest first.

    By level and number; one whose root is not given is empty bytes, which is no hash.
    """
    found, at, remaining = {}, 0, iter(roots)
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found[level, at >> level] = next(remaining, b"")
            at += 1 << level
    return found


def _path(index: int, start: int, end: int, subtree: Subtree) -> list[bytes]:
    """Return the hashes beside the way from a leaf to the root of the leaves [start, end)."""
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, subtree), _range_root(middle, end, subtree)]
    return [*_path(index, middle, end, subtree), _range_root(start, middle, subtree)]


def _subproof(old: int, start: int, end: int, subtree: Subtree, *, is_known: bool) -> list[bytes]:
    if old == end:
        return [] if is_known else [_range_root(start, end, subtree)]
    middle = start + _split(end - start)
    if old <= middle:
        return [*_subproof(old, start, middle, subtree, is_known=is_known), _range_root(middle, end, subtree)]
    return [*_subproof(old, middle, end, subtree, is_known=False), _range_root(start, middle, subtree)]


def _range_root(start: int, end: int, subtree: Subtree) -> bytes:
    """Return the root of the leaves [start, end), which begin at a multiple of the largest power of two in them."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtree(level, start >> level)
    middle = start + _split(size)
    return node_hash(_range_root(start, middle, subtree), _range_root(middle, end, subtree))


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return all(len(each) == HASH_SIZE for each in proof)
