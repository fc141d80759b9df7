"""Proofs from files, with the index and without, and whatever the index says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import pytest

from keystead.crypto.merkle import leaf_hash, root_of, verify_consistency
from keystead.errors import InvalidInputError, InvalidProofError
from keystead.ledger.format.records import parse_line
from keystead.ledger.reading.index import LogIndex, _records
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.proving import LogTree, prove, prove_consistency, record_line
from keystead.ledger.tlog.checkpoint import Checkpoint, verify_checkpoint
from keystead.ledger.tlog.proof import ProofBundle
from keystead.ledger.writing.sealed_file import SealedFile
from keystead.testing import FakeKMS
from tests.ledger.files import killed, opened

STREAM = "example.org/app"


def written(path: Path, counts: list[int]) -> tuple[SealedFile, list[bytes]]:
    """Return a log in as many files as counts, and the checkpoints made at the end of each."""
    log, notes = SealedFile(path, stream=STREAM, kms=FakeKMS(), key_id="audit"), []
    for at, count in enumerate(counts):
        log.append_many([b'{"at":%d,"number":%d}' % (at, number) for number in range(count)])
        notes.append(log.checkpoint())
        if at + 1 < len(counts):
            log.rotate()
    log.close()
    return log, notes


def leaves_of(path: Path) -> list[bytes]:
    files = [*sorted(path.parent.glob("app.log.00000?")), path]
    return [leaf_hash(line) for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.mark.parametrize("counts", [[3], [700], [250, 1, 600], [10, 10, 10]])
def test_every_record_of_every_file_is_proved(path: Path, counts: list[int]) -> None:
    log, _ = written(path, counts)
    key = log._log.signer.keys[0]
    size = LogTree.open(path).size
    for number in {0, 1, size // 2, size - 2, *range(0, size - 1, 37)}:
        bundle = ProofBundle.parse(prove(path, number).render())
        bundle.verify(record_line(path, number), [key], origin=STREAM)
        with pytest.raises(InvalidProofError):
            bundle.verify(b"another record", [key])


def test_one_file_is_enough_for_a_proof(path: Path) -> None:
    log, _ = written(path, [300, 300, 300])
    second = path.with_name("app.log.000002")
    first = LogIndex.open(second).first
    path.with_name("app.log.000001").unlink()
    bundle = prove(second, first + 100)
    bundle.verify(record_line(second, first + 100), [log._log.signer.keys[0]], origin=STREAM)
    with pytest.raises(InvalidInputError, match="files before this one"):
        LogIndex.open(second).subtree(0, first - 3)


@pytest.mark.parametrize("counts", [[900], [508], [300, 5, 800]])
def test_the_tree_is_that_of_all_lines(path: Path, counts: list[int]) -> None:
    written(path, counts)
    leaves, tree = leaves_of(path), LogTree.open(path)
    assert tree.size == len(leaves)
    for level in range(tree.size.bit_length()):
        for number in range(tree.size >> level):
            assert tree.subtree(level, number) == root_of(leaves[number << level : (number + 1) << level])


def test_the_tree_goes_on_behind_what_a_crash_left(path: Path, kms: FakeKMS) -> None:
    for _ in range(2):
        log = opened(path, kms)
        log.append_many([b"1"] * 300)
        killed(log)
        number = LogTree.open(path).size
        with path.open("ab") as file:
            file.write(b'half a line\n{"n":%d,"t":1,"d":1,"m":"%b"}\nhalf' % (number, b"A" * 43))
    opened(path, kms).close()
    records = [line for _, line in _records(path, 0, 0)]
    assert [parse_line(line).number for line in records] == list(range(len(records)))
    tree = LogTree.open(path)
    assert tree.subtree(9, 0) == root_of([leaf_hash(line) for line in records[:512]])
    with pytest.raises(InvalidInputError, match=f"no record {len(records)}"):
        tree.subtree(0, len(records))


def test_growth_between_kept_checkpoints_is_proved(path: Path) -> None:
    log, notes = written(path, [300, 20, 700])
    kept = [verify_checkpoint(note, [log._log.signer.keys[0]]).checkpoint for note in notes]
    for old in kept:
        for new in kept:
            if old.size <= new.size:
                proof = prove_consistency(path, old, new)
                verify_consistency(old.size, new.size, old.root, new.root, proof)
    assert prove_consistency(path, Checkpoint(STREAM, 0, root_of([])), kept[0]) == []
    with pytest.raises(InvalidProofError):
        prove_consistency(path, Checkpoint(STREAM, kept[0].size, bytes(32)), kept[1])


def test_the_index_is_made_anew_where_it_is_absent_stale_or_a_lie(path: Path) -> None:
    log, _ = written(path, [2000])
    key, index = log._log.signer.keys[0], path.with_name("app.log.index")
    prove(path, 5)
    true = index.read_bytes()
    lies = [b"", b"garbage", true[:-1], true[:100], true[:60] + b"\xff" * 40 + true[100:]]
    lies += [true[:position] + b"\x01" + true[position + 1 :] for position in range(25, len(true), 97)]
    # The offset of the block that the record is in.
    lies += [true[:101] + offset + true[109:] for offset in (b"\xff" * 8, bytes(8), bytes(7) + b"\x01")]
    for lie in lies:
        index.write_bytes(lie)
        prove(path, 1500).verify(_line(path, 1500), [key], origin=STREAM)
        index.write_bytes(lie)
        assert record_line(path, 1500) == _line(path, 1500)


def _line(path: Path, number: int) -> bytes:
    return path.read_bytes().splitlines()[number]


def test_the_index_grows_with_its_file(path: Path) -> None:
    written(path, [1000])
    before = LogIndex.open(path)
    again, _ = written(path, [1000])
    after = LogIndex.open(path)
    assert after.size > before.size + 1000
    assert after.subtree(8, 1) == before.subtree(8, 1)
    prove(path, 1900).verify(_line(path, 1900), [again._log.signer.keys[0]], origin=STREAM)


def test_a_log_without_the_index_is_proved_all_the_same(path: Path) -> None:
    log, _ = written(path, [600])
    path.parent.chmod(0o555)
    try:
        prove(path, 10).verify(_line(path, 10), [log._log.signer.keys[0]])
    finally:
        path.parent.chmod(0o755)


def test_what_is_not_there_has_no_proof(path: Path, tmp_path: Path) -> None:
    written(path, [5])
    for number in (-1, 100):
        with pytest.raises(InvalidInputError):
            prove(path, number)
    (tmp_path / "other.log").write_text("no log\n")
    with pytest.raises(InvalidInputError):
        prove(tmp_path / "other.log", 0)


def test_a_record_behind_the_last_checkpoint_has_to_wait(path: Path) -> None:
    with SealedFile(path, stream=STREAM, kms=FakeKMS(), key_id="audit") as log:
        log.append(b"1")
        log.flush()
        with pytest.raises(InvalidInputError, match="no checkpoint"):
            prove(path, 1)
        log.checkpoint()
        log.append(b"2")
        log.flush()
        with pytest.raises(InvalidInputError, match="no checkpoint"):
            prove(path, 3)


def test_an_index_that_misplaces_the_last_checkpoint_is_made_anew(path: Path) -> None:
    with SealedFile(path, stream=STREAM, kms=FakeKMS(), key_id="audit") as log:
        log.append(b"1")
        log.checkpoint()
        log.append_many([b"2"] * 1000)
        log.flush()
        bundle, index = prove(path, 1), path.with_name("app.log.index")
        for offset in (0, 5, 300):
            index.write_bytes(index.read_bytes()[:45] + offset.to_bytes(8, "big") + index.read_bytes()[53:])
            assert prove(path, 1) == bundle


def test_a_changed_record_has_no_proof(path: Path) -> None:
    written(path, [600])
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"number":7}', b'"number":8}', 1))
    for number in (8, 300):
        with pytest.raises(InvalidProofError):
            prove(path, number)


def test_one_record_among_many_is_found_by_reading_little(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, [60_000])
    prove(path, 1)
    read = []
    read_some = LogFile._read

    def counted(file: LogFile, opened: IO[bytes], size: int) -> bytes:
        block = read_some(file, opened, size)
        read.append(len(block))
        return block

    monkeypatch.setattr(LogFile, "_read", counted)
    prove(path, 30_000)
    assert sum(read) < 200_000 < path.stat().st_size / 20


def test_an_index_that_another_process_replaces_stays_as_it_was_opened(path: Path) -> None:
    written(path, [2000])
    prove(path, 5)
    tree, index = LogTree.open(path), path.with_name("app.log.index")
    index.with_name("other").write_bytes(bytes(index.stat().st_size))
    index.with_name("other").replace(index)
    assert tree.subtree(9, 2) == root_of(leaves_of(path)[1024:1536])


def test_an_index_that_is_cut_while_it_is_used_is_an_error_and_no_root(path: Path) -> None:
    written(path, [2000])
    prove(path, 5)
    tree, index = LogTree.open(path), path.with_name("app.log.index")
    index.write_bytes(b"")
    with pytest.raises(InvalidInputError, match="not what it was"):
        tree.subtree(9, 2)


def test_a_pipe_in_the_place_of_the_index_holds_nothing_up(path: Path) -> None:
    log, _ = written(path, [600])
    index = path.with_name("app.log.index")
    os.mkfifo(index)
    prove(path, 10).verify(_line(path, 10), [log._log.signer.keys[0]], origin=STREAM)
    assert index.is_file()
