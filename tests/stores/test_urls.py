"""Store URLs: what they name, what is refused, and that none of it does I/O or repeats a password."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, MissingDependencyError, StoreNotFoundError
from keystead.stores import open_store, urls
from keystead.stores.sql import SqlKeyStore


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:test-password@host/keys",
        "keys.db",
        "",
        "sqlite://keys.db",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///:memory:",
        "sqlite:///keys.db?mode=ro",
        "memory://name",
        "postgresql://user:test-password@host:port/keys",
        "postgresql://host/keys?schema=a;b",
        "postgresql://host/keys?prepare_threshold=often",
        "postgresql://host/keys?prepare_threshold=5&prepare_threshold=6",
    ],
)
def test_a_url_that_names_no_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "test-password" not in str(caught.value)


def test_a_url_is_text() -> None:
    not_text: Any = Path("keys.db")
    with pytest.raises(ConfigurationError):
        open_store(not_text)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"keystead\[postgres\]"):
        open_store("postgresql://host/keys")


def test_a_memory_store_is_no_sql_store() -> None:
    with pytest.raises(ConfigurationError, match="MemoryKeyStore"):
        SqlKeyStore("memory://")


def test_schema_option_and_url_must_agree() -> None:
    with pytest.raises(ConfigurationError, match="different"):
        open_store("postgresql://host/keys?schema=one", schema="two")


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/keys.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_is_not_to_be_made_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "hollow.db").touch()
    for name in ("absent.db", "absent/keys.db", "hollow.db", "hollow.db/keys.db"):
        with pytest.raises(StoreNotFoundError, match=f"there is no store at {tmp_path}/{name}"):
            await open_store(f"sqlite:///{tmp_path}/{name}", creates=False).open()
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("hollow.db", 0)]


def test_importing_the_room_loads_no_sqlalchemy() -> None:
    program = "import sys, keystead.stores; print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
