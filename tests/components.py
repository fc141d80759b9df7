"""What happens when a test needs something this machine does not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(component: str, cure: str) -> NoReturn:
    """Skip the test, or fail it where ``KEYSTEAD_REQUIRE`` (``all``, or a comma-separated list) names ``component``."""
    required = {name.strip() for name in os.environ.get("KEYSTEAD_REQUIRE", "").split(",")}
    message = f"needs {component}: {cure}"
    if required & {"all", component}:
        pytest.fail(f"{message} (KEYSTEAD_REQUIRE makes this a failure)", pytrace=False)
    pytest.skip(message)
