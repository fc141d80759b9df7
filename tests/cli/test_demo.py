"""The demonstration is a proof: it must fail when what it claims does not hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from keystead.cli.demo.people import read_people
from keystead.cli.demo.table import DemoTable
from keystead.errors import InvalidInputError
from keystead.manager.installation import install
from keystead.manager.manager import KeyManager
from keystead.testing import FakeKMS

CSV = "id,name,city\n1,Ann Example,Anytown\n2,Bob Example,Otherville\n3,,Nowhere\n"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keystead", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_demo_on_a_users_csv_loses_nothing_and_leaves_no_name_readable(tmp_path: Path) -> None:
    csv = tmp_path / "people.csv"
    csv.write_text(CSV)
    done = demo(str(csv), "--columns", "name,city", "--keep", str(tmp_path / "kept"), "--json")
    assert done.returncode == 0, done.stderr
    steps = {row["step"]: row["result"] for row in json.loads(done.stdout)}
    assert steps["decrypt all in a second process"] == "6 cells equal"
    assert steps["decrypt all again"] == "nothing lost: 6 cells and 5 messages equal"
    assert steps["search name by index"].startswith("3 rows, all and only the right ones")
    assert steps["re-encrypt while another process writes"].endswith((" cell rewritten", " cells rewritten"))
    assert steps["changes made meanwhile"].endswith("no cell left under an old version")
    assert b"Example" not in (tmp_path / "kept" / "people.db").read_bytes()
    assert "keystead serve --dev" in done.stderr
    assert tmp_path / "kept" / "keystead.yaml" in install(tmp_path / "kept").made


def test_the_demo_fails_when_a_cell_does_not_come_back() -> None:
    people = read_people(None, ["name"])
    assert people.digest() != read_people(None, ["email"]).digest()
    assert len(people.rows) == 10_000


async def test_a_changed_cell_changes_the_digest(tmp_path: Path) -> None:
    csv = tmp_path / "people.csv"
    csv.write_text(CSV)
    people = read_people(csv, ["name"])
    table = DemoTable(tmp_path / "people.db", people.columns, people.personal)
    table.create()
    async with KeyManager({"fake": FakeKMS()}, default_key_id="app", store="memory://") as km:
        await km.load_fields(*table.fields().values())
        table.insert(km, people, 0, 3)
        assert table.digest(km) == (3, people.digest())
        assert table.find(km, "Bob Example") == [1]
        table.change(km, 1, "name", "Eve Example")
        assert table.digest(km)[1] != people.digest()
        assert (table.find(km, "Bob Example"), table.find(km, "Eve Example")) == ([], [1])


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("", None, "header"),
        ("id,name\n", None, "header"),
        ("id,name\n1,a\n", ["phone"], "no column 'phone'"),
        ("id,name\n1\n", None, "more or fewer cells"),
        ("id,name\n1,a,b\n", None, "more or fewer cells"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_with_its_fault(
    tmp_path: Path, content: str, columns: list[str] | None, words: str
) -> None:
    csv = tmp_path / "people.csv"
    csv.write_text(content)
    with pytest.raises(InvalidInputError, match=words):
        read_people(csv, columns)


def test_a_folder_that_exists_is_not_written_into(tmp_path: Path) -> None:
    done = demo("--keep", str(tmp_path))
    assert done.returncode == 2
    assert "exists already" in done.stderr
