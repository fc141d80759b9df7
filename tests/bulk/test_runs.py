"""Runs over a dataset: what they refuse, what they leave, and what they do again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.blocking.leases import alone
from keystead.bulk import KeyRules, Operation, job, worker
from keystead.bulk.datasets import Staging
from keystead.bulk.rewriting import GROUP_ROWS, is_encrypted, write_anew
from keystead.errors import ConfigurationError, ConflictError, InvalidInputError, StoreFullError
from keystead.manager import admin
from keystead.parquet import ParquetKeys
from keystead.runtime.loop import background_loop
from tests.bulk.conftest import FILES, ROWS, RULES, content_of, plain_dataset, plain_rows_of, rows_of, table

SYNCS = 4 + 3 * FILES + 3
"""What a run syncs before it begins, for each file, and for its manifest."""
FIRST = "country=FR/part-0.parquet"


def test_files_keep_their_schema_row_groups_codecs_and_order(km: KeyManager, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    given = table(0).append_column("kind", pa.array(["x", "y"] * (ROWS // 2)).dictionary_encode())
    given = given.replace_schema_metadata({"made by": "a test"})
    sorting = [pq.SortingColumn(0)]
    codecs = {"id": "ZSTD", "email": "GZIP", "amount": "NONE", "tags.list.element": "SNAPPY", "kind": "ZSTD"}
    path = tmp_path / "plain" / "a.parquet"
    pq.write_table(given, path, row_group_size=150, compression=codecs, sorting_columns=sorting, write_page_index=True)
    bulk.encrypt(km, path.parent, tmp_path / "encrypted", RULES)
    with pq.ParquetFile(path) as old, ParquetKeys(km).open(tmp_path / "encrypted" / "a.parquet") as new:
        assert new.read().equals(given)
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        assert [group_of(new, each) for each in range(4)] == [group_of(old, each) for each in range(4)]
        assert new.metadata.row_group(0).column(0).has_offset_index


def group_of(file: pq.ParquetFile, number: int) -> tuple[object, ...]:
    group = file.metadata.row_group(number)
    return group.num_rows, group.sorting_columns, [group.column(each).compression for each in range(group.num_columns)]


def test_a_row_group_too_large_for_memory_is_written_in_parts(
    km: KeyManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plain_dataset(tmp_path / "plain", 1, 10_000)
    pq.write_table(table(0, 10_000), plain / FIRST)
    with pq.ParquetFile(plain / FIRST) as file:
        size = file.metadata.row_group(0).total_byte_size
    monkeypatch.setattr("keystead.bulk.rewriting.GROUP_BYTES", size // 4)
    bulk.encrypt(km, plain, tmp_path / "encrypted", RULES)
    with ParquetKeys(km).open(tmp_path / "encrypted" / FIRST) as file:
        assert file.num_row_groups in (4, 5)
        assert file.read().equals(table(0, 10_000))
    assert GROUP_ROWS == 1024 * 1024


def test_empty_files_are_files(km: KeyManager, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    pq.write_table(table(0).slice(0, 0), tmp_path / "plain" / "a.parquet")
    with pq.ParquetWriter(tmp_path / "plain" / "b.parquet", table(0).schema):
        pass
    assert bulk.encrypt(km, tmp_path / "plain", tmp_path / "encrypted", RULES).done == 2
    assert bulk.reencrypt(km, tmp_path / "encrypted").done == 2
    assert bulk.verify(km, tmp_path / "encrypted").done == 2
    assert rows_of(km, tmp_path / "encrypted").num_rows == 0


def test_files_that_were_changed_or_added_are_done_and_none_is_removed(
    km: KeyManager, plain: Path, encrypted: Path
) -> None:
    before = content_of(encrypted)
    pq.write_table(table(100), plain / FIRST)
    pq.write_table(table(101), plain / "more.parquet")
    (plain / "country=DE" / "part-1.parquet").unlink()
    report = bulk.encrypt(km, plain, encrypted, RULES)
    assert (report.done, report.unchanged) == (2, FILES - 2)
    after = content_of(encrypted)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {FIRST, "more.parquet", "_keystead/manifest.json"}
    assert ParquetKeys(km).read_table(encrypted / FIRST).equals(table(100))
    assert bulk.verify(km, encrypted, RULES).done == FILES + 1


def test_rules_that_do_not_fit_leave_nothing(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    report = bulk.encrypt(km, plain, tmp_path / "encrypted", KeyRules(columns={"pii": "e-mail"}))
    assert {each.code for each in report.failures} == {ConfigurationError.code}
    assert report.done == 0
    assert not list((tmp_path / "encrypted").rglob("*.parquet"))


def test_what_cannot_be_a_source_or_target_is_refused_before_anything_is_written(
    km: KeyManager, plain: Path, encrypted: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    pq.write_table(table(0), tmp_path / "full" / "a.parquet")
    cases = [
        (plain, plain, "lie in each other"),
        (plain, plain / "deeper", "lie in each other"),
        (plain / "country=DE", plain, "lie in each other"),
        (tmp_path / "absent", tmp_path / "new", "is no folder"),
        (tmp_path / "empty", tmp_path / "new", "no Parquet file"),
        (plain, tmp_path / "full", "that no run has written"),
    ]
    before = content_of(tmp_path)
    for source, target, told in cases:
        with pytest.raises(InvalidInputError, match=told):
            bulk.encrypt(km, source, target, RULES)
    with pytest.raises(InvalidInputError, match="other rules"):
        bulk.encrypt(km, plain, encrypted, KeyRules(columns={"pii": ["email", "amount"]}))
    shutil.copy(tmp_path / "full" / "a.parquet", encrypted / "stray.parquet")
    with pytest.raises(InvalidInputError, match="written by no run"):
        bulk.encrypt(km, plain, encrypted, RULES)
    (encrypted / "stray.parquet").unlink()
    assert {
        name: each for name, each in content_of(tmp_path).items() if "keys.db" not in name and "_keystead" not in name
    } == {name: each for name, each in before.items() if "keys.db" not in name and "_keystead" not in name}


@pytest.mark.parametrize("name", ["notes.txt", "data.pq", "country=DE/more.csv"])
def test_what_would_be_left_out_is_refused(km: KeyManager, plain: Path, tmp_path: Path, name: str) -> None:
    (plain / name).write_text("x")
    with pytest.raises(InvalidInputError, match="would be left out"):
        bulk.encrypt(km, plain, tmp_path / "encrypted", RULES)
    (plain / name).rename(plain / "_SUCCESS")
    assert bulk.encrypt(km, plain, tmp_path / "encrypted", RULES).is_complete


def test_a_link_to_a_folder_is_refused(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    (plain / "more").symlink_to(plain_dataset(tmp_path / "elsewhere", 1))
    with pytest.raises(InvalidInputError, match="link to a folder"):
        bulk.encrypt(km, plain, tmp_path / "encrypted", RULES)


def test_a_file_is_encrypted_once(km: KeyManager, plain: Path, encrypted: Path, tmp_path: Path) -> None:
    report = bulk.encrypt(km, encrypted, tmp_path / "twice", RULES)
    assert {each.reason.partition(";")[0] for each in report.failures} == {"the file is encrypted already"}
    signed = KeyRules(columns={"pii": "email"}, plain="id", plaintext_footer=True)
    assert bulk.encrypt(km, plain, tmp_path / "signed", signed).is_complete
    assert is_encrypted(tmp_path / "signed" / FIRST)
    assert not is_encrypted(plain / FIRST)
    assert len(bulk.encrypt(km, tmp_path / "signed", tmp_path / "twice-signed", RULES).failures) == FILES
    assert bulk.verify(km, tmp_path / "signed", signed).is_complete


def test_a_file_whose_writing_goes_on_is_not_taken(
    km: KeyManager, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = count()

    def grow(*args: object) -> object:
        os.utime(plain / FIRST, ns=(1, next(times)))
        return write_anew(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "write_anew", grow)
    report = bulk.encrypt(km, plain, tmp_path / "encrypted", RULES)
    assert [each.name for each in report.failures] == [FIRST]
    assert "changed while it was read" in report.failures[0].reason


def test_two_runs_on_one_dataset_are_never_at_work_at_once(km: KeyManager, plain: Path, encrypted: Path) -> None:
    name = (encrypted / "_keystead" / "dataset").read_text().strip()
    with alone(km, f"bulk:{name}", threading.Event()):
        with pytest.raises(ConflictError, match="another process is at work"):
            bulk.encrypt(km, plain, encrypted, RULES)
        with pytest.raises(ConflictError, match="another process is at work"):
            bulk.reencrypt(km, encrypted)
        with pytest.raises(ConflictError, match="another process is at work"):
            bulk.rotate_master_keys(km, encrypted)
    assert bulk.reencrypt(km, encrypted).is_complete


def test_a_run_that_was_overtaken_commits_nothing_more(km: KeyManager, encrypted: Path) -> None:
    """The later run has its folder; what the earlier one, back from a pause, still does changes no file."""
    state: dict[str, object] = {}

    def overtake(progress: bulk.BulkProgress) -> None:
        if progress.files_done == 2:
            Staging(encrypted, 1000)
            state.update(content_of(encrypted))

    with pytest.raises(ConflictError, match="taken over"):
        bulk.reencrypt(km, encrypted, on_progress=overtake)
    after = content_of(encrypted)
    assert {name for name in after if after[name] != state.get(name)} <= {
        name for name in after if name.startswith("_keystead/notes-")
    }
    assert bulk.reencrypt(km, encrypted).unchanged == 2
    assert bulk.verify(km, encrypted, RULES).done == FILES


def test_a_lease_that_is_lost_stops_the_run(km: KeyManager, encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[threading.Event] = []

    def listen(km: KeyManager, name: str, lost: threading.Event) -> object:
        stops.append(lost)
        return alone(km, name, lost)

    monkeypatch.setattr(job, "alone", listen)
    with pytest.raises(ConflictError, match="was lost"):
        bulk.reencrypt(km, encrypted, on_progress=lambda told: stops[-1].set() if told.files_done == 2 else None)
    assert bulk.reencrypt(km, encrypted).unchanged == 2


@pytest.mark.parametrize("at", range(1, SYNCS + 1))
def test_a_dataset_is_whole_and_readable_wherever_a_reencryption_in_its_place_ends(
    km: KeyManager, encrypted: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends at each sync of a commit, without anything that a process still does when it is not killed."""
    before, commits = rows_of(km, encrypted), 0
    fsync = os.fsync

    def die(descriptor: int) -> None:
        nonlocal commits
        fsync(descriptor)
        if "_keystead" in os.readlink(f"/proc/self/fd/{descriptor}") or os.path.isdir(f"/proc/self/fd/{descriptor}"):
            commits += 1
            if commits == at:
                raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        patch.setattr(Staging, "close", lambda self: None)
        with contextlib.suppress(SystemExit):
            bulk.reencrypt(km, encrypted)
    assert commits == at
    assert rows_of(km, encrypted).equals(before)
    done = bulk.reencrypt(km, encrypted)
    assert done.failures == []
    assert bulk.verify(km, encrypted, RULES).done == FILES
    assert rows_of(km, encrypted).equals(before)
    assert sorted(path.name for path in (encrypted / "_keystead").iterdir()) == ["dataset", "manifest.json"]


