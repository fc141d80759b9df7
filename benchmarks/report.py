"""The page docs/benchmarks.md, written from one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks import django, fapilog, ledger, parquet, service_page
from benchmarks.markdown import bar_table, table
from benchmarks.operations import Line
from benchmarks.reencryption import ROWS, VALUE_SIZE
from benchmarks.results import DECRYPT, ENCRYPT, SIZES, Cell, Results
from benchmarks.subjects import FLOOR, OURS
from benchmarks.timing import Sample
from keystead.fields import BATCH_ROWS

INTRODUCTION: Final = """\
# Benchmarks

`make bench` measures everything on this page in one run and writes it. It needs no network once its environment,
`.venv-bench`, is made, and prefers Python 3.13, for which every library compared has a package.

![Time per message by library](assets/benchmarks.svg)
"""
METHOD: Final = """\
## How it is measured

Each of {rounds} rounds times every library at every size once, in an order drawn anew, about {cell_ms:g} ms a cell,
with the garbage collector off. A time is the median over the rounds, in CPU time of the process: nothing in the tables
of messages and lookups waits, so it is what a clock on the wall shows on an idle machine. Streams, start, rotation
and re-encryption are wall-clock time; the parts of the latter are medians over pairs of runs, one after the other.

The figure in brackets is the ratio to the floor: the median of the ratios *within* each round, so that a slow spell of
the machine counts for both sides; it may differ a little from the quotient of two medians. The floor is
`AESGCM.encrypt(nonce, data, aad)` with nonce and 26 bytes of AAD ready: the least an envelope with a header over this
cipher can cost in Python. Calls are spelled out as a caller writes them; the loop around them is counted, and so is
whatever a library does now and then, such as refilling nonces.

"""
FAIRNESS: Final = """\

