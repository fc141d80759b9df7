"""Files that end, are compressed and removed; checkpoints kept outside; a look at the log when it is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import StorageOperationError
from keystead.integrations.fapilog import SealedSink
from keystead.integrations.fapilog import files as files_module
from keystead.integrations.fapilog.alarm import Alarm
from keystead.integrations.fapilog.files import FileKeeper
from keystead.ledger import Verifier
from tests.integrations.fapilog.apps import log_file, messages, verified


@pytest.fixture(autouse=True)
def _looks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "LOOK_AFTER_S", 0.0)


def sink_of(folder: Path, *, inner: dict[str, Any] | None = None, **options: Any) -> SealedSink:
    return SealedSink(inner_config={"directory": str(folder), **(inner or {})}, **options)


async def write(sink: SealedSink, *names: str) -> None:
    for name in names:
        await sink.write({"message": name})
        await sink.flush()


async def test_a_file_that_is_rotated_holds_every_record_and_the_next_one_goes_on(folder: Path) -> None:
    sink = sink_of(folder, compress_rotated=False)
    await write(sink, "one")
    ended = await sink.rotate()
    await write(sink, "two")
    await sink.stop()
    assert (messages(ended), messages(log_file(folder))) == (["one"], ["two"])
    report = verified(log_file(folder), expect_closed=True)
    assert (report.valid, report.files) == (True, 2)


async def test_a_clean_restart_after_a_rotation_verifies_across_the_files(folder: Path) -> None:
    for name in ("one", "two"):
        sink = sink_of(folder)
        await write(sink, name)
        await sink.rotate()
        await sink.stop()
    report = verified(log_file(folder), expect_closed=True)
    assert (report.valid, report.files, report.sessions) == (True, 3, 2)


async def test_rotating_under_writes_loses_and_misplaces_nothing(folder: Path) -> None:
    sink = sink_of(folder, inner={"max_bytes": 4096}, compress_rotated=True)

    async def writing() -> None:
        for number in range(400):
            await sink.write({"message": str(number), "data": {"text": "x" * 50}})
            await asyncio.sleep(0)

    async def rotating() -> None:
        for _ in range(5):
            await sink.rotate()

    await asyncio.gather(writing(), rotating())
    await sink.stop()
    report = verified(log_file(folder), expect_closed=True)
    assert report.valid, report.errors
    assert report.files > 5


async def test_compressed_files_are_whole_and_are_read(folder: Path) -> None:
    sink = sink_of(folder, compress_rotated=True)
    await write(sink, "one")
    await sink.rotate()
    for _ in range(3000):
        if (folder / "fapilog.jsonl.000001.gz").exists() and not (folder / "fapilog.jsonl.000001").exists():
            break
        await write(sink, "more")
        await asyncio.sleep(0.01)
    await sink.stop()
    assert (folder / "fapilog.jsonl.000001.gz").exists()
    assert verified(log_file(folder), expect_closed=True).valid


async def test_files_beyond_the_limit_are_removed_on_the_record(folder: Path) -> None:
    sink = sink_of(folder, inner={"max_files": 2})
    for number in range(5):
        await write(sink, str(number))
        await sink.rotate()
    await write(sink, "last")
    await sink.stop()
    assert sorted(path.name for path in folder.glob("*.0*")) == ["fapilog.jsonl.000004", "fapilog.jsonl.000005"]
    assert b'"k":"retention"' in log_file(folder).read_bytes()
    assert b"max_files=2" in log_file(folder).read_bytes()
    report = verified(log_file(folder), expect_closed=True)
    assert report.valid, report.errors
    (folder / "fapilog.jsonl.000004").unlink()
    assert not verified(log_file(folder)).valid


async def test_files_beyond_a_size_are_removed_and_those_after_a_time_end(folder: Path) -> None:
    sink = sink_of(folder, inner={"max_total_bytes": 2500, "interval_seconds": 0.001})
    for number in range(6):
        await write(sink, str(number))
        await asyncio.sleep(0.002)
    await sink.stop()
    kept = list(folder.glob("*.0*"))
    assert 1 <= len(kept) < 5
    assert sum(path.stat().st_size for path in kept) <= 2500 + max(path.stat().st_size for path in kept)
    assert verified(log_file(folder), expect_closed=True).valid


def test_what_cannot_be_removed_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Refusing:
        path = folder / "x"

        def rotate(self) -> None:
            raise StorageOperationError("no room")

    keeper = FileKeeper(1e-9, None, None, Alarm("x"))
    keeper.look(Refusing())  # type: ignore[arg-type]  # all that is called of it
    assert "its old files cannot be looked after: no room" in capfd.readouterr().err


async def test_checkpoints_stand_where_manifests_stood_and_the_log_is_held_to_them(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "manifests"
    sink = sink_of(folder, manifest_path=str(place))
    await write(sink, "one", "two")
    policy = await asyncio.to_thread(sink.trust_policy)
    note = await sink.checkpoint()
    kept = place / "fapilog.jsonl.checkpoint"
    assert kept.read_bytes() == note
    await write(sink, "three")
    await sink.stop()
    assert kept.read_bytes() != note
    newest = kept.read_bytes()
    assert Verifier(policy).verify(log_file(folder), newest).valid
    lines = log_file(folder).read_bytes().splitlines(keepends=True)
    log_file(folder).write_bytes(b"".join(lines[:2]))
    report = Verifier(policy).verify(log_file(folder), newest)
    assert [error.error_type for error in report.errors] == ["rolled_back"]


async def test_each_file_has_a_checkpoint_of_its_own(folder: Path, tmp_path: Path) -> None:
    sink = sink_of(folder, manifest_path=str(tmp_path / "m"))
    await write(sink, "one")
    await sink.rotate()
    assert (tmp_path / "m" / "fapilog.jsonl.checkpoint").read_text().startswith("fapilog/fapilog\n")
    await sink.stop()


async def test_a_place_for_checkpoints_that_cannot_be_written_is_said(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").write_text("")
    sink = sink_of(folder, manifest_path=str(tmp_path / "m"))
    await write(sink, "one")
    await sink.checkpoint()
    assert "fapilog.jsonl.checkpoint cannot be written" in capfd.readouterr().err
    await sink.stop()


async def test_when_it_is_closed_the_log_is_verified_if_that_was_asked_for(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = sink_of(folder, verify_on_close=True)
    await write(sink, "one")
    await sink.stop()
    assert capfd.readouterr().err == ""
    await sink.start()
    content = log_file(folder).read_bytes()
    log_file(folder).write_bytes(content.replace(b'"message":"one"', b'"message":"two"'))
    await sink.stop()
    assert "it does not verify after it was closed: " in capfd.readouterr().err


async def test_a_key_that_is_gone_at_the_end_is_no_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from keystead.errors import CouldNotVerifyError

    sink = sink_of(folder, verify_on_close=True)
    await write(sink, "one")

    def unreachable(*given: object) -> None:
        raise CouldNotVerifyError("the KMS is away")

    monkeypatch.setattr("keystead.ledger.Verifier.verify", unreachable)
    await sink.stop()
    assert "it could not be verified after it was closed: the KMS is away" in capfd.readouterr().err


async def test_a_record_is_on_disk_when_the_write_returns_if_that_was_asked_for(folder: Path) -> None:
    sink = sink_of(folder, fsync_on_write=True)
    await sink.write({"message": "one"})
    assert messages(log_file(folder)) == ["one"]
    await sink.stop()


async def test_a_keeper_looks_now_and_then_and_not_at_every_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LOOK_AFTER_S", 3600.0)
    looked: list[dict[int, Path]] = []

    def look(keeper: FileKeeper, ended: dict[int, Path]) -> list[int]:
        looked.append(ended)
        return []

    monkeypatch.setattr(FileKeeper, "_too_many", look)
    sink = SealedSink(inner_config={"directory": str(folder), "max_files": 3})
    for number in range(5):
        await sink.write({"message": str(number)})
        await sink.flush()
    assert len(looked) == 1
    await sink.stop()


def test_a_file_that_went_while_sizes_were_added_up_counts_nothing(tmp_path: Path) -> None:
    keeper = FileKeeper(None, None, 10, Alarm("app.jsonl"))
    assert keeper._too_many({1: tmp_path / "gone", 2: tmp_path / "gone too"}) == []