@pytest.mark.parametrize("where", ["file", "notes", "manifest"])
def test_a_full_disk_loses_nothing(
    km: KeyManager, plain: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, written = tmp_path / "encrypted", 0
    fsync = os.fsync
    part = {"file": ".parquet", "notes": "notes-", "manifest": "manifest.json"}[where]

    def full(descriptor: int) -> None:
        nonlocal written
        if part in os.readlink(f"/proc/self/fd/{descriptor}"):
            written += 1
            if written > (0 if where == "manifest" else 2):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreFullError, match="no more room"):
            bulk.encrypt(km, plain, target, RULES)
    assert not list(target.rglob("run-*"))
    kept = FILES if where == "manifest" else 2
    assert bulk.encrypt(km, plain, target, RULES).unchanged == kept
    assert rows_of(km, target).equals(plain_rows_of(plain))


def test_a_reencryption_draws_new_data_keys_and_can_go_elsewhere_by_other_rules(
    km: KeyManager, plain: Path, encrypted: Path, tmp_path: Path
) -> None:
    before = content_of(encrypted)
    other = KeyRules(footer="elsewhere", columns={"money": "amount"}, plain="id", in_file=False)
    report = bulk.reencrypt(km, encrypted, tmp_path / "other", other)
    assert (report.operation, report.done) == (Operation.REENCRYPT, FILES)
    assert content_of(encrypted) == before
    assert ParquetKeys(km).read_table(tmp_path / "other" / FIRST).equals(table(0))
    assert bulk.reencrypt(km, encrypted, tmp_path / "other", other).unchanged == FILES
    assert bulk.reencrypt(km, encrypted, tmp_path / "other", other, again=True).done == FILES
    assert bulk.verify(km, tmp_path / "other", other).is_complete
    assert bulk.reencrypt(km, encrypted).done == FILES
    after = content_of(encrypted)
    assert all(after[name][1] != before[name][1] for name in before if name.endswith(".parquet"))
    assert bulk.reencrypt(km, encrypted, rules=KeyRules(columns={"pii": "email"})).done == FILES
    assert rows_of(km, encrypted).equals(plain_rows_of(plain))
    with pytest.raises(InvalidInputError, match="in_file"):
        bulk.reencrypt(km, encrypted, rules=other)


