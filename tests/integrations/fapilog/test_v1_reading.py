"""Files that fapilog-tamper wrote verify here, and what is written here is what it writes."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import ConfigurationError, CouldNotVerifyError, InvalidInputError
from keystead.integrations.fapilog import (
    GENESIS_HASH,
    Verifier,
    b64url_decode,
    b64url_encode,
    canonicalize,
    is_v1_file,
    run_self_check,
    verify_chain_across_files,
    write_manifest,
)
from tests.integrations.fapilog.v1_logs import (
    KEY,
    KEY_ID,
    RECORDED,
    OneKey,
    check,
    edit_manifest,
    kinds,
    manifest_of,
    read,
    recorded,
    sealed,
    write,
)

PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()


@pytest.mark.parametrize("name", ["hmac-1.jsonl", "hmac-2.jsonl"])
async def test_files_of_the_reference_verify(name: str) -> None:
    report = await Verifier(OneKey()).verify_file(RECORDED / name)
    assert (report.valid, report.errors) == (True, [])
    assert (report.manifest_valid, report.manifest_signature_valid, report.chain_valid) == (True, True, True)
    assert (report.records_checked, report.records_valid, report.records_invalid, report.checked) == (3, 3, 0, 3)
    assert report.duration_ms > 0


def test_signatures_of_the_reference_verify_by_the_public_key() -> None:
    report = check(RECORDED / "ed25519-1.jsonl", OneKey(PUBLIC_KEY, "audit-ed"), algorithm="Ed25519")
    assert (report.valid, report.errors) == (True, [])
    by_id = check(RECORDED / "ed25519-1.jsonl", OneKey(PUBLIC_KEY, "audit-ed"), algorithms={"audit-ed": "Ed25519"})
    assert by_id.valid


async def test_a_sequence_of_the_reference_verifies_in_its_order_and_in_no_other() -> None:
    first, second = RECORDED / "hmac-1.jsonl", RECORDED / "hmac-2.jsonl"
    report = await verify_chain_across_files([first, second], OneKey())
    assert (report.valid, report.records_checked, report.manifest_valid) == (True, 6, True)
    assert not (await verify_chain_across_files([second, first], OneKey())).valid
    assert not (await verify_chain_across_files([second], OneKey())).valid
    root = json.loads(manifest_of(first).read_text())["root_chain_hash"]
    assert (await verify_chain_across_files([second], OneKey(), continues_from=root)).valid
    with pytest.raises(InvalidInputError):
        await verify_chain_across_files([], OneKey())


def test_every_report_says_what_the_format_cannot_prove() -> None:
    warnings = " ".join(check(RECORDED / "hmac-1.jsonl").warnings)
    for limit in ("the chain has no key", "put back to an earlier pair", "whoever can verify HMACs can forge them"):
        assert limit in warnings
    assert any("was not looked at" in warning for warning in check(RECORDED / "hmac-2.jsonl").warnings)


def test_canonical_bytes_and_hashes_are_those_of_the_reference() -> None:
    for record in read(RECORDED / "hmac-1.jsonl"):
        assert Verifier(OneKey()).verify_record(record, KEY, "HMAC-SHA256")
        assert not Verifier(OneKey()).verify_record({**record, "x": 1}, KEY, "HMAC-SHA256")
    assert canonicalize({"b": [1.0, None], "a": "é", "integrity": {}}) == '{"a":"é","b":[1.0,null]}'.encode()
    assert not Verifier(OneKey()).verify_record({"message": "m"}, KEY, "HMAC-SHA256")


def test_a_manifest_is_written_byte_for_byte_as_the_reference_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {"root_chain_hash": b64url_encode(GENESIS_HASH)}
    made = write_manifest("written.jsonl", read(RECORDED / "hmac-1.jsonl"), KEY, KEY_ID, continues_from=before)
    assert made.read_bytes() == (RECORDED / "written.jsonl.manifest.json").read_bytes()


def test_a_manifest_that_is_written_here_verifies_here(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    found = sealed(4)
    write(first, found[:2])
    write(second, found[2:])
    manifest = write_manifest(first, found[:2], KEY, KEY_ID)
    write_manifest(second, found[2:], KEY, KEY_ID, continues_from=manifest)
    report = asyncio.run(verify_chain_across_files([first, second], OneKey()))
    assert (report.errors, report.valid) == ([], True)
    empty = tmp_path / "empty.jsonl"
    write(empty, [])
    write_manifest(empty, [], KEY, KEY_ID)
    assert check(empty).valid
    with pytest.raises(InvalidInputError):
        write_manifest(first, found, KEY, KEY_ID, algo="md5")
    with pytest.raises(InvalidInputError):
        write_manifest(first, [{"message": "m"}], KEY, KEY_ID)
    ed = write_manifest(first, found[:2], KEY, KEY_ID, algo="Ed25519", continues_from=tmp_path / "none")
    assert "continues_from" not in json.loads(ed.read_text())


def test_compressed_files_are_read_with_the_manifest_of_what_they_were(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    packed = tmp_path / "hmac-1.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    report = check(packed)
    assert (report.errors, report.valid, report.manifest_valid) == ([], True, True)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "malformed" in kinds(check(packed))


def test_a_clean_restart_of_the_writer_is_no_finding(tmp_path: Path) -> None:
    found = sealed(4)
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(first, found[:2])
    write(second, found[2:])
    for path, part in ((first, found[:2]), (second, found[2:])):
        write_manifest(path, part, KEY, KEY_ID)
    alone = check(second)
    assert (alone.errors, alone.valid) == ([], True)
    assert any("as after a restart" in warning for warning in alone.warnings)
    assert asyncio.run(verify_chain_across_files([first, second], OneKey())).valid


def test_a_file_that_is_still_written_verifies_as_far_as_that_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, sealed(3))
    assert kinds(check(path)) == {"missing_manifest"}
    report = check(path, require_manifest=False)
    assert (report.valid, report.manifest_valid, report.manifest_signature_valid) == (True, None, None)
    assert any("nothing vouches for order" in warning for warning in report.warnings)


def test_a_manifest_that_was_named_and_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    report = Verifier(OneKey(), require_manifest=False).check_file(path, tmp_path / "nope")
    assert kinds(report) == {"missing_manifest"}
    assert Verifier(OneKey()).check_file(path, manifest_of(path)).valid


def test_a_file_under_another_name_is_said_and_no_finding(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    moved = path.rename(tmp_path / "archived.jsonl")
    manifest_of(path).rename(manifest_of(moved))
    report = check(moved)
    assert report.valid
    assert any("a file called 'hmac-1.jsonl'" in warning for warning in report.warnings)


def test_records_without_a_timestamp_are_followed_by_what_they_state(tmp_path: Path) -> None:
    found = sealed(2)
    for record in found:
        del record["timestamp"]
    path = tmp_path / "a.jsonl"
    write(path, found)
    report = check(path, require_manifest=False)
    assert kinds(report) == {"mac_mismatch"}
    assert any("without a timestamp" in warning for warning in report.warnings)


def test_records_in_memory_are_followed_with_their_hashes_computed_again() -> None:
    verifier, found = Verifier(OneKey()), sealed(4)
    assert verifier.verify_chain(found) == []
    assert (
        verifier.verify_chain(found[2:], expected_first_prev=found[1]["integrity"]["chain_hash"], expected_start_seq=3)
        == []
    )
    assert [error.error_type for error in verifier.verify_chain([found[0], found[2]])] == ["seq_gap", "chain_break"]
    assert [error.error_type for error in verifier.verify_chain([{"message": "m"}])] == ["malformed"]


async def test_a_self_check_logs_what_it_finds_and_returns_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = recorded(tmp_path, "hmac-1.jsonl", "hmac-2.jsonl")
    edit_manifest(bad, lambda manifest: manifest.update(record_count=7))
    with caplog.at_level(logging.ERROR, "keystead.fapilog"):
        reports = await run_self_check([good, bad], Verifier(OneKey()))
    assert [report.valid for report in reports] == [True, False]
    assert [record.getMessage() for record in caplog.records] == ["self-check failed"]


def test_which_files_are_of_this_format_is_seen_from_their_first_line(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content, is_one in (((RECORDED / "hmac-1.jsonl").read_bytes(), True), (b"{}\n", False), (b"", False)):
        other.write_bytes(content)
        assert is_v1_file(other) is is_one
    with pytest.raises(CouldNotVerifyError):
        is_v1_file(tmp_path / "none")


def test_what_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(CouldNotVerifyError):
        check(tmp_path / "none.jsonl")
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    manifest_of(path).unlink()
    manifest_of(path).symlink_to(manifest_of(path))
    with pytest.raises(CouldNotVerifyError):
        check(path)


def test_a_signature_that_is_not_the_keys_is_found(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "ed25519-1.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"message"', b'"massage"', 1))
    report = check(path, OneKey(PUBLIC_KEY, "audit-ed"), algorithm="Ed25519")
    assert (report.records_checked - report.records_valid, kinds(report)) == (1, {"mac_mismatch"})


def test_a_file_without_records_within_a_sequence_breaks_nothing_of_its_chain(tmp_path: Path) -> None:
    first, empty = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(first, sealed(2))
    manifest = write_manifest(first, sealed(2), KEY, KEY_ID)
    write(empty, [])
    write_manifest(empty, [], KEY, KEY_ID, continues_from=manifest)
    report = Verifier(OneKey()).check_files([first, empty])
    assert (report.errors, report.records_checked) == ([], 2)


def test_an_algorithm_that_the_format_has_not_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Verifier(OneKey(), algorithm="none")  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("text", ["A", "AA+/", "AB", "ÄÄ", "A" * 42 + "B"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidInputError):
        b64url_decode(text)


def test_base64url_is_what_it_was() -> None:
    assert b64url_decode(b64url_encode(KEY)) == b64url_decode(b64url_encode(KEY) + "=") == KEY


@pytest.mark.parametrize("event", [{"a": b"bytes"}, {"a": "\ud800"}, {"a": object()}])
def test_an_event_that_json_does_not_hold_has_no_canonical_form(event: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        canonicalize(event)