The rows do not all do the same, and this table is not a formality: Asherah wraps a fresh key for every row, FraiseQL
authenticates no header and cannot decrypt after a restart, the AWS Encryption SDK commits to its keys. A library that
is faster at less, or slower at more, is not thereby better or worse.
"""

PROCESSORS: Final = """
Four kinds of them depend on the machine more than on Keystead. The best closure in Python around the bare call takes
1.3 times its time on a Python that was built with optimisation and 1.6 times on one that was not, so that staying
under 1000 ns needs a bare call of about 650 or 600 ns or less. At 16 KiB nearly all of the time is the cipher: a
library on BoringSSL, as Tink, is then as much ahead or behind as its AES is on that processor. Runs on two machines,
with bare calls of 1698 ns and 789 ns, had Keystead 1.14 times as fast as Tink at its closest size on the first, and
0.88 times on the second. And where the C library asks the kernel for randomness by a system call, each `os.urandom`
costs half as much as the cipher, which Keystead saves by drawing nonces in bulk. glibc 2.41 and newer need no system
call: on Debian 13 FraiseQL, with no header to authenticate, encrypted 1.05 to 1.1 times as fast as Keystead. A Python
that was built with optimisation also speeds up fapilog-tamper's verifier more than Keystead's, most of whose time is
hashing: 3.7 and 3.8 times as fast were seen there, where a Python without it had 4.2."""


def page(results: Results, *, cell_ms: float) -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        [
            INTRODUCTION,
            "## Time per message\n",
            *_messages(results),
            "\n" + _noise(results),
            "## What each row does\n",
            *_notes(results),
            FAIRNESS,
            "## Bars\n",
            "Keystead holds itself to these; a run reports them and fails only on errors.\n",
            *bar_table(results.bars()),
            PROCESSORS,
            "\n## Everything else\n",
            *_lines("lookups and hashes", results.operations.lookups),
            "",
            *_lines("streams, 64 MiB", results.operations.streams),
            "",
            *_lines("start and rotation", results.operations.start),
            "",
            *_fields(results),
            "",
            *_log(results.log),
            "",
            *_fapilog(results.fapilog),
            "",
            *_parquet(results.parquet),
            "",
            *_django(results.django),
            "",
            service_page.section(results.service, results.machine),
            METHOD.format(rounds=results.rounds, cell_ms=cell_ms),
            *table(["", ""], [[name, value] for name, value in results.machine.items()]),
            "",
        ]
    )


def _messages(results: Results) -> Iterator[str]:
    cells: list[Cell] = [(size, operation) for size in SIZES for operation in (ENCRYPT, DECRYPT)]
    rows = []
    for subject in results.subjects:
        figures = [
            f"{_ns(results.sample(cell, subject.name).median_ns)} ({_ratio(results.ratio(cell, subject.name))})"
            for cell in cells
        ]
        rows.append([f"**{subject.name}**" if subject.name.startswith(OURS) else subject.name, *figures])
    rows += [[absent.name, absent.reason, *[""] * (len(cells) - 1)] for absent in results.absent]
    yield "Nanoseconds, and in brackets the ratio to the floor in the same run.\n"
    yield from table(
        ["", *(f"{SIZES[size]} {operation}" for size, operation in cells)], rows, align="|---|" + "--:|" * len(cells)
    )


def _notes(results: Results) -> Iterator[str]:
    rows = [[subject.name, f"{results.sizes[subject.name]} B", subject.note] for subject in results.subjects]
    rows += [[absent.name, "", absent.reason] for absent in results.absent]
    return table(["", "64 B become", "what its time buys"], rows)


def _noise(results: Results) -> str:
    floors = {cell: samples[FLOOR] for cell, samples in results.samples.items()}
    spread = max(sample.spread for sample in floors.values())
    best = floors[64, ENCRYPT].best_ns
    ours = results.sample((64, ENCRYPT), OURS).best_ns
    return (
        f"How quiet the machine was: the middle half of the floor's rounds lies within {spread:.0%} of its median at "
        f"worst. In the best round at 64 B the floor took {_ns(best)} ns and `local_encrypt` {_ns(ours)} ns.\n"
    )


def _lines(title: str, lines: Sequence[Line]) -> Iterator[str]:
    return table([title, "median"], [[line.what, line.figure] for line in lines], align="|---|--:|")


def _fields(results: Results) -> Iterator[str]:
    found = results.fields
    yield "## Encrypted fields\n"
    yield (
        f"A value of {VALUE_SIZE} bytes through `encrypt_many`, with type, context and envelope, takes "
        f"{_ns(found.encrypt_many_ns)} ns, where the bare call takes {_ns(found.floor_ns)} ns.\n"
    )
    yield (
        f"Rows a second of a table of {_ns(ROWS)}, in batches of {_ns(BATCH_ROWS)}: re-encrypted by one worker; read "
        "and written by compare-and-swap in the same batches without cryptography; and in the loop that is written "
        "without this, which loads an object, assigns and commits.\n"
    )
    rows = [[each.database, _ns(each.ours), _ns(each.floor), _ns(each.orm)] for each in found.passes]
    rows += [[database, reason, "", ""] for database, reason in found.absent.items()]
    yield from table(["", "re-encryption", "without cryptography", "loop"], rows, align="|---|--:|--:|--:|")


def _log(found: ledger.LogFigures) -> Iterator[str]:
    yield "## A sealed log\n"
    yield (
        f"Records of {len(ledger.RECORD)} bytes, in nanoseconds each, and in brackets how fast that is beside the "
        "first row in the same run. Sealing counts everything up to the file: tag, chain, tree, line, writing.\n"
    )
    rows = [[what, f"{_ns(each.median_ns)} ({found.part(what):.2f})"] for what, each in found.samples.items()]
    rows += [["fapilog-tamper", found.absent]] if found.absent else []
    yield from table(["", "a record"], rows, align="|---|--:|")


def _fapilog(found: fapilog.FapilogFigures) -> Iterator[str]:
    yield "## Sealing within fapilog\n"
    yield (
        f"A record through fapilog's worker, in batches of {fapilog.BATCH}, in nanoseconds; and what its seal adds to "
        "the same record on the same way without one. A sink that drops does nothing, which is the least that "
        "fapilog-tamper can write to; Keystead's sink serialises, seals and writes its file in every row.\n"
    )
    rows = []
    for what, each in found.samples.items():
        added = _ns(found.added(what).median_ns) if what in fapilog.PAIRS else ""
        rows.append([what, _ns(each.median_ns), added])
    rows += [["fapilog-tamper", found.absent, ""]] if found.absent else []
    yield from table(["", "a record", "its seal"], rows, align="|---|--:|--:|")


def _parquet(found: parquet.ParquetFigures) -> Iterator[str]:
    yield "## A Parquet file\n"
    yield (
        f"A table of {_ns(parquet.ROWS)} rows with two columns of text and two of numbers, written to a file and read "
        "from it, in milliseconds of processor time. With an explicit key pyarrow encrypts everything under that one.\n"
    )
    rows = [[what, _ms(each), _ms(found.read[what])] for what, each in found.write.items()]
    rows += [["pyarrow", found.absent, ""]] if found.absent else []
    yield from table(["", "written", "read"], rows, align="|---|--:|--:|")
    yield (
        f"A plain dataset of {parquet.FILES} such files, read and encrypted into another folder by row groups, "
        "likewise.\n"
    )
    yield from table(["", "a dataset"], [[what, _ms(each)] for what, each in found.dataset.items()], align="|---|--:|")


def _django(found: django.DjangoFigures) -> Iterator[str]:
    yield "## Rows of a Django model\n"
    yield (
        f"{_ns(django.ROWS)} objects of a model with six plain columns and a unique one, in an SQLite database in "
        "memory: inserted by `bulk_create`, and listed, in milliseconds of processor time.\n"
    )
    rows = [
        [key, what, _ms(each), _ms(found.listed[key][what])]
        for key, pair in found.inserted.items()
        for what, each in pair.items()
    ]
    rows += [["Django", found.absent, "", ""]] if found.absent else []
    yield from table(["", "", "inserted", "listed"], rows, align="|---|---|--:|--:|")


def _ms(sample: Sample) -> str:
    return f"{sample.median_ns / 1e6:.1f}"


def _ns(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
