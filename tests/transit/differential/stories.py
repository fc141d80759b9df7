"""Random stories: requests in an order, which name what earlier answers gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st

from tests.transit.differential.values import (
    AEADS,
    HASHES,
    SIGNERS,
    WRONG,
    Values,
    algorithms,
    contexts,
    encoded,
    flags,
    formats,
    marshalings,
    mostly,
    references,
    salt_lengths,
    signature_algorithms,
    some,
    types,
    usually,
    versions,
)

KEYS: Final = 3
"""How many keys a story has."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A value that each server gave itself, as it stands or changed.

    Attributes:
        kind: the field it was in: ``ciphertext``, ``hmac`` or ``signature``.
        back: how many such values ago; counted anew where there are not so many.
        edits: as in the recordings.
        is_of_any_key: whether it may be of another key than the one of the request.
    """

    kind: str
    back: int
    edits: tuple[Mapping[str, Any], ...] = ()
    is_of_any_key: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One request, below ``/v1/transit/``, in which ``{0}``, ``{1}``... stand for the names of the story's keys."""

    path: str
    body: Any = field(default_factory=dict)
    method: str = "POST"


def stories() -> st.SearchStrategy[list[Step]]:
    """Return stories that begin with their keys: one that encrypts, one that derives, and one that signs."""
    opening = st.tuples(
        _made("{0}", _of_type(AEADS)),
        _made("{1}", _of_type((*AEADS, "ed25519"), derived=st.just(True)) | _convergent()),
        _made("{2}", _of_type(SIGNERS) | st.just({"type": "hmac", "key_size": 32})),
    )
    later = st.lists(mostly(_steps().map(lambda step: [step]), _chapters()), min_size=10, max_size=30)
    return st.tuples(opening, later).map(lambda parts: [*parts[0], *(step for each in parts[1] for step in each)])


_EDITS: Final = st.sampled_from(
    [
        *[()] * 12,
        ({"op": "flip", "at": -1, "bit": 0},),
        ({"op": "cut_bytes", "to": 11},),
        ({"op": "append_bytes", "hex": "00"},),
        ({"op": "cut", "to": 12},),
        ({"op": "replace", "old": "vault:v", "new": "vault:"},),
        ({"op": "replace", "old": "vault:v1:", "new": "vault:v2:"},),
        ({"op": "replace", "old": "vault:v", "new": "vault:v9"},),
        ({"op": "append", "text": "!"},),
    ]
)


def _earlier(kind: str) -> Values:
    is_of_any_key = st.sampled_from([False, False, False, True])
    return mostly(st.builds(Earlier, st.just(kind), st.integers(0, 5), _EDITS, is_of_any_key))


def _of_type(kinds: tuple[str, ...], **more: Values) -> Values:
    return st.fixed_dictionaries({"type": st.sampled_from(kinds), **more})


def _convergent() -> Values:
    return _of_type(AEADS, derived=st.just(True), convergent_encryption=st.just(True))


def _options() -> Values:
    return some(
        type=types,
        derived=flags,
        convergent_encryption=flags,
        exportable=flags,
        allow_plaintext_backup=flags,
        key_size=mostly(st.sampled_from([32, 64, 31, 513])),
    )


def _made(key: str, options: Values) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(f"keys/{key}"), mostly(options, _options()))


def _batched(item: Values) -> Values:
    """Return bodies of batches: a few items, mostly of this form."""
    return st.builds(
        lambda items: {"batch_input": items},
        mostly(st.lists(item, min_size=1, max_size=4), st.lists(mostly(item)) | WRONG),
    )


def _at(path: str, body: Values, method: str = "POST", *, keys: tuple[int, ...] = (0, 1, 2)) -> st.SearchStrategy[Step]:
    """Return requests for one of the keys; now and then for another, which may not be able to do it."""
    named = mostly(st.sampled_from(keys), st.integers(0, KEYS - 1)).map(lambda number: path.format(f"{{{number}}}"))
    return st.builds(Step, named, body, st.just(method))


def _with_and_without_context(path: str, make: Callable[..., Values]) -> list[st.SearchStrategy[Step]]:
    """Return requests for the key that takes no context, and for the one that takes one."""
    return [_at(path, make(), keys=(0,)), _at(path, make(context=contexts), keys=(1,))]


def _steps() -> st.SearchStrategy[Step]:
    return st.one_of(*_administration(), *_encryption(), *_macs(), *_signatures(), *_keyless())


def _chapters() -> st.SearchStrategy[list[Step]]:
    """Return steps that come to something in their order alone: a version that is trimmed, a key that is deleted."""
    made = [{"plaintext": "YQ=="}, {"plaintext": "Yg==", "reference": "b"}]
    opened = [{"ciphertext": Earlier("ciphertext", 1)}, {"ciphertext": Earlier("ciphertext", 0), "reference": "b"}]
    trimmed = [
        Step("encrypt/{0}", {"plaintext": "YQ=="}),
        Step("keys/{0}/rotate"),
        Step("keys/{0}/config", {"min_decryption_version": 2, "min_encryption_version": 2}),
        Step("keys/{0}/trim", {"min_available_version": 2}),
        Step("decrypt/{0}", {"ciphertext": Earlier("ciphertext", 0)}),
        Step("keys/{0}", None, "GET"),
    ]
    deleted = [
        Step("keys/{2}/config", {"deletion_allowed": True}),
        Step("keys/{2}", None, "DELETE"),
        Step("keys/{2}", None, "GET"),
        Step("keys/{2}", {"type": "ed25519"}),
    ]
    batch = [Step("encrypt/{0}", {"batch_input": made}), Step("decrypt/{0}", {"batch_input": opened})]
    return st.sampled_from([trimmed, deleted, batch, batch])


