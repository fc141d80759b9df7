"""What a verifier is given: a file, a folder, a list, and names that look like others."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from keystead.errors import CouldNotVerifyError
from keystead.ledger import TrustPolicy, Verifier
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.files import LogFiles, without_companions
from keystead.ledger.reading.following import LogFollower
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.testing import FakeKMS
from tests.ledger.files import opened, verified
from tests.ledger.logs import STREAM, TestTrust, kinds

NAMES = ["app.log.000001", "app.log.000002", "app.log"]


@pytest.fixture
def policy(path: Path, kms: FakeKMS) -> TrustPolicy:
    """Return the policy of a log of three files, with its key and lock beside it."""
    return written(path, kms)


def written(path: Path, kms: FakeKMS) -> TrustPolicy:
    with opened(path, kms) as log:
        for _ in range(2):
            log.append(b"1")
            log.rotate()
        log.append(b"1")
        return log.trust_policy()


def test_of_no_file_nothing_is_said(policy: TrustPolicy, kms: FakeKMS) -> None:
    with pytest.raises(CouldNotVerifyError, match="no file"):
        Verifier(policy, {"fake": kms}).verify([])


def test_a_log_of_which_nothing_is_left_was_rolled_back() -> None:
    kept = Checkpoint(STREAM, 5, bytes(32))
    report = StreamChecker(TestTrust(), since=kept).check([])
    assert (kinds(report), report.errors[0].file) == (["rolled_back"], "")


@pytest.mark.parametrize("name", ["audit.20240115", "audit.000001", "audit.20240115.gz"])
def test_a_log_that_is_called_as_a_file_that_has_ended_misses_none_of_its_files(
    tmp_path: Path, kms: FakeKMS, name: str
) -> None:
    path = tmp_path / name
    policy = written(path, kms)
    assert verified(path, kms, policy, expect_closed=True).files == 3
    LogFiles(path).name_of(1).unlink()
    assert kinds(verified(path, kms, policy, expect_closed=True)) == ["missing"]
    assert len(LogFollower(path).files()) == 2


def test_a_log_that_is_called_so_is_found_by_its_files_while_the_next_one_begins(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "audit.20240115"
    policy = written(path, kms)
    path.unlink()
    assert verified(path, kms, policy).files == 2


def test_a_file_that_has_ended_is_read_alone(path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    report = verified(path.with_name(NAMES[1]), kms, policy)
    assert (report.errors, report.files) == ([], 1)


def test_a_number_in_another_spelling_names_no_file(path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    first = path.with_name(NAMES[0])
    shutil.copy(first, path.with_name("app.log.0000001"))
    first.write_bytes(first.read_bytes().replace(b'"d":1', b'"d":2'))
    assert "modified" in kinds(verified(path, kms, policy))


def test_a_folder_is_read_as_the_log_in_it(path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    report = verified(path.parent, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 3)
    path.with_name(NAMES[0]).unlink()
    assert kinds(verified(path.parent, kms, policy)) == ["missing"]


def test_a_file_that_is_being_compressed_is_no_other_file_of_its_folder(
    path: Path, policy: TrustPolicy, kms: FakeKMS
) -> None:
    packed = gzip.compress(path.with_name(NAMES[0]).read_bytes())
    staged = path.with_name(f"{NAMES[0]}.gz.new")
    staged.write_bytes(packed[: len(packed) - 8])
    assert verified(path.parent, kms, policy).errors == []
    staged.rename(path.with_name(f"{NAMES[0]}.gz"))
    assert verified(path.parent, kms, policy).errors == []


def test_keys_beside_a_log_are_not_opened(
    path: Path, policy: TrustPolicy, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opening = Path.open

    def noted(file: Path, *given: object, **named: object) -> object:
        read.append(file.name)
        return opening(file, *given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", noted)
    assert verified(path.parent, kms, policy).errors == []
    assert set(read) == set(NAMES)


def test_a_copy_in_a_folder_is_found(path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    shutil.copy(path, path.with_name("app.log.old"))
    assert not verified(path.parent, kms, policy).valid


def test_a_folder_without_a_log_is_not_as_it_was_written(tmp_path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "notes").write_text("nothing")
    with pytest.raises(CouldNotVerifyError, match="holds no file"):
        verified(folder, kms, policy)


@pytest.mark.parametrize("ending", [".key", ".new", ".index", ".lock"])
def test_a_log_that_is_called_as_what_stands_beside_one_is_read(tmp_path: Path, kms: FakeKMS, ending: str) -> None:
    path = tmp_path / f"audit{ending}"
    policy = written(path, kms)
    path.write_bytes(path.read_bytes().replace(b'"d":1', b'"d":2'))
    assert "modified" in kinds(verified(tmp_path, kms, policy))


def test_what_stands_beside_a_file_is_told_by_its_name() -> None:
    names = ["a.log", "a.log.key", "b.log.000001", "b.log.lock", "c.key", ".new", "b.log.000001.gz", "b.log.gz"]
    kept = without_companions(Path(name) for name in names)
    assert [each.name for each in kept] == ["a.log", "b.log.000001", "c.key", ".new", "b.log.gz"]


def test_a_file_that_vanishes_while_its_folder_is_listed_is_passed_over(
    path: Path, policy: TrustPolicy, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.with_name("app.log.old").symlink_to("gone")
    monkeypatch.setattr(Path, "is_file", lambda file: True)
    assert verified(path.parent, kms, policy).errors == []


def test_a_file_that_has_ended_and_begins_as_no_log_is_malformed(path: Path, policy: TrustPolicy, kms: FakeKMS) -> None:
    ended = path.with_name(NAMES[0])
    ended.write_bytes(b"not a log\n")
    assert kinds(verified(ended, kms, policy)) == ["malformed"]


def test_a_file_of_a_folder_that_cannot_be_read_may_be_one_of_the_log(
    path: Path, policy: TrustPolicy, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Path.open

    def refused(file: Path, *given: object, **named: object) -> object:
        if file.name == NAMES[1]:
            raise PermissionError(13, "Permission denied")
        return opening(file, *given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(CouldNotVerifyError, match="Permission denied"):
        verified(path.parent, kms, policy)
