"""Files that end: by size, by hand, compressed, retired."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
)
from keystead.testing import FakeKMS
from tests.ledger.files import opened, until, verified
from tests.ledger.logs import kinds


def test_files_end_at_their_size_and_are_one_stream(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, max_bytes=5000, buffer_s=0.01) as log:
        for number in (1, 2):
            log.append_many([b'{"number":%d,"text":"%b"}' % (number, b"x" * 100)] * 50)
            until(path.with_name(f"app.log.{number:06d}").exists)
        policy = log.trust_policy()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 3)
    assert report.records_checked >= 100


def test_a_file_is_ended_by_hand_and_verifies_alone(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        ended = log.rotate()
        log.append(b"2")
        policy = log.trust_policy()
    assert ended.name == "app.log.000001"
    assert verified(ended, kms, policy).errors == []
    assert verified(path, kms, policy, expect_closed=True).files == 2


def test_files_that_ended_are_compressed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, compress=True, checkpoint_s=0.05, buffer_s=0.01) as log:
        log.append(b"1")
        log.rotate()
        log.append(b"2")
        until(lambda: path.with_name("app.log.000001.gz").exists() and not path.with_name("app.log.000001").exists())
        policy = log.trust_policy()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_files_removed_on_purpose_are_not_missing(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        for number in range(3):
            log.append(str(number).encode())
            log.rotate()
        log.retire([1, 2], "kept for a year")
        policy = log.trust_policy()
    assert sorted(each.name for each in path.parent.glob("app.log.0*")) == ["app.log.000003"]
    assert verified(path, kms, policy, expect_closed=True).errors == []
    path.with_name("app.log.000003").unlink()
    assert kinds(verified(path, kms, policy)) != []


def test_only_files_that_have_ended_are_removed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        for files, reason in (([1], "why"), ([], "why"), ([7], "why")):
            with pytest.raises(InvalidInputError):
                log.retire(files, reason)
        log.rotate()
        with pytest.raises(InvalidInputError):
            log.retire([1], "")


def test_a_log_that_was_moved_away_is_not_begun_again(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        log.rotate()
    path.unlink()
    ended = path.with_name("app.log.000001")
    ended.write_bytes(b"".join(ended.read_bytes().splitlines(keepends=True)[:-2]))
    with pytest.raises(ConfigurationError, match="is gone"):
        opened(path, kms)
