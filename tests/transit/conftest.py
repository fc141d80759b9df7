"""Fresh servers that speak Transit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from tests.transit.targets.keystead import KeysteadTarget, keystead_target
from tests.transit.targets.openbao import OpenBaoTarget, openbao_target


@pytest.fixture
def open_openbao(tmp_path: Path) -> Callable[[], AbstractContextManager[OpenBaoTarget]]:
    """Open OpenBaos, one after the other, each of them fresh."""
    numbers = count()
    return lambda: openbao_target(_folder(tmp_path, next(numbers)))


@pytest.fixture
def open_keystead(tmp_path: Path) -> Callable[[], AbstractContextManager[KeysteadTarget]]:
    """Open key services, one after the other, each of them fresh."""
    numbers = count()
    return lambda: keystead_target(_folder(tmp_path, next(numbers)))


@pytest.fixture
def fresh_openbao(tmp_path: Path) -> Iterator[OpenBaoTarget]:
    """An OpenBao for one test."""
    with openbao_target(tmp_path) as target:
        yield target


def _folder(parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder
