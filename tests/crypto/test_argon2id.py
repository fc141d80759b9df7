"""Argon2id from two libraries: the same bytes, and either where the other is not there."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keystead.crypto import argon2id as room
from keystead.crypto.argon2id import argon2id
from keystead.errors import ConfigurationError


@pytest.fixture
def without_cffi(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load = importlib.import_module

    def refuse(name: str, *given: Any) -> Any:
        if name.startswith("argon2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return load(name, *given)

    room._reference.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    yield
    room._reference.cache_clear()


@pytest.mark.parametrize(
    ("material", "salt", "length", "cost"),
    [
        (32, 16, 32, (64, 2, 1)),
        (0, 8, 4, (8, 1, 1)),
        (1, 64, 129, (16, 3, 2)),
        (200, 16, 32, (1_000, 1, 4)),
        (32, 16, 64, (19_456, 2, 1)),
    ],
)
def test_both_libraries_give_the_same(material: int, salt: int, length: int, cost: tuple[int, int, int]) -> None:
    assert room._reference() is not None
    given, drawn = os.urandom(material), os.urandom(salt)
    memory_kib, iterations, lanes = cost
    made = argon2id(given, drawn, length=length, memory_kib=memory_kib, iterations=iterations, lanes=lanes)
    by_openssl = Argon2id(salt=drawn, length=length, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    assert made == by_openssl.derive(given)
    assert len(made) == length
    assert made != argon2id(given, drawn, length=length, memory_kib=memory_kib, iterations=iterations + 1, lanes=lanes)


def test_one_library_is_enough(request: pytest.FixtureRequest) -> None:
    made = argon2id(b"a", bytes(16), length=32, memory_kib=64, iterations=2, lanes=1)
    request.getfixturevalue("without_cffi")
    assert room._reference() is None
    assert argon2id(b"a", bytes(16), length=32, memory_kib=64, iterations=2, lanes=1) == made


@pytest.mark.usefixtures("without_cffi")
def test_where_there_is_neither_the_alternatives_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**settings: object) -> None:
        raise UnsupportedAlgorithm("no Argon2id here")

    monkeypatch.setattr(room, "Argon2id", refuse)
    with pytest.raises(ConfigurationError, match="argon2-cffi, or use RootKeyGenerator"):
        argon2id(b"a", bytes(16), length=32, memory_kib=64, iterations=2, lanes=1)
