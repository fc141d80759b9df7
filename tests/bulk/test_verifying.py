"""What a verification of a dataset finds, and what a manifest is good for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import KeyRules
from keystead.bulk.manifest import Manifest
from keystead.errors import DecryptionError, KMSError
from keystead.parquet import ParquetKeys
from tests.bulk.conftest import FILES, RULES, content_of, rows_of, table

FIRST = "country=FR/part-0.parquet"
SECOND = "country=FR/part-2.parquet"


def flip(path: Path, at: int) -> None:
    """Alter one bit of a file, and leave its time as it was."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("part", range(20))
def test_one_bit_anywhere_in_a_file_fails_it(km: KeyManager, encrypted: Path, part: int) -> None:
    size = (encrypted / FIRST).stat().st_size
    flip(encrypted / FIRST, part * (size - 1) // 19)
    report = bulk.verify(km, encrypted, RULES)
    assert [(each.name, each.code) for each in report.failures] == [(FIRST, DecryptionError.code)]
    assert report.done == FILES - 1


@pytest.mark.parametrize("part", range(10))
def test_without_a_manifest_what_is_encrypted_fails_by_itself(
    km: KeyManager, plain: Path, tmp_path: Path, part: int
) -> None:
    """The magic bytes at the beginning are what nobody reads."""
    ParquetKeys(km, in_file=True).write_dataset(pq.read_table(plain / FIRST, partitioning=None), tmp_path / "loose")
    (path,) = (tmp_path / "loose").glob("*.parquet")
    assert bulk.verify(km, tmp_path / "loose").is_complete
    flip(path, 4 + part * (path.stat().st_size - 5) // 9)
    assert not bulk.verify(km, tmp_path / "loose").is_complete


def swap(dataset: Path) -> None:
    first, second = (dataset / FIRST).read_bytes(), (dataset / SECOND).read_bytes()
    (dataset / FIRST).write_bytes(second)
    (dataset / SECOND).write_bytes(first)


def plant(dataset: Path) -> None:
    pq.write_table(table(0), dataset / FIRST)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (swap, [FIRST, SECOND]),
        (plant, [FIRST]),
        (lambda dataset: (dataset / FIRST).unlink(), [FIRST]),
        (lambda dataset: shutil.copy(dataset / FIRST, dataset / "more.parquet"), ["more.parquet"]),
    ],
    ids=["exchanged", "planted", "missing", "added"],
)
def test_a_file_that_is_not_the_one_that_was_written_fails(
    km: KeyManager, encrypted: Path, change: Callable[[Path], object], failed: list[str]
) -> None:
    change(encrypted)
    report = bulk.verify(km, encrypted, RULES)
    assert [each.name for each in report.failures] == failed
    assert {each.code for each in report.failures} == {DecryptionError.code}


def test_an_older_file_that_was_put_back_fails_and_is_not_made_new(km: KeyManager, encrypted: Path) -> None:
    older = (encrypted / FIRST).read_bytes()
    assert bulk.reencrypt(km, encrypted).is_complete
    (encrypted / FIRST).write_bytes(older)
    assert [each.name for each in bulk.verify(km, encrypted).failures] == [FIRST]
    km.keyring("pii").rotate(promote="now")
    for run in (bulk.reencrypt, bulk.rotate_master_keys):
        assert [each.name for each in run(km, encrypted).failures] == [FIRST]
    assert (encrypted / FIRST).read_bytes() == older


def test_a_file_that_was_altered_within_its_time_is_not_made_new(km: KeyManager, encrypted: Path) -> None:
    """Its size and time are those of the manifest: its digest is compared before it is read."""
    whole = (encrypted / FIRST).stat()
    shutil.copy(encrypted / SECOND, encrypted / FIRST)
    with (encrypted / FIRST).open("ab") as file:
        file.truncate(whole.st_size)
    os.utime(encrypted / FIRST, ns=(whole.st_atime_ns, whole.st_mtime_ns))
    report = bulk.reencrypt(km, encrypted)
    assert [(each.name, each.code) for each in report.failures] == [(FIRST, DecryptionError.code)]


def test_plain_files_are_no_encrypted_dataset(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    assert len(bulk.verify(km, plain).failures) == FILES
    assert len(bulk.reencrypt(km, plain, tmp_path / "other", RULES).failures) == FILES


def test_a_signed_footer_is_told_from_one_that_only_has_something_behind_it(
    km: KeyManager, plain: Path, tmp_path: Path
) -> None:
    """Somebody makes a plain file look as long as a signed one."""
    path = plain / FIRST
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:-8] + bytes(28) + (length + 28).to_bytes(4, "little") + b"PAR1")
    assert pq.read_table(path, partitioning=None).num_rows
    assert FIRST in [each.name for each in bulk.verify(km, plain).failures]


