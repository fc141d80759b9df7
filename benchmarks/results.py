"""What a run found, and the bars it is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.django import BAR as DJANGO_BAR
from benchmarks.django import ROWS as DJANGO_ROWS
from benchmarks.django import DjangoFigures
from benchmarks.fapilog import BAR as FAPILOG_BAR
from benchmarks.fapilog import FapilogFigures
from benchmarks.ledger import BARS, PEER_BARS, LogFigures
from benchmarks.ledger import FLOOR as LOG_FLOOR
from benchmarks.operations import IMPORT_BAR_MS, Operations
from benchmarks.parquet import BAR as PARQUET_BAR
from benchmarks.parquet import EXPLICIT, ParquetFigures
from benchmarks.reencryption import BATCH_BAR, ORM_BAR, PART_BARS, VALUE_SIZE, FieldFigures
from benchmarks.service import ServiceFigures
from benchmarks.subjects import FLOOR, OURS, Absent, Subject
from benchmarks.timing import Sample

SIZES: Final = {64: "64 B", 1024: "1 KiB", 16384: "16 KiB"}
ENCRYPT: Final = "encrypt"
DECRYPT: Final = "decrypt"
RATIO_BAR: Final = 1.9
TIME_BAR_NS: Final = 1000

Cell = tuple[int, str]
"""Size of the plaintext in bytes, and ``encrypt`` or ``decrypt``."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One requirement, what was seen, and whether it holds."""

    requirement: str
    seen: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Results:
    """Everything of one run. ``samples`` has a sample per cell and subject, ``sizes`` the output of 64 bytes."""

    machine: Mapping[str, str]
    rounds: int
    subjects: list[Subject]
    absent: list[Absent]
    samples: Mapping[Cell, Mapping[str, Sample]]
    sizes: Mapping[str, int]
    operations: Operations
    fields: FieldFigures
    log: LogFigures
    fapilog: FapilogFigures
    parquet: ParquetFigures
    django: DjangoFigures
    service: ServiceFigures

    def sample(self, cell: Cell, name: str) -> Sample:
        return self.samples[cell][name]

    def ratio(self, cell: Cell, name: str) -> float:
        return self.sample(cell, name).ratio_to(self.sample(cell, FLOOR))

    def bars(self) -> list[Bar]:
        return list(self._bars())

    def _bars(self) -> Iterator[Bar]:
        for operation in (ENCRYPT, DECRYPT):
            ratio = self.ratio((64, operation), OURS)
            yield Bar(
                f"`local_{operation}` at most {RATIO_BAR} times the floor, 64 B", f"{ratio:.2f}", ratio <= RATIO_BAR
            )
        for operation in (ENCRYPT, DECRYPT):
            ours, floor = self.sample((64, operation), OURS).median_ns, self.sample((64, operation), FLOOR).median_ns
            yield Bar(
                f"`local_{operation}` under {TIME_BAR_NS} ns, 64 B",
                f"{ours:.0f} ns, where the bare call takes {floor:.0f} ns",
                ours < TIME_BAR_NS,
            )
        for subject in self.subjects:
            if subject.is_rival:
                yield self._faster(subject.name, (ENCRYPT,) if subject.only_encrypt_is_held else (ENCRYPT, DECRYPT))
        for absent in self.absent:
            yield Bar(f"faster than {absent.name}", absent.reason, False)
        taken = self.operations.import_ms
        yield Bar(f"`import keystead` under {IMPORT_BAR_MS:.0f} ms", f"{taken:.1f} ms", taken < IMPORT_BAR_MS)
        yield from self._field_bars()
        yield from self._log_bars()
        yield from self._fapilog_bars()
        told = f"a Parquet file, written under keyrings: at least {PARQUET_BAR} times as fast as by {EXPLICIT}"
        if self.parquet.absent:
            yield Bar(told, self.parquet.absent, False)
        else:
            yield Bar(told, f"{self.parquet.part():.2f}", self.parquet.part() >= PARQUET_BAR)
            part = self.parquet.part_of_dataset()
            told = (
                f"a dataset of Parquet files, encrypted in bulk: at least {PARQUET_BAR} times as fast as by {EXPLICIT}"
            )
            yield Bar(told, f"{part:.2f}", part >= PARQUET_BAR)
        yield from self._django_bars()

    def _django_bars(self) -> Iterator[Bar]:
        told = f"Django's `bulk_create` of {DJANGO_ROWS} rows with an encrypted unique column"
        if self.django.absent:
            yield Bar(told, self.django.absent, False)
            return
        for key in self.django.inserted:
            times = self.django.times(key)
            yield Bar(
                f"{told}, {key}: at most {DJANGO_BAR} times the same in clear", f"{times:.2f}", times <= DJANGO_BAR
            )
        opened = self.django.decryptions
        yield Bar("Django lists rows without a decryption", f"{opened} decryptions", opened == 0)

    def _field_bars(self) -> Iterator[Bar]:
        ratio = self.fields.ratio
        yield Bar(
            f"`encrypt_many` at most {BATCH_BAR} times the floor a field, {VALUE_SIZE} B",
            f"{ratio:.2f}",
            ratio <= BATCH_BAR,
        )
        for each in self.fields.passes:
            bar = PART_BARS[each.database]
            yield Bar(
                f"re-encryption at {bar:.0%} of the same reads and writes without cryptography, {each.database}",
                f"{each.part:.0%}",
                each.part >= bar,
            )
            faster = each.ours / each.orm
            yield Bar(
                f"re-encryption {ORM_BAR:.0f} times as fast as load, assign, commit, {each.database}",
                f"{faster:.0f} times",
                faster >= ORM_BAR,
            )
        for database, reason in self.fields.absent.items():
            yield Bar(f"re-encryption on {database}", reason, False)

    def _log_bars(self) -> Iterator[Bar]:
        for what, least in BARS.items():
            seen = self.log.part(what)
            yield Bar(f"a log, {what}: at least {least} times as fast as {LOG_FLOOR}", f"{seen:.2f}", seen >= least)
        for what, (peer, least) in PEER_BARS.items():
            requirement = f"a log, {what}: at least {least:.0f} times as fast as {peer}"
            if self.log.absent:
                yield Bar(requirement, self.log.absent, False)
            else:
                seen = self.log.times(what, peer)
                yield Bar(requirement, f"{seen:.1f} times", seen >= least)

    def _fapilog_bars(self) -> Iterator[Bar]:
        found = self.fapilog
        for requirement, times in (
            (f"fapilog's worker: a sealed record is in its file {FAPILOG_BAR:.0f} times as fast", found.whole_times),
            (f"fapilog's worker: sealing adds {FAPILOG_BAR:.0f} times less time", found.added_times),
        ):
            told = f"{requirement} as by fapilog-tamper"
            if found.absent:
                yield Bar(told, found.absent, False)
            else:
                yield Bar(told, f"{times():.1f} times", times() >= FAPILOG_BAR)

    def _faster(self, name: str, operations: tuple[str, ...]) -> Bar:
        factors = [
            self.sample((size, operation), name).ratio_to(self.sample((size, operation), OURS))
            for size in SIZES
            for operation in operations
        ]
        what = "encrypts faster than" if operations == (ENCRYPT,) else "faster than"
        return Bar(
            f"{what} {name}, all sizes", f"{min(factors):.2f} to {max(factors):.2f} times as fast", min(factors) > 1
        )