def test_keys_beside_files_are_rotated_without_touching_the_data(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    rules = KeyRules(columns={"pii": "email"}, in_file=False)
    target = tmp_path / "encrypted"
    bulk.encrypt(km, plain, target, rules)
    assert bulk.rotate_master_keys(km, target, rewrap_only=True).unchanged == FILES
    before = content_of(target)
    old = {name: km.keyring(name).ring.snapshot.active for name in rules.keyrings}
    for name in rules.keyrings:
        km.keyring(name).rotate(promote="now")
    report = bulk.rotate_master_keys(km, target, rewrap_only=True)
    assert (report.done, report.bytes_written) == (FILES, 0)
    after = content_of(target)
    assert {name for name in after if after[name] != before[name]} == {
        *(name for name in after if "_KEY_MATERIAL" in name),
        "_keystead/manifest.json",
    }
    for path in target.rglob("_KEY_MATERIAL*"):
        for each in map(json.loads, json.loads(path.read_text()).values()):
            ring = km.keyring(each["masterKeyID"])
            assert ring.data_key_id(each["wrappedKEK"]) not in old.values()
    assert bulk.verify(km, target, rules).is_complete
    assert bulk.rotate_master_keys(km, target).unchanged == FILES
    first = next(target.rglob("_KEY_MATERIAL*"))
    first.write_bytes(before[str(first.relative_to(target))][1])
    assert not bulk.verify(km, target, rules).is_complete


def test_rotating_keys_beside_files_without_a_manifest_makes_none(km: KeyManager, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for number in range(2):
        ParquetKeys(km).write_table(table(number), loose / f"{number}.parquet")
    km.keyring("parquet").rotate(promote="now")
    assert bulk.rotate_master_keys(km, loose).done == 2
    assert [path.name for path in (loose / "_keystead").iterdir()] == ["dataset"]
    ParquetKeys(km, in_file=True).write_table(table(2), loose / "2.parquet")
    with pytest.raises(InvalidInputError, match="no manifest"):
        bulk.rotate_master_keys(km, loose)
    assert bulk.rotate_master_keys(km, loose, KeyRules()).done == 3
    assert not list(loose.glob("_KEY_MATERIAL*"))
    assert bulk.rotate_master_keys(km, loose).unchanged == 3
    assert rows_of(km, loose).num_rows == 3 * ROWS


def test_files_that_were_left_the_first_time_are_no_strangers_the_second(km: KeyManager, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for number in range(2):
        ParquetKeys(km, in_file=True).write_table(table(number), loose / f"{number}.parquet")
    whole = (loose / "1.parquet").read_bytes()
    (loose / "1.parquet").write_bytes(whole[: len(whole) // 2])
    assert [each.name for each in bulk.reencrypt(km, loose, rules=KeyRules()).failures] == ["1.parquet"]
    (loose / "1.parquet").write_bytes(whole)
    again = bulk.reencrypt(km, loose, rules=KeyRules())
    assert (again.done, again.unchanged, again.failures) == (1, 1, [])
    assert bulk.verify(km, loose, KeyRules()).done == 2


def test_rotating_keys_in_files_says_what_it_costs(km: KeyManager, encrypted: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="written anew"):
        bulk.rotate_master_keys(km, encrypted, rewrap_only=True)
    loose = tmp_path / "loose"
    ParquetKeys(km, in_file=True).write_dataset(table(0), loose)
    with pytest.raises(InvalidInputError, match="no manifest"):
        bulk.rotate_master_keys(km, loose)
    with pytest.raises(InvalidInputError, match="no manifest"):
        bulk.reencrypt(km, loose)
    assert bulk.verify(km, loose).dataset == ""
    assert bulk.rotate_master_keys(km, loose, KeyRules()).done == 1
    assert bulk.rotate_master_keys(km, loose).unchanged == 1
    assert bulk.verify(km, loose, KeyRules()).is_complete


def test_versions_that_nothing_is_under_any_more_are_not_needed(km: KeyManager, plain: Path, encrypted: Path) -> None:
    old = [km.keyring(name).versions()[0].id for name in RULES.keyrings]
    for name in RULES.keyrings:
        km.keyring(name).rotate(promote="now")
    bulk.rotate_master_keys(km, encrypted)
    for key_id in old:
        background_loop.run(admin.disable_key(km._manager, key_id))
    assert rows_of(km, encrypted).equals(plain_rows_of(plain))
    assert bulk.verify(km, encrypted, RULES).is_complete
