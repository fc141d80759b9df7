"""The providers that the conformance suites run against. A new provider joins with a file in ``subjects``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.providers.subjects import fake, local
from tests.providers.subjects.subject import Harness

HARNESSES: Final[Mapping[str, Harness]] = {**local.HARNESSES, **fake.HARNESSES}


def subjects(
    *capabilities: type, fault: str | None = None, rotates: bool | None = None, encrypts: bool | None = True
) -> pytest.MarkDecorator:
    """Run a test with every provider that has all of these; those that lack something are not asked."""
    names = [
        name
        for name, harness in HARNESSES.items()
        if harness.capabilities >= set(capabilities)
        and (fault is None or fault in harness.faults)
        and rotates in (None, harness.rotates)
        and encrypts in (None, harness.encrypts)
    ]
    return pytest.mark.parametrize("subject", names, indirect=True)