@pytest.mark.parametrize("change", ["rows", "sha256", "rules", "torn", "gone"])
def test_a_manifest_that_somebody_else_wrote_is_not_believed(km: KeyManager, encrypted: Path, change: str) -> None:
    path = encrypted / "_keystead" / "manifest.json"
    body, seal = path.read_bytes().split(b"\t")
    told = json.loads(body)
    if change == "rules":
        told["rules"]["footer"] = "pii"
    elif change in told["files"][0]:
        told["files"][0][change] = 7
    path.write_bytes(json.dumps(told).encode() + b"\t" + seal)
    if change == "torn":
        path.write_bytes(body)
    if change == "gone":
        path.unlink()
    with pytest.raises(DecryptionError):
        bulk.verify(km, encrypted, RULES)
    if change != "gone":
        with pytest.raises(DecryptionError):
            bulk.reencrypt(km, encrypted)


def test_a_manifest_of_another_dataset_is_not_believed(
    km: KeyManager, plain: Path, encrypted: Path, tmp_path: Path
) -> None:
    bulk.encrypt(km, plain, tmp_path / "other", RULES)
    shutil.copy(tmp_path / "other" / "_keystead" / "manifest.json", encrypted / "_keystead")
    with pytest.raises(DecryptionError):
        bulk.verify(km, encrypted)


def test_notes_that_nobody_sealed_are_passed_by(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    """Somebody notes a file of theirs as done, so that the run would leave it and the manifest name it."""
    target = tmp_path / "encrypted"
    seen: list[Path] = []

    def stop(progress: bulk.BulkProgress) -> None:
        if progress.files_done == 2:
            seen.extend(target.glob("country*/*.parquet"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk.encrypt(km, plain, target, RULES, on_progress=stop)
    (notes,) = (target / "_keystead").glob("notes-*")
    first, second = notes.read_bytes().splitlines(keepends=True)
    forged = json.loads(second.split(b"\t")[0])
    shutil.copyfile(seen[0], seen[1])
    forged |= {"sha256": Manifest(target, km, RULES).find(seen[0].relative_to(target).as_posix())[0].sha256}
    forged |= {"size": seen[1].stat().st_size, "mtime_ns": seen[1].stat().st_mtime_ns}
    line = json.dumps(forged, separators=(",", ":"), sort_keys=True).encode()
    notes.write_bytes(first + second + line + b"\t" + second.split(b"\t")[1] + b"half a line")
    assert bulk.encrypt(km, plain, target, RULES).unchanged == 1
    assert bulk.verify(km, target, RULES).is_complete
    assert rows_of(km, target).num_rows == FILES * 500


def test_a_copy_of_a_dataset_is_verified_by_its_content(km: KeyManager, encrypted: Path, tmp_path: Path) -> None:
    shutil.copytree(encrypted, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").rglob("*.parquet"):
        os.utime(path, ns=(1, 1))
    assert bulk.verify(km, tmp_path / "copy", RULES).done == FILES


def test_a_verification_writes_nothing(km: KeyManager, encrypted: Path, plain: Path) -> None:
    for folder in (encrypted, plain):
        before = content_of(folder)
        bulk.verify(km, folder)
        assert content_of(folder) == before


def test_another_store_verifies_nothing(encrypted: Path, tmp_path: Path) -> None:
    kek, store = tmp_path / "work" / "keystead.kek", tmp_path / "other.db"
    with KeyManager.open(f"file:{kek}", store=f"sqlite:///{store}", background=False) as other:
        with pytest.raises(KMSError):
            bulk.verify(other, encrypted, RULES)
        shutil.rmtree(encrypted / "_keystead")
        assert len(bulk.verify(other, encrypted).failures) == FILES


def test_a_key_of_the_kms_itself_may_stand_for_a_keyring(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    rules = KeyRules(footer="kms:", columns={"pii": "email"})
    assert bulk.encrypt(km, plain, tmp_path / "encrypted", rules).is_complete
    assert bulk.verify(km, tmp_path / "encrypted", rules).done == FILES
    assert ParquetKeys(km).dataset(tmp_path / "encrypted").count_rows() == FILES * 500