def _administration() -> list[st.SearchStrategy[Step]]:
    limits = some(min_decryption_version=versions, min_encryption_version=versions)
    return [
        st.integers(0, KEYS - 1).flatmap(lambda number: _made(f"{{{number}}}", _options())),
        _at("keys/{}/config", limits),
        _at("keys/{}/config", some(deletion_allowed=flags, exportable=flags, allow_plaintext_backup=flags)),
        _at("keys/{}/rotate", st.just({})),
        _at("keys/{}/rotate", st.just({})),
        _at("keys/{}/rotate", st.just({})),
        _at("keys/{}/trim", usually({"min_available_version": versions})),
        _at("keys/{}", st.none(), "GET"),
        _at("keys/{}", st.none(), "DELETE"),
    ]


def _encryption() -> list[st.SearchStrategy[Step]]:
    bound: dict[str, Values] = {"associated_data": contexts}
    return [
        *_with_and_without_context(
            "encrypt/{}", lambda **more: usually({"plaintext": encoded, **more}, key_version=versions, **bound)
        ),
        *_with_and_without_context(
            "encrypt/{}",
            lambda **more: _batched(usually({"plaintext": encoded, **more}, reference=references, **bound)),
        ),
        *2
        * _with_and_without_context(
            "decrypt/{}", lambda **more: usually({"ciphertext": _earlier("ciphertext"), **more}, **bound)
        ),
        *_with_and_without_context(
            "decrypt/{}",
            lambda **more: _batched(usually({"ciphertext": _earlier("ciphertext"), **more}, reference=references)),
        ),
        *_with_and_without_context(
            "rewrap/{}", lambda **more: usually({"ciphertext": _earlier("ciphertext"), **more}, key_version=versions)
        ),
        *_with_and_without_context(
            "rewrap/{}",
            lambda **more: _batched(usually({"ciphertext": _earlier("ciphertext"), **more}, key_version=versions)),
        ),
        *_with_and_without_context("datakey/plaintext/{}", _data_key),
        *_with_and_without_context("datakey/wrapped/{}", _data_key),
    ]


def _data_key(**more: Values) -> Values:
    bits = mostly(st.sampled_from([128, 256, 512]))
    return usually(more, bits=bits, key_version=versions, associated_data=contexts)


def _macs() -> list[st.SearchStrategy[Step]]:
    given = usually({"input": encoded}, algorithm=algorithms, key_version=versions)
    verified = usually({"input": encoded, "hmac": _earlier("hmac")}, hash_algorithm=algorithms)
    return [
        _at("hmac/{}", given),
        _at("hmac/{}/sha2-512", given),
        _at("hmac/{}", _batched(usually({"input": encoded}, reference=references))),
        _at("verify/{}", verified),
        _at("verify/{}", _batched(usually({"input": encoded, "hmac": _earlier("hmac")}))),
    ]


def _signatures() -> list[st.SearchStrategy[Step]]:
    how: dict[str, Values] = {
        "hash_algorithm": algorithms,
        "marshaling_algorithm": marshalings,
        "prehashed": flags,
        "salt_length": salt_lengths,
        "signature_algorithm": signature_algorithms,
    }
    signature = _earlier("signature")
    return [
        _at("sign/{}", usually({"input": encoded}, key_version=versions, **how), keys=(2,)),
        _at("sign/{}", usually({"input": encoded}), keys=(2,)),
        _at("sign/{}", usually({"input": encoded, "context": contexts}), keys=(1,)),
        _at("sign/{}", _batched(usually({"input": encoded}, reference=references)), keys=(2,)),
        _at("verify/{}", usually({"input": encoded, "signature": signature}, **how), keys=(2,)),
        _at("verify/{}", usually({"input": encoded, "signature": signature, "context": contexts}), keys=(1,)),
        _at("verify/{}", _batched(usually({"input": encoded, "signature": signature})), keys=(2,)),
    ]


def _keyless() -> list[st.SearchStrategy[Step]]:
    sizes = mostly(st.integers(0, 40))
    paths = ("hash", "hash/sha2-512", "hash/sha3-256", "hash/junk")
    return [
        st.builds(Step, st.just("random"), some(bytes=sizes, format=formats)),
        st.builds(Step, st.sampled_from(["random/16", "random/junk", "random/all", "random/-1"]), some(format=formats)),
        st.builds(Step, st.sampled_from(paths), usually({"input": encoded}, format=formats, algorithm=algorithms)),
        st.builds(Step, st.sampled_from(HASHES).map("hash/{}".format), usually({"input": encoded})),
    ]
