"""What an attacker without a key does to a file of format 1, in three columns: naively; with sequence numbers and chain
repaired, which takes no key; and with the manifest made to fit as well. All that format 1 can show is found."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import InvalidInputError
from keystead.integrations.fapilog import (
    FileKeyStore,
    Verifier,
    VerifyReport,
    b64url_encode,
    canonicalize,
    verify_chain_across_files,
    write_manifest,
)
from tests.integrations.fapilog.v1_logs import (
    KEY,
    KEY_ID,
    OneKey,
    Record,
    adjust_manifest,
    check,
    edit_manifest,
    kinds,
    manifest_of,
    read,
    recorded,
    repair,
    sealed,
    write,
)

FOREIGN = sealed(1, key=bytes(32))[0]
CHANGES: dict[str, Callable[[list[Record]], list[Record]]] = {
    "modify": lambda found: [found[0], {**found[1], "message": "other"}, *found[2:]],
    "delete in the middle": lambda found: [found[0], *found[2:]],
    "insert": lambda found: [found[0], FOREIGN, *found[1:]],
    "duplicate": lambda found: [found[0], found[1], found[1], *found[2:]],
    "reorder": lambda found: [found[1], found[0], *found[2:]],
    "cut the head": lambda found: found[1:],
    "cut the tail": lambda found: found[:-1],
    "cut all": lambda found: [],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.jsonl"
    write(path, sealed(6))
    write_manifest(path, sealed(6), KEY, KEY_ID)
    assert check(path).valid
    return path


def check_kept(path: Path, kept: str, **options: Any) -> VerifyReport:
    return asyncio.run(Verifier(OneKey(), **options).verify_file(path, reaches=kept))


def root_of(path: Path) -> str:
    return str(json.loads(manifest_of(path).read_text())["root_chain_hash"])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_naive_change_is_found(path: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    write(path, change(read(path)))
    assert not check(path).valid


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_found_with_the_chain_repaired(
    path: Path, change: Callable[[list[Record]], list[Record]]
) -> None:
    write(path, repair(change(read(path))))
    report = check(path)
    assert not report.valid
    assert kinds(report) <= {"mac_mismatch", "manifest_mismatch", "empty_file"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_found_with_chain_and_manifest_repaired(
    path: Path, change: Callable[[list[Record]], list[Record]]
) -> None:
    write(path, repair(change(read(path))))
    adjust_manifest(path)
    report = check(path)
    assert not report.valid
    # Changing a record and nothing else leaves the manifest as it was.
    found = {"mac_mismatch"} if read(path)[1:2] and read(path)[1]["message"] == "other" else {"manifest_signature"}
    assert found <= kinds(report)
    assert report.manifest_valid is (found == {"mac_mismatch"})


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_found_with_the_manifest_taken_away(
    path: Path, change: Callable[[list[Record]], list[Record]]
) -> None:
    write(path, repair(change(read(path))))
    manifest_of(path).unlink()
    assert "missing_manifest" in kinds(check(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("signature"),
        lambda manifest: manifest.update(signature=None),
        lambda manifest: manifest.update(signature=""),
        lambda manifest: manifest.update(first_ts="2020-01-01T00:00:00Z"),
        lambda manifest: manifest.update(file="other.jsonl"),
        lambda manifest: manifest.update(first_seq=7),
        lambda manifest: manifest.update(last_seq=7),
        lambda manifest: manifest.update(closed_ts="2020-01-01T00:00:00Z"),
        lambda manifest: manifest.update(key_id="other"),
        lambda manifest: manifest.update(signature_algo="none"),
        lambda manifest: manifest.update(version="2.0"),
        lambda manifest: manifest.update(record_count=True),
        lambda manifest: manifest.update(root_chain_hash="AA"),
        lambda manifest: manifest.update(file="\ud800"),
        lambda manifest: manifest.clear(),
    ],
)
def test_every_edit_of_the_manifest_is_found(path: Path, change: Callable[[Record], object]) -> None:
    edit_manifest(path, change)
    report = check(path)
    assert not report.valid
    assert report.manifest_signature_valid is False or "missing_key" in kinds(report)


@pytest.mark.parametrize(
    "content",
    ["{", "", "[]", "null", "\ud800", '{"a":1,"a":2}', "9" * 5000, "[" * 100_000, " " * (1 << 20) + "{}"],
    ids=range(9),
)
def test_a_manifest_that_is_none_is_found(path: Path, content: str) -> None:
    manifest_of(path).write_bytes(content.encode("utf-8", "surrogatepass"))
    assert kinds(check(path)) == {"manifest_mismatch"}


def test_garbage_in_the_hashes_of_the_chain_is_found(path: Path) -> None:
    found = read(path)
    for record, following in pairwise(found):
        record["integrity"]["chain_hash"] = following["integrity"]["prev_chain_hash"] = "B" * 42 + "A"
    found[-1]["integrity"]["chain_hash"] = "C" * 42 + "A"
    write(path, found)
    report = check(path, require_manifest=False)
    assert len(report.chain_breaks) >= 6
    assert not report.chain_valid


def test_a_name_that_stands_twice_is_found(path: Path) -> None:
    lines = path.read_text().splitlines()
    doubled = lines[2].replace('"message": "event 3"', '"message": "forged", "message": "event 3"')
    write(path, [*lines[:2], doubled, *lines[3:]])
    (error, *_) = check(path).errors
    assert (error.error_type, error.line) == ("malformed", 3)
    assert "stands twice" in error.message


def test_a_middle_file_that_is_missing_is_found_with_its_neighbours_manifest_edited(tmp_path: Path) -> None:
    found = sealed(6)
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    before: Path | None = None
    for number, path in enumerate(paths):
        part = found[2 * number : 2 * number + 2]
        write(path, part)
        before = write_manifest(path, part, KEY, KEY_ID, continues_from=before)
    assert asyncio.run(verify_chain_across_files(paths, OneKey())).valid
    left = [paths[0], paths[2]]
    assert not asyncio.run(verify_chain_across_files(left, OneKey())).valid
    root = json.loads(manifest_of(paths[0]).read_text())["root_chain_hash"]
    edit_manifest(paths[2], lambda manifest: manifest.update(continues_from=root))
    report = asyncio.run(verify_chain_across_files(left, OneKey()))
    assert {"chain_break", "seq_gap", "manifest_signature"} <= kinds(report)
    assert report.manifest_signature_valid is False
    assert not asyncio.run(verify_chain_across_files(paths[1:], OneKey())).valid


def test_a_key_id_that_leads_to_an_attackers_file_leads_nowhere(path: Path, tmp_path: Path) -> None:
    keys, evil = tmp_path / "keys", tmp_path / "evil.key"
    keys.mkdir()
    (keys / f"{KEY_ID}.key").write_bytes(KEY)
    evil.write_bytes(bytes(32))
    assert check(path, FileKeyStore(keys)).valid
    for key_id in ("../evil", str(tmp_path / "evil"), "..\\evil", ".hidden", "", "a" * 5000, "nul\x00"):
        found = sealed(1, key=bytes(32))
        found[0]["integrity"]["key_id"] = key_id
        write(path, found)
        assert "missing_key" in kinds(check(path, FileKeyStore(keys), require_manifest=False))


def test_a_public_key_is_no_secret_to_make_macs_with(path: Path) -> None:
    public = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()
    forged = sealed(2, key=public)
    write(path, forged)
    write_manifest(path, forged, public, KEY_ID)
    report = check(path, OneKey(public), algorithm="Ed25519")
    assert (report.valid, report.records_valid) == (False, 0)
    assert kinds(report) == {"mac_mismatch", "manifest_signature"}


@pytest.mark.parametrize(
    "change",
    [
        lambda integrity: integrity.update(mac=""),
        lambda integrity: integrity.update(mac="A"),
        lambda integrity: integrity.update(mac=5),
        lambda integrity: integrity.update(seq="1"),
        lambda integrity: integrity.update(seq=True),
        lambda integrity: integrity.update(seq=10**30),
        lambda integrity: integrity.update(chain_hash="AA"),
        lambda integrity: integrity.update(algo="none"),
        lambda integrity: integrity.update(key_id=None),
        lambda integrity: integrity.pop("prev_chain_hash"),
        lambda integrity: integrity.clear(),
    ],
)
def test_integrity_fields_that_cannot_be_are_findings(path: Path, change: Callable[[Record], Any]) -> None:
    found = read(path)
    change(found[2]["integrity"])
    write(path, found)
    report = check(path)
    assert not report.valid
    assert report.errors[0].line in {0, 3}


def test_the_wrong_key_verifies_nothing(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    report = check(path, OneKey(bytes(32)))
    assert (report.valid, report.records_valid, report.manifest_signature_valid) == (False, 0, False)
    assert kinds(check(path, OneKey(KEY, "other"))) == {"missing_key"}


def test_an_earlier_pair_is_found_by_a_hash_that_was_kept(path: Path) -> None:
    kept = root_of(path)
    assert check_kept(path, kept).valid
    earlier = sealed(3)
    write(path, earlier)
    write_manifest(path, earlier, KEY, KEY_ID)
    assert check(path).valid
    report = check_kept(path, kept)
    assert kinds(report) == {"chain_break"}
    assert "was cut off, changed, or put back" in report.errors[0].message
    with pytest.raises(InvalidInputError):
        check_kept(path, "no hash")


def test_a_hash_that_was_kept_vouches_for_all_before_it_without_a_manifest(path: Path) -> None:
    kept = root_of(path)
    manifest_of(path).unlink()
    write(path, [*read(path), *sealed(8)[6:]])
    assert check_kept(path, kept, require_manifest=False).valid
    write(path, repair([*read(path)[:2], *read(path)[3:]]))
    assert check(path, require_manifest=False).valid
    assert not check_kept(path, kept, require_manifest=False).valid


def test_the_last_file_of_a_sequence_that_was_dropped_is_found_by_a_hash_that_was_kept(tmp_path: Path) -> None:
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    before: Path | None = None
    for number, path in enumerate(paths):
        part = sealed(4)[2 * number : 2 * number + 2]
        write(path, part)
        before = write_manifest(path, part, KEY, KEY_ID, continues_from=before)
    kept = root_of(paths[1])
    assert asyncio.run(verify_chain_across_files(paths, OneKey(), reaches=kept)).valid
    assert asyncio.run(verify_chain_across_files(paths[:1], OneKey())).valid
    assert not asyncio.run(verify_chain_across_files(paths[:1], OneKey(), reaches=kept)).valid


def test_a_manifest_in_the_place_of_a_record_is_found(path: Path) -> None:
    manifest = json.loads(manifest_of(path).read_text())
    found = read(path)
    mac = manifest.pop("signature")
    inserted = {**manifest, "integrity": {**found[0]["integrity"], "mac": mac}}
    assert canonicalize(inserted) == json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    write(path, [*found, inserted])
    report = check(path, require_manifest=False)
    assert (report.errors[0].error_type, report.records_valid) == ("malformed", 6)


def test_a_record_in_the_place_of_a_manifest_is_found(path: Path) -> None:
    manifest = json.loads(manifest_of(path).read_text())
    record = {**manifest, "message": "logged by an attacker", "timestamp": "2026-01-02T03:04:05Z"}
    record.pop("signature")
    record["signature"] = b64url_encode(hmac.digest(KEY, canonicalize(record), "sha256"))
    manifest_of(path).write_text(json.dumps(record))
    report = check(path)
    assert kinds(report) == {"manifest_mismatch"}
    assert "with the member 'message'" in report.errors[0].message


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_manifest_that_is_no_file_is_found_and_holds_nobody_up(path: Path, make: Callable[[Path], None]) -> None:
    manifest_of(path).unlink()
    make(manifest_of(path))
    assert kinds(check(path)) == {"manifest_mismatch"}


def test_what_this_format_cannot_show_is_said_in_every_report(path: Path) -> None:
    earlier = sealed(3)
    write(path, earlier)
    write_manifest(path, earlier, KEY, KEY_ID)
    report = check(path)
    assert report.valid
    assert any("can be put back to an earlier pair" in warning for warning in report.warnings)
