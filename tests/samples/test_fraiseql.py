"""The samples of FraiseQL's documentation run as they are printed, with the import changed."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider
from keystead.ports import KmsProvider
from keystead.testing import FakeKMS
from tests.samples.surroundings import Database

SAMPLES = Path(__file__).with_name("fraiseql")
SECRET = "what must not be read"
NAMES = sorted(path.stem for path in SAMPLES.glob("*.py") if path.stem != "__init__")


@pytest.fixture
def providers() -> dict[str, KmsProvider]:
    """The document's instance names, with a provider behind them that needs no cloud."""
    return {"vault": LocalKMSProvider(LocalKMSConfig(master_key=b"development-master-key-32-bytes!"))}


@pytest.fixture
async def key_manager(providers: dict[str, KmsProvider], tmp_path: Path) -> AsyncIterator[KeyManager]:
    """The manager that every sample calls ``key_manager``, not yet initialised."""
    manager = KeyManager(
        providers=providers,
        default_provider="vault",
        default_key_id="app-encryption-key",
        store=f"sqlite:///{tmp_path}/keys.db",
    )
    yield manager
    await manager.close()


@pytest.fixture
def kms() -> FakeKMS:
    """A KMS whose failures are switches."""
    return FakeKMS()


@pytest.fixture
async def unreachable(kms: FakeKMS) -> AsyncIterator[KeyManager]:
    """A manager over that KMS."""
    manager = KeyManager({"fake": kms.provider("fake")}, default_key_id="app", store="memory://")
    yield manager
    await manager.close()


@pytest.fixture
async def scheduler() -> AsyncIterator[AsyncIOScheduler]:
    """APScheduler on the test's event loop."""
    made = AsyncIOScheduler()
    made.start()
    yield made
    made.shutdown()


@pytest.fixture
def surroundings(
    request: pytest.FixtureRequest, key_manager: KeyManager, unreachable: KeyManager, scheduler: AsyncIOScheduler
) -> dict[str, object]:
    """Everything a sample may take for granted, by the name it uses."""
    names_of_bytes = ("secret", "plaintext", "plaintext_bytes", "data", "api_key", "password")
    return (
        dict.fromkeys(names_of_bytes, SECRET.encode())
        | {
            "secret_string": SECRET,
            "db": Database(),
            "key_manager": key_manager,
            "unreachable": unreachable,
            "scheduler": scheduler,
        }
        | {name: request.getfixturevalue(name) for name in ("providers", "kms", "caplog", "capsys")}
    )


@pytest.mark.parametrize("name", NAMES)
async def test_the_sample_runs(name: str, surroundings: dict[str, object]) -> None:
    sample = importlib.import_module(f"tests.samples.fraiseql.{name}").sample
    await sample(**{wanted: surroundings[wanted] for wanted in inspect.signature(sample).parameters})


def listed() -> list[tuple[str, str, str]]:
    rows = re.findall(r"^\| (.+?) \| ?(.*?) ?\| ?(.*?) ?\|$", (SAMPLES / "EXCEPTIONS.md").read_text(), re.MULTILINE)
    return rows[1:]


def test_every_row_of_the_list_names_a_sample_or_a_reason() -> None:
    assert all(bool(file) or bool(reason) for _, file, reason in listed())
    assert len(listed()) == 35


def test_the_list_and_the_samples_agree() -> None:
    assert {file for _, file, _ in listed() if file} == {f"{name}.py" for name in NAMES}


async def test_the_overdue_check_works_with_an_aware_now(key_manager: KeyManager) -> None:
    assert key_manager.get_rotation_policy().last_rotation is None
    await key_manager.initialize()
    last = key_manager.get_rotation_policy().last_rotation
    assert last is not None
    assert datetime.now(UTC) - last < timedelta(hours=2)
