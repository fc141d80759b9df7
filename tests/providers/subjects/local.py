"""The local KMS, from each source of its KEK."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

from keystead.ports import (
    Closes,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    ReadsForeignData,
    ReportsRotationPolicy,
    RetiresKeyVersions,
    RewrapsCiphertexts,
    RotatesKeys,
    TellsExtractability,
)
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.providers.subjects.subject import Harness, Subject

TEST_KEY: Final = bytes(range(32))
CAPABILITIES: Final = frozenset(
    {
        Closes,
        DescribesKeys,
        EncryptsBatches,
        GeneratesDataKeys,
        ReadsForeignData,
        ReportsRotationPolicy,
        RetiresKeyVersions,
        RewrapsCiphertexts,
        RotatesKeys,
        TellsExtractability,
    }
)


def _of_bytes(folder: Path, service: Any) -> Subject:
    return Subject(LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY)))


def _random(folder: Path, service: Any) -> Subject:
    return Subject(LocalKMSProvider())


def _of_file(folder: Path, service: Any) -> Subject:
    create_kek_file(folder / "kek")
    return Subject(LocalKMSProvider(LocalKMSConfig(path=folder / "kek")))


def _of_keys(folder: Path, service: Any) -> Subject:
    path = folder / "keys"
    path.touch(0o600)
    path.write_text(f"{TEST_KEY[::-1].hex()}\n{TEST_KEY.hex()}\n")
    return Subject(LocalKMSProvider(LocalKMSConfig(path=path)))


def _of_variable(folder: Path, service: Any) -> Subject:
    environ = {"TEST_KEK": base64.b64encode(TEST_KEY).decode()}
    return Subject(LocalKMSProvider(LocalKMSConfig(env="TEST_KEK"), environ=environ))


def _of_root_key(folder: Path, service: Any) -> Subject:
    return Subject(LocalKMSProvider(LocalKMSConfig(root_key=lambda: TEST_KEY[:16])))


HARNESSES: Final = {
    "local-bytes": Harness(_of_bytes, capabilities=CAPABILITIES),
    "local-random": Harness(_random, capabilities=CAPABILITIES),
    "local-file": Harness(_of_file, capabilities=CAPABILITIES, rotates=True),
    "local-keys": Harness(_of_keys, capabilities=CAPABILITIES),
    "local-env": Harness(_of_variable, capabilities=CAPABILITIES),
    "local-root-key": Harness(_of_root_key, capabilities=CAPABILITIES),
}
