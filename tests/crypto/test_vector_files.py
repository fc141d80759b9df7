from __future__ import annotations

import pytest

from scripts.gen_vectors import build
from tests.crypto.vectors import FOLDER

COMPUTED = build()


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_a_committed_vector_file_is_what_the_independent_script_computes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="ascii") == COMPUTED[name]


def test_every_committed_vector_file_is_computed() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(COMPUTED)


def test_the_readme_names_every_vector_file() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert [name for name in COMPUTED if f"`{name}`" not in readme] == []
