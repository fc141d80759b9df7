"""Google Cloud KMS for tests: the fake one, one for each process that runs tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.components import missing

if TYPE_CHECKING:
    from tests.fakes.gcp_kms import FakeCloudKms

CURE = "pip install 'keystead[gcp]' trustme (part of the test group)"


@pytest.fixture(scope="session")
def cloud_kms() -> Iterator[FakeCloudKms]:
    """A Cloud KMS on this machine, with its faults off."""
    if not all(importlib.util.find_spec(name) for name in ("google", "google_crc32c", "trustme")):
        missing("gcp", CURE)
    from tests.fakes.gcp_kms import FakeCloudKms

    with FakeCloudKms() as kms:
        yield kms
