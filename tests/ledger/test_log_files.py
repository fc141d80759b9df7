"""A log's files: who writes them, who may read them, and what may stand where they are to be."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError, ConflictError, InvalidInputError, KMSError, StorageOperationError
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.tlog.key_file import ed25519_key
from keystead.ledger.writing.retaining import MOST_FILES, merged
from keystead.ledger.writing.sealed_file import SealedFile
from keystead.runtime.loop import background_loop
from keystead.testing import FakeKMS
from tests.ledger.files import opened, payloads, until, verified


def test_a_log_has_one_writer_although_the_file_of_its_lock_was_deleted(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        policy = log.trust_policy()
        for _ in range(2):
            Path(f"{path}.lock").unlink()
            with pytest.raises(ConflictError):
                opened(path, kms)
            log.append(b"1")
            log.rotate()
    with opened(path, kms) as log:
        log.append(b"2")
    assert verified(path, kms, policy, expect_closed=True).valid


def test_a_file_that_has_ended_is_open_to_the_same_people_once_it_is_compressed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, compress=True, buffer_s=0.01) as log:
        path.chmod(0o600)
        log.append(b"1")
        log.rotate()
        packed = path.with_name("app.log.000001.gz")
        until(packed.exists)
        assert packed.stat().st_mode & 0o777 == 0o600


def test_a_log_that_was_put_back_compressed_is_not_gone_on_with(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
    content = gzip.compress(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="gunzip"):
        opened(path, kms)
    assert path.read_bytes() == content


def test_a_pipe_in_the_place_of_a_log_holds_nobody_up(path: Path, kms: FakeKMS) -> None:
    os.mkfifo(path)
    with pytest.raises(Exception, match="cannot be opened"):
        opened(path, kms)


def test_the_name_of_a_file_is_on_disk_before_anything_is_appended_to_it(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it may have been stopped between the two."""
    opened(path, kms).close()
    synced: list[int] = []
    sync = LogFiles.sync_folder

    def noted(files: LogFiles) -> None:
        synced.append(path.stat().st_size)
        sync(files)

    monkeypatch.setattr(LogFiles, "sync_folder", noted)
    before = path.stat().st_size
    opened(path, kms).close()
    assert synced[0] == before


@pytest.mark.parametrize("reason", ["\ud800", "x" * (5 << 20)])
def test_a_reason_that_no_record_can_hold_is_refused_and_breaks_nothing(path: Path, kms: FakeKMS, reason: str) -> None:
    with opened(path, kms) as log:
        policy = log.trust_policy()
        log.rotate()
        with pytest.raises(InvalidInputError):
            log.retire([1], reason)
        log.append(b"1")
    assert verified(path, kms, policy, expect_closed=True).valid


def test_removals_of_more_files_than_a_record_holds_are_told_in_several() -> None:
    files = [{"file": number, "first": number, "last": number} for number in range(1, MOST_FILES + 2)]
    told = merged({"old": files})
    assert [len(each["files"]) for each in told] == [MOST_FILES, 1]


def test_a_key_is_made_although_an_earlier_process_of_the_same_number_left_half_of_one(tmp_path: Path) -> None:
    (tmp_path / f"app.log.key.{os.getpid()}.new").touch()
    ed25519_key(tmp_path / "app.log.key")
    assert (tmp_path / "app.log.key").exists()


def in_a_child(work: object) -> int:
    """Return what a forked child exits with that does some work; 99 where that raises something unexpected."""
    assert callable(work)
    child = os.fork()
    if not child:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_whose_log_would_have_too_long_a_name_is_refused(path: Path, kms: FakeKMS) -> None:
    log = SealedFile(path, stream="a/" + "b" * 250, kms=kms, key_id="audit")

    def child() -> int:
        try:
            log.append(b"1")
        except ConfigurationError:
            return 7
        return 0

    assert in_a_child(child) == 7
    log.close()
    assert list(path.parent.glob("app-*")) == []


def test_a_forked_child_that_appends_nothing_begins_no_log(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)

    def child() -> int:
        is_flushed = log.flush()
        log.close()
        return 7 if is_flushed else 0

    assert in_a_child(child) == 7
    log.close()
    assert list(path.parent.glob("app-*")) == []


def test_what_the_loop_of_a_forked_child_logs_is_kept_until_its_log_is_open(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)

    async def logs() -> None:
        log.append(b'"kept"')
        with pytest.raises(InvalidInputError):
            log.append(b"not JSON")

    def child() -> int:
        background_loop.run(logs())
        was_flushed = log.flush(waits=False)
        kms.fail_always()
        with pytest.raises(KMSError):
            log.close()
        kms.heal()
        log.close()
        return 7 if log.is_closed and not was_flushed else 0

    assert in_a_child(child) == 7
    log.close()
    (own,) = (each for each in path.parent.glob("app-*") if each.suffix == ".log")
    assert payloads(own) == ["kept"]


def test_a_log_whose_file_was_deleted_acknowledges_nothing_more(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    path.unlink()
    log.append(b"1")
    with pytest.raises(StorageOperationError, match="deleted"):
        log.flush()
    with pytest.raises(StorageOperationError, match="deleted"):
        log.close()
    assert log.is_closed


def test_the_file_that_another_writer_is_about_to_begin_is_not_emptied(path: Path) -> None:
    mine, other = LogFiles(path), LogFiles(path)
    staged = Path(f"{path}.new")
    staged.write_bytes(b"the first line")
    with staged.open("ab") as file:
        other._claim(file.fileno())
        with pytest.raises(ConflictError):
            mine.create(b"another")
    assert staged.read_bytes() == b"the first line"
