"""Fresh servers that speak Transit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transit.targets.keystead import KeysteadTarget, keystead_target
from tests.transit.targets.openbao import OpenBaoTarget, openbao_target


@pytest.fixture
def fresh_openbao(tmp_path: Path) -> Iterator[OpenBaoTarget]:
    """An OpenBao for one test."""
    with openbao_target(tmp_path) as target:
        yield target


@pytest.fixture
def fresh_keystead(tmp_path: Path) -> Iterator[KeysteadTarget]:
    """A key service for one test."""
    with keystead_target(tmp_path) as target:
        yield target
