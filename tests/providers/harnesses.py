"""The providers that the conformance suite runs against. A new provider joins with one line in ``HARNESSES``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystead.ports import KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.kek_file import create_kek_file
from keystead.providers.local import LocalKMSConfig, LocalKMSProvider
from keystead.testing import FakeKMS

TEST_KEY: Final = bytes(range(32))


@dataclass(frozen=True)
class Subject:
    """A provider under test. ``key_id`` and ``other_key_id`` name two keys that may be used."""

    provider: KmsProvider
    key_id: str = "first"
    other_key_id: str = "second"


@dataclass(frozen=True)
class Harness:
    """How a subject is made, given an empty folder, and whether its KEK can be rotated by us."""

    make: Callable[[Path], Subject]
    rotates: bool = False


def _of_bytes(folder: Path) -> Subject:
    return Subject(LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY)))


def _random(folder: Path) -> Subject:
    return Subject(LocalKMSProvider())


def _of_file(folder: Path) -> Subject:
    create_kek_file(folder / "kek")
    return Subject(LocalKMSProvider(LocalKMSConfig(path=folder / "kek")))


def _of_variable(folder: Path) -> Subject:
    environ = {"TEST_KEK": base64.b64encode(TEST_KEY).decode()}
    return Subject(LocalKMSProvider(LocalKMSConfig(env="TEST_KEK"), environ=environ))


def _of_root_key(folder: Path) -> Subject:
    return Subject(LocalKMSProvider(LocalKMSConfig(root_key=lambda: TEST_KEY[:16])))


def _fake(folder: Path) -> Subject:
    return Subject(FakeKMS().provider())


def _guarded(folder: Path) -> Subject:
    return Subject(GuardedProvider(FakeKMS(), "guarded"))


HARNESSES: Final[Mapping[str, Harness]] = {
    "local-bytes": Harness(_of_bytes),
    "local-random": Harness(_random),
    "local-file": Harness(_of_file, rotates=True),
    "local-env": Harness(_of_variable),
    "local-root-key": Harness(_of_root_key),
    "fake": Harness(_fake, rotates=True),
    "guarded-fake": Harness(_guarded, rotates=True),
}
