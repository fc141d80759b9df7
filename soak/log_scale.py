"""Logs of growing length: what a writer, a verifier and a proof take of memory and time."""

from __future__ import annotations

import random
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystead.ledger import ProofBundle, SealedFile, TrustPolicy, Verifier, prove, record_line
from keystead.providers.local.kek_file import create_kek_file
from soak.harness import fork, in_child

STREAM: Final = "soak.example.org/scale"
RECORD: Final = b'{"event":"' + b"x" * 288 + b'"}'
MANY: Final = 1000
PROOFS: Final = 100
TIMEOUT_S: Final = 7200.0


@dataclass(frozen=True, slots=True)
class Length:
    """A log of so many records.

    Attributes:
        writing_mib, verifying_mib: the most memory that the process had.
        bytes_a_record: of the file, beyond the record's own.
        proof_ms: the median of proofs by the cached index, in CPU time of the process.
        indexing_s, without_s: what it takes to make the index, and one proof without any.
        wrong: proofs that did not verify, and findings.
    """

    records: int
    writing_mib: float
    verifying_mib: float
    bytes_a_record: float
    proof_ms: float
    indexing_s: float
    without_s: float
    wrong: list[str]


def measured(folder: Path, records: int) -> Length:
    """Write a log, verify it and prove records of it, each in a process of its own."""
    folder.mkdir()
    path = folder / "app.log"
    create_kek_file(folder / "kek")
    writing = fork(_write, path, records).result(TIMEOUT_S)
    verifying, findings = fork(_verify, path, records).result(TIMEOUT_S)
    overhead = path.stat().st_size / records - len(RECORD)
    indexing, proof_ms, wrong = fork(_prove, path, records).result(TIMEOUT_S)
    without, also_wrong = fork(_prove_without, path, records).result(TIMEOUT_S)
    path.unlink()
    return Length(records, writing, verifying, overhead, proof_ms, indexing, without, [*findings, *wrong, *also_wrong])


def _write(path: Path, records: int) -> float:
    with SealedFile(path, stream=STREAM, kms=f"file:{path.with_name('kek')}") as log:
        log.trust_policy().save(path.with_name("policy.json"))
        for _ in range(records // MANY):
            log.append_many([RECORD] * MANY)
    return _peak_mib()


def _verify(path: Path, records: int) -> tuple[float, list[str]]:
    with Verifier(TrustPolicy.load(path.with_name("policy.json"))) as verifier:
        report = verifier.verify(path, expect_closed=True)
    findings = [each.message for each in report.errors]
    if report.size < records:
        findings.append(f"{report.size} records")
    return _peak_mib(), findings


def _prove(path: Path, records: int) -> tuple[float, float, list[str]]:
    """Make the index, and prove records by it."""
    started = time.process_time()
    prove(path, 0)
    indexing = time.process_time() - started
    dice = random.Random(records)
    taken, wrong = [], []
    for number in (dice.randrange(records) for _ in range(PROOFS)):
        started = time.process_time()
        bundle = prove(path, number)
        taken.append(1000 * (time.process_time() - started))
        wrong += _wrong(path, number, bundle)
    return indexing, statistics.median(taken), wrong


def _prove_without(path: Path, records: int) -> tuple[float, list[str]]:
    """Prove a record without an index, and by one that somebody changed."""
    index = path.with_name(f"{path.name}.index")
    kept = bytearray(index.read_bytes())
    index.unlink()
    number = records // 3
    started = time.process_time()
    bundle = prove(path, number)
    taken = time.process_time() - started
    wrong = _wrong(path, number, bundle)
    kept[len(kept) // 2 :] = bytes(len(kept) - len(kept) // 2)
    index.write_bytes(kept)
    return taken, [*wrong, *_wrong(path, number, prove(path, number))]


def _wrong(path: Path, number: int, bundle: ProofBundle) -> list[str]:
    keys = [each.key for each in TrustPolicy.load(path.with_name("policy.json")).signers]
    try:
        bundle.verify(record_line(path, number), keys, origin=STREAM)
    except Exception as exc:
        return [f"record {number}: {exc}"]
    return []


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def warm_up(folder: Path) -> None:
    """Do everything once, in a child, so that no figure has what is done at the first time only."""
    in_child(measured, folder, MANY)
