"""Random bytes and hashes are told in the size and form that is asked for."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import InvalidInputError
from keystead.transit.digests import Hash
from keystead.transit.randoms import MOST, hash_text, random_text
from tests.transit.test_macs import OF_HASHLIB


@given(size=st.integers(1, 300), source=st.sampled_from(["platform", "seal", "all"]))
def test_random_bytes_are_so_many_of_the_source(size: int, source: str) -> None:
    given: list[bytes] = []

    def random(wanted: int) -> bytes:
        given.append(os.urandom(wanted))
        return given[-1]

    assert base64.b64decode(random_text(random, size, source=source)) == given[0]
    assert bytes.fromhex(random_text(random, size, form="hex")) == given[1]
    assert [len(each) for each in given] == [size, size]


def test_the_most_and_the_usual_size() -> None:
    assert len(base64.b64decode(random_text(os.urandom, MOST))) == 131_072
    assert len(base64.b64decode(random_text(os.urandom))) == 32


@pytest.mark.parametrize(
    ("size", "form", "source", "told"),
    [
        (0, "hex", "all", "'bytes' cannot be less than 1"),
        (-1, "x", "all", "'bytes' cannot be less than 1"),
        (131_073, "hex", "all", "'bytes' should be less than 131072"),
        (1, "HEX", "junk", 'unsupported encoding format "HEX"; must be "hex" or "base64"'),
        (1, "hex", "junk", 'unsupported entropy source "junk"; must be "platform" or "seal", or "all"'),
    ],
)
def test_what_is_not_offered_is_refused_before_anything_is_drawn(size: int, form: str, source: str, told: str) -> None:
    def random(size: int) -> bytes:
        raise AssertionError("drawn")

    with pytest.raises(InvalidInputError) as refused:
        random_text(random, size, form=form, source=source)
    assert str(refused.value) == told


@pytest.mark.parametrize("algorithm", [each for each in OF_HASHLIB if each != "sha1"])
@given(data=st.binary(max_size=300))
def test_a_hash_is_that_of_its_function(algorithm: str, data: bytes) -> None:
    expected = OF_HASHLIB[algorithm](data).digest()
    assert bytes.fromhex(hash_text(data, algorithm)) == expected
    assert base64.b64decode(hash_text(data, algorithm, form="base64")) == expected


def test_sha2_256_in_hex_is_usual() -> None:
    assert hash_text(b"x") == hashlib.sha256(b"x").hexdigest()


def test_every_function_is_known_here() -> None:
    assert set(OF_HASHLIB) == {each.value for each in Hash}


@pytest.mark.parametrize("algorithm", ["sha1", "md5", "SHA2-256", "none", ""])
def test_an_unknown_hash_is_refused(algorithm: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^unsupported algorithm {algorithm}$"):
        hash_text(b"x", algorithm)


@pytest.mark.parametrize("form", ["base32", "HEX", ""])
def test_an_unknown_form_is_refused(form: str) -> None:
    with pytest.raises(InvalidInputError, match=f'^unsupported encoding format {form}; must be "hex" or "base64"$'):
        hash_text(b"x", form=form)
