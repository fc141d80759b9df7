"""The providers that the conformance suites run against. A new provider joins with a file in ``subjects``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.providers.subjects import aws, azure, fake, gcp, keystead_server, local, multi, openbao, pkcs11
from tests.providers.subjects.subject import Harness

HARNESSES: Final[Mapping[str, Harness]] = {
    **aws.HARNESSES,
    **azure.HARNESSES,
    **local.HARNESSES,
    **fake.HARNESSES,
    **gcp.HARNESSES,
    **keystead_server.HARNESSES,
    **multi.HARNESSES,
    **openbao.HARNESSES,
    **pkcs11.HARNESSES,
}


def subjects(
    *capabilities: type,
    fault: str | None = None,
    rotates: bool | None = None,
    encrypts: bool | None = True,
    rotates_mac_keys: bool | None = None,
) -> pytest.MarkDecorator:
    """Run a test with every provider that has all of these; those that lack something are not asked."""
    names = [
        name
        for name, harness in HARNESSES.items()
        if harness.capabilities >= set(capabilities)
        and (fault is None or fault in harness.faults)
        and rotates in (None, harness.rotates)
        and encrypts in (None, harness.encrypts)
        and rotates_mac_keys in (None, harness.rotates_mac_keys)
    ]
    return pytest.mark.parametrize("subject", names, indirect=True)
