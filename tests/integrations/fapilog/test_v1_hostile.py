"""Hostile files of format 1: whatever stands in them is a finding, in constant memory, and never an exception."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog import EnvKeyStore, FileKeyStore, Verifier, write_manifest
from keystead.integrations.fapilog.v1.report import MAX_FINDINGS
from keystead.ledger.format.records import MAX_LINE_BYTES
from tests.docs.blocks import ROOT
from tests.integrations.fapilog.v1_logs import KEY, KEY_ID, OneKey, check, kinds, manifest_of, recorded, sealed, write

EDITS = 100_000 if os.environ.get("KEYSTEAD_SOAK") else 400


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[1]",
        b"5",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"integrity":5}',
        b'{"integrity":[1]}',
        b'{"message":"m"}',
        b'{"a":"\\ud800","integrity":{}}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b'{"integrity":{"seq":1,"seq":2}}',
        b"\x00" * 100,
    ],
    ids=range(15),
)
def test_a_line_that_is_no_record_is_a_finding_with_its_place(tmp_path: Path, line: bytes) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + b"".join(lines[1:]))
    report = check(path)
    found = [error for error in report.errors if error.line == 2]
    assert [error.error_type for error in found][:1] in (["malformed"], ["missing_integrity"])
    assert found[0].offset == len(lines[0])
    assert report.records_checked == 4


def test_a_line_longer_than_any_record_is_one_finding(tmp_path: Path) -> None:
    (path,) = recorded(tmp_path, "hmac-1.jsonl")
    path.write_bytes(path.read_bytes() + b"x" * (3 * MAX_LINE_BYTES) + b"\n")
    report = check(path)
    assert sum(error.error_type == "malformed" for error in report.errors) == 1


def test_findings_are_counted_and_only_the_first_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" * (MAX_FINDINGS + 500))
    report = check(path, require_manifest=False)
    assert (len(report.errors), report.findings, report.valid) == (MAX_FINDINGS, MAX_FINDINGS + 500, False)


def test_random_edits_are_all_found_and_none_is_an_exception(tmp_path: Path) -> None:
    random_ = random.Random(20260102)
    path = tmp_path / "a.jsonl"
    found = sealed(8)
    write(path, found)
    write_manifest(path, found, KEY, KEY_ID)
    whole, manifest = path.read_bytes(), manifest_of(path).read_bytes()
    events = [json.loads(line) for line in whole.splitlines()]
    for _ in range(EDITS):
        edited, place = (bytearray(whole), path) if random_.random() < 0.7 else (bytearray(manifest), manifest_of(path))
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(edited))
            edit = random_.randrange(3)
            if edit == 0:
                edited[at] = random_.randrange(256)
            elif edit == 1:
                del edited[at : at + random_.randint(1, 40)]
            else:
                edited[at:at] = random_.randbytes(random_.randint(1, 8))
        path.write_bytes(whole)
        manifest_of(path).write_bytes(manifest)
        place.write_bytes(edited)
        if not check(path).valid:
            continue
        # Format 1 compares JSON: an edit that changes no value is none.
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == events
        assert json.loads(manifest_of(path).read_bytes()) == json.loads(manifest)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=80) | st.sampled_from([b'{"integrity":{}}', b"{}", b'{"integrity":{"seq":1}}'])))
def test_no_content_whatever_raises(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    manifest_of(path).write_bytes(b"".join(lines))
    assert not check(path).valid


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from keystead.integrations.fapilog import Verifier\n"
        "class Keys:\n    def get_key(self, key_id):\n        return bytes(range(32))\n"
        "report = Verifier(Keys(), require_manifest=False).check_file(sys.argv[1])\n"
        "peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]\n"
        "print(report.records_checked, peak)\n"
    )
    peaks = []
    for count in (2_000, 20_000):
        path = tmp_path / f"{count}.jsonl"
        write(path, sealed(count))
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        checked, peak = map(int, done.stdout.split())
        assert checked == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 4 * 1024


class TestStores:
    """Where keys may be, and where a record can send a reader."""

    def test_one_variable_verifies_every_key_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAPILOG_TAMPER_KEY", KEY.hex())
        monkeypatch.setenv("KNOWN_TO_ALL", bytes(32).hex())
        assert EnvKeyStore().get_key("anything") == KEY
        assert EnvKeyStore().get_key("KNOWN_TO_ALL") == KEY
        assert EnvKeyStore(variable="NOT_SET").get_key("x") is None

    def test_a_prefix_keeps_key_ids_to_its_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUDIT_KEY_one", KEY.hex())
        monkeypatch.setenv("AUDIT_KEY_none", "no key")
        store = EnvKeyStore(prefix="AUDIT_KEY_")
        assert store.get_key("one") == KEY
        assert (store.get_key("none"), store.get_key("two"), store.get_key("o/ne")) == (None, None, None)

    def test_ids_that_were_named_are_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUDIT_2025", bytes(32).hex())
        monkeypatch.setenv("FAPILOG_TAMPER_KEY", KEY.hex())
        store = EnvKeyStore(key_ids=["AUDIT_2025"])
        assert (store.get_key("AUDIT_2025"), store.get_key("HOME")) == (bytes(32), KEY)

    def test_a_variable_that_was_named_and_holds_no_key_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAPILOG_TAMPER_KEY", "no key")
        with pytest.raises(ConfigurationError, match="FAPILOG_TAMPER_KEY holds no key"):
            EnvKeyStore().get_key("x")

    def test_a_file_verifies_every_key_id_by_all_of_its_keys(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"{'2e' * 32}\n{KEY.hex()}\n")
        assert FileKeyStore(path).get_key("x") == bytes.fromhex("2e" * 32)
        (log,) = recorded(tmp_path, "hmac-1.jsonl")
        assert Verifier(FileKeyStore(path)).check_file(log).valid
        path.write_text("no key")
        with pytest.raises(ConfigurationError, match="holds no key"):
            FileKeyStore(path).get_key("x")

    def test_a_folder_has_a_file_for_each_id(self, tmp_path: Path) -> None:
        (tmp_path / "one.key").write_bytes(KEY + b"\n")
        (tmp_path / "none.key").write_bytes(b"no key")
        (tmp_path / "folder.key").mkdir()
        os.mkfifo(tmp_path / "pipe.key")
        store = FileKeyStore(tmp_path)
        assert store.get_key("one") == KEY
        for key_id in ("none", "two", "folder", "pipe"):
            assert store.get_key(key_id) is None
        assert FileKeyStore(tmp_path / "gone").get_key("x") is None

    def test_each_key_is_asked_for_once(self, tmp_path: Path) -> None:
        asked: list[str] = []

        class Store(OneKey):
            def get_key(self, key_id: str) -> bytes | None:
                asked.append(key_id)
                return super().get_key(key_id)

        (path,) = recorded(tmp_path, "hmac-1.jsonl")
        assert check(path, Store()).valid
        assert asked == [KEY_ID]

    @pytest.mark.parametrize("key", ["text", b"short", 5])
    def test_a_store_that_gives_what_is_no_key_is_an_error_of_its_own(self, tmp_path: Path, key: object) -> None:
        class Store:
            def get_key(self, key_id: str) -> object:
                return key

        (path,) = recorded(tmp_path, "hmac-1.jsonl")
        with pytest.raises(ConfigurationError, match="the key store Store gave a key that is no 32 bytes"):
            check(path, Store())

    def test_key_ids_without_end_are_not_all_remembered(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        found: list[dict[str, Any]] = sealed(600)
        for number, record in enumerate(found):
            record["integrity"]["key_id"] = f"key-{number}"
        write(path, found)
        assert kinds(check(path, require_manifest=False)) == {"missing_key"}
