"""Files whose columns are under keyrings: read by who has the keys, and by nobody else."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keystead import KeyManager, blocking
from keystead.errors import ConfigurationError, InvalidInputError, KeyNotFoundError, KeyStateError, KMSError
from keystead.integrations.parquet import KmsClient, ParquetKeys
from keystead.manager import admin
from keystead.parquet.columns import leaves_of
from keystead.runtime.loop import background_loop
from tests.integrations.parquet.conftest import manager

COLUMNS = {"pii": ["email", "address"], "notes": "no*"}
NOW = timedelta(0)


def keys(km: blocking.KeyManager, **options: Any) -> ParquetKeys:
    """Return keys of which pyarrow remembers none."""
    given: dict[str, Any] = {"columns": COLUMNS, "plain": "id", "footer": "files", "cache": NOW}
    return ParquetKeys(km, **(given | options))


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_a_file_is_read_as_it_was_written_also_by_another_process(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path, in_file: bool, plaintext_footer: bool
) -> None:
    path = tmp_path / "people.parquet"
    keys(km, in_file=in_file, plaintext_footer=plaintext_footer).write_table(people, path, row_group_size=100)
    assert keys(km).read_table(path).equals(people)
    km.close()
    with manager(tmp_path) as again:
        assert ParquetKeys(again).read_table(path, columns=["email"]).equals(people.select(["email"]))


def test_each_column_is_under_the_keyring_that_its_rule_names(km: blocking.KeyManager, people: pa.Table) -> None:
    assert keys(km).encryption(people.schema).column_keys == {
        "pii": ["email", "address.street", "address.zip"],
        "notes": ["note"],
        "files": ["tags.list.element"],
    }
    assert leaves_of(people.schema)[:3] == ["id", "email", "address.street"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": {"pii": "e-mail"}}, "no column is named 'e-mail': there are id, email"),
        ({"columns": {"pii": "email", "other": "e*"}, "plain": ()}, "named by two rules"),
        ({"columns": {"pii": "id"}}, "named by two rules"),
        ({"plain": ("id", "idd")}, "no column is named 'idd'"),
        ({"columns": {}, "plain": "*"}, "every column is plain"),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_anything_is_written(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        keys(km, **options).write_table(people, tmp_path / "people.parquet")
    assert not (tmp_path / "people.parquet").exists()


@pytest.mark.parametrize("ring", ["a:b", "a;b, c", "100%25", " spaced ", "\u00fcber/north"])
def test_a_keyring_may_have_any_name(km: blocking.KeyManager, people: pa.Table, tmp_path: Path, ring: str) -> None:
    path = tmp_path / "people.parquet"
    keys(km, footer=ring, columns={ring + "2": "email"}, plain=()).write_table(people, path)
    assert keys(km).read_table(path).equals(people)
    assert len(km.keyring(ring, create=False).versions()) == len(km.keyring(ring + "2", create=False).versions()) == 1


@pytest.mark.parametrize("name", ["a:b", "a,b", "a;b"])
def test_a_column_that_pyarrow_cannot_name_is_refused_unless_it_is_plain(
    km: blocking.KeyManager, tmp_path: Path, name: str
) -> None:
    table = pa.table({name: [1], "other": [2]})
    with pytest.raises(ConfigurationError, match="rename it in the file"):
        ParquetKeys(km).write_table(table, tmp_path / "a.parquet")
    ParquetKeys(km, plain=name).write_table(table, tmp_path / "a.parquet")
    assert ParquetKeys(km).read_table(tmp_path / "a.parquet").equals(table)


def test_nothing_of_it_is_in_the_file_but_what_is_plain(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "people.parquet"
    keys(km).write_table(people, path, compression="none", use_dictionary=False)
    content = path.read_bytes() + b"".join(each.read_bytes() for each in tmp_path.glob("_KEY*"))
    for word in (b"person-7@", b"Street 7", b"tag 7", b"a note", b"email", b"address"):
        assert word not in content
    with pytest.raises((OSError, KMSError)):
        pq.read_table(path)


def test_who_may_use_one_keyring_reads_its_columns_alone(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "people.parquet"
    keys(km, in_file=True).write_table(people, path)
    shut = km.keyring("pii")
    shut.rotate(promote="now")
    (old,) = [info for info in shut.versions() if info.version == 1]
    background_loop.run(admin.disable_key(km._manager, old.id))
    opened = keys(km)
    assert opened.read_table(path, columns=["id", "note"]).equals(people.select(["id", "note"]))
    with pytest.raises(KeyStateError):
        opened.read_table(path, columns=["email"])


def test_a_store_without_the_keyrings_reads_nothing(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    keys(km).write_table(people, path)
    (tmp_path / "elsewhere").mkdir()
    with manager(tmp_path / "elsewhere") as other, pytest.raises(KeyNotFoundError, match="files"):
        keys(other).read_table(path)


def test_keys_of_the_kms_itself_wrap_too(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    keys(km, footer="kms:", columns={"kms:arn:of/reports": "email"}, plain=()).write_table(people, path)
    assert keys(km).read_table(path).equals(people)
    (material,) = tmp_path.glob("_KEY*")
    told = [json.loads(each) for each in json.loads(material.read_text()).values()]
    assert {each["masterKeyID"] for each in told} == {"kms%3A", "kms%3Aarn%3Aof/reports"}
    assert all(each["wrappedKEK"].startswith("ks2.") for each in told)


def test_a_key_does_not_open_under_another_master_key(km: blocking.KeyManager) -> None:
    client = KmsClient(km)
    wrapped = client.wrap_key(bytes(32), "pii")
    assert client.unwrap_key(wrapped, "pii") == client.unwrap_key(wrapped.encode(), "pii") == bytes(32)
    client.wrap_key(bytes(32), "notes")
    for other in ("notes", "kms:", "absent"):
        with pytest.raises(KMSError):
            client.unwrap_key(wrapped, other)
    by_kms = client.wrap_key(bytes(32), "kms:one")
    assert client.unwrap_key(by_kms, "kms:one") == bytes(32)
    with pytest.raises(KMSError):
        client.unwrap_key(by_kms, "kms:two")


def test_master_keys_rotate_while_the_files_stay(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "2030").mkdir(parents=True)
    paths = [folder / "a.parquet", folder / "2030" / "b.parquet"]
    for path in paths:
        keys(km).write_table(people, path)
    before = [path.read_bytes() for path in paths]
    old = {ring: km.keyring(ring).versions()[0].id for ring in ("pii", "notes", "files")}
    for ring in old:
        km.keyring(ring).rotate(promote="now")
    assert keys(km).rotate_master_keys(folder) == 2
    assert [path.read_bytes() for path in paths] == before
    for path in paths:
        material = json.loads(path.with_name(f"_KEY_MATERIAL_FOR_{path.name}.json").read_text())
        for each in map(json.loads, material.values()):
            handle = km.keyring(each["masterKeyID"])
            assert not handle.needs_reencrypt(each["wrappedKEK"])
            assert handle.data_key_id(each["wrappedKEK"]) != old[each["masterKeyID"]]
        assert keys(km).read_table(path).equals(people)


def test_a_rotation_that_dies_before_its_end_leaves_the_keys_that_were_there(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(km).write_table(people, tmp_path / "a.parquet")
    (material,) = tmp_path.glob("_KEY*")
    before = material.read_bytes()

    def die(path: Path, content: bytes) -> None:
        assert path == material
        assert path.read_bytes() == before
        assert content != before
        raise KeyboardInterrupt

    monkeypatch.setattr("keystead.parquet.keys.replace_file", die)
    with pytest.raises(KeyboardInterrupt):
        keys(km).rotate_master_keys(tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.glob("_*")] == [material.name]
    assert keys(km).read_table(tmp_path / "a.parquet").equals(people)


def test_what_has_no_keys_beside_it_is_not_rotated(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    keys(km).write_table(people, tmp_path / "a.parquet")
    keys(km, in_file=True).write_table(people, tmp_path / "b.parquet")
    (material,) = tmp_path.glob("_KEY*")
    before = material.read_bytes()
    for path in (tmp_path, tmp_path / "b.parquet", tmp_path / "absent.parquet"):
        with pytest.raises(InvalidInputError, match="no keys beside it"):
            keys(km).rotate_master_keys(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no Parquet file"):
        keys(km).rotate_master_keys(tmp_path / "empty")
    assert material.read_bytes() == before


def test_a_dataset_is_read_by_pyarrow_polars_and_duckdb(
    km: blocking.KeyManager, people: pa.Table, tmp_path: Path
) -> None:
    folder = tmp_path / "people"
    keys(km, in_file=True).write_dataset(people, folder, max_rows_per_file=200, max_rows_per_group=200)
    assert len(list(folder.glob("*.parquet"))) == 3
    dataset = keys(km).dataset(folder)
    assert dataset.to_table().sort_by("id").equals(people)
    found = pl.scan_pyarrow_dataset(dataset).filter(pl.col("id") == 7).select("email").collect()
    assert found["email"].to_list() == ["person-7@example.org"]
    with duckdb.connect() as connection:
        connection.register("people", dataset)
        rows = connection.execute("SELECT count(*), max(email) FROM people WHERE id >= 490").fetchall()
    assert rows == [(10, "person-499@example.org")]


def test_a_dataset_keeps_its_keys_in_its_files(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in_file=True"):
        keys(km).write_dataset(people, tmp_path / "people")
    batches = pa.RecordBatchReader.from_batches(people.schema, people.to_batches(max_chunksize=100))
    keys(km, in_file=True).write_dataset(batches, tmp_path / "people")
    written = keys(km).dataset(tmp_path / "people")
    assert written.to_table().equals(people)
    some = written.scanner(columns=["id", "email"])
    keys(km, in_file=True, columns={"pii": "email"}).write_dataset(some, tmp_path / "some")
    assert keys(km).dataset(tmp_path / "some").to_table().equals(people.select(["id", "email"]))


def test_an_altered_file_does_not_open(km: blocking.KeyManager, people: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    keys(km).write_table(people, path)
    content = bytearray(path.read_bytes())
    for at in range(20, len(content) - 8, len(content) // 40):
        altered = tmp_path / "altered.parquet"
        flipped = bytearray(content)
        flipped[at] ^= 1
        altered.write_bytes(flipped)
        shutil.copy(
            tmp_path / "_KEY_MATERIAL_FOR_people.parquet.json", tmp_path / "_KEY_MATERIAL_FOR_altered.parquet.json"
        )
        try:
            read = keys(km).read_table(altered)
        except (OSError, KMSError, pa.ArrowException):
            continue
        # What is plain is not authenticated by itself.
        assert read.drop_columns("id").equals(people.drop_columns("id")), at


def test_a_manager_that_cannot_block_is_refused() -> None:
    async_manager = KeyManager.open("local:", store="memory://")
    kinds: tuple[Any, ...] = (ParquetKeys, KmsClient)
    for kind in kinds:
        with pytest.raises(InvalidInputError, match=r"keystead\.blocking\.KeyManager"):
            kind(async_manager)
