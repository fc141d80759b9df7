"""Records that come before their log is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import StorageOperationError
from keystead.ledger.writing.early_records import EarlyRecords
from keystead.testing import FakeKMS
from tests.ledger.files import opened, payloads


def test_who_was_to_wait_for_a_log_appends_to_it_once_it_is_open(path: Path, kms: FakeKMS) -> None:
    early = EarlyRecords()
    early.append_many([b"1", b"2"])
    assert not early.is_empty
    with opened(path, kms) as log:
        early.hand_over(log._log)
        assert early.is_empty
        early.append_many([b"3"])
    assert payloads(path) == [1, 2, 3]


def test_what_waits_for_a_log_that_does_not_open_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.ledger.writing.early_records.MAX_UNWRITTEN_BYTES", 3)
    early = EarlyRecords()
    early.append_many([b"1000"])
    with pytest.raises(StorageOperationError, match="flush it"):
        early.append_many([b"1"])
