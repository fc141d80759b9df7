"""What most tests of logs begin with: a KMS that is always there, and a place for a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.testing import FakeKMS


@pytest.fixture
def kms() -> FakeKMS:
    return FakeKMS()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"
