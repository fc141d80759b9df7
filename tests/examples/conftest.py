"""A service for development, as somebody who tries an example starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keystead.manager.installation import install
from tests.cli.serving import serving


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The URL of a service that runs with ``--dev``."""
    install(tmp_path)
    with serving(tmp_path, "--dev") as url:
        yield url
