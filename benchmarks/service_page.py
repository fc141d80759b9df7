"""The section of docs/benchmarks.md about the key service, and the bars it is held to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final

from benchmarks.load import Load
from benchmarks.markdown import bar_table, table
from benchmarks.results import Bar
from benchmarks.servers import PROCESSES
from benchmarks.service import BURST, CONNECTIONS, OURS, READY, THEIRS, USERS, Cell, ServiceFigures

TITLE: Final = "## The key service"
BURST_BAR_MS: Final = 20.0
DOCUMENT_BAR_MS: Final = 50.0
FACTS: Final = ("date", "CPU", "cores", "load when the run began", "Python", "cryptography")
HARDEST: Final = 5
"""Documents that are shown."""

FAIRNESS: Final = """
Both services have {processes} processes and the same PostgreSQL, which does not wait for the disk; the load is the same
program. Apollo Server's is written for this page as the documented service does it, and is spared what slows it: it
parses a private key once, prepares its statements, and believes a header who calls. Its private keys are plain text in
their rows; it counts no guesses, keeps no audit trail, and takes a ciphertext as often as it comes. Keystead does what
it does by default, with an audit trail; its statements are prepared as well (`prepare_threshold` in the store's URL),
and its Argon2id is built for the processor, as [the guide](guides/operate-the-service.md#speed) advises, as Apollo
Server's comes. Argon2id takes 19 MiB and two passes in both, which is most of their time.

A burst begins with {ready} key pairs ready. Apollo Server's service makes a pair when it is asked for one, as the
documented one does. How long a summary of a million operations takes is measured by `make soak`.

`.venv-bench/bin/python -m benchmarks service` measures this section alone and writes it.
"""


def section(figures: ServiceFigures, facts: Mapping[str, str]) -> str:
    """Return the section as Markdown."""
    return "\n".join([TITLE + "\n", *_body(figures, facts), ""])


def replaced(page: str, new: str) -> str:
    """Return a page with its section about the key service replaced; at its end if it has none."""
    found = re.compile(rf"^{re.escape(TITLE)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if found.search(page) is None:
        return f"{page.rstrip()}\n\n{new.rstrip()}\n"
    return found.sub(lambda _: f"{new.rstrip()}\n\n", page).rstrip() + "\n"


def bars(figures: ServiceFigures) -> Iterator[Bar]:
    """Give the bars of the key service."""
    most, no_worse = f"at least as many verifications a second as {THEIRS}", f"their p95 no worse than {THEIRS}'s"
    if figures.absent:
        yield Bar(most, figures.absent, False)
        yield Bar(no_worse, figures.absent, False)
    else:
        rate, p95 = figures.rate_times(), figures.p95_times()
        yield Bar(most, f"{rate:.2f} times as many", rate >= 1)
        yield Bar(no_worse, f"{p95:.2f} times as long", p95 <= 1)
    if not figures.cells:
        return
    ours = figures.cells[OURS]
    burst, refused = _middle(ours.in_turn, lambda load: load.p95_ms), _refused(ours.at_once + ours.in_turn)
    # Of a hundred at the same moment the last wait for the others, however short each is: those are told of.
    what = f"`generateClientEncryptionKey`, {BURST} in a row with pairs ready: p95 under {BURST_BAR_MS:.0f} ms"
    yield Bar(what, f"{burst:.1f} ms{refused}", burst < BURST_BAR_MS and not refused)
    name, worst = max(figures.documents_ms.items(), key=lambda each: each[1])
    what = f"any document of 16 KB is validated within {DOCUMENT_BAR_MS:.0f} ms"
    yield Bar(what, f"{worst:.1f} ms at most: {name}", worst <= DOCUMENT_BAR_MS)


def _body(figures: ServiceFigures, facts: Mapping[str, str]) -> Iterator[str]:
    yield (
        f"Requests over HTTP by {CONNECTIONS} connections that are kept open, each of which sends its next one when it "
        f"has its answer; {USERS} users, each with a device and a passcode of its own. Medians over the rounds.\n"
    )
    yield from _verifications(figures)
    yield ""
    yield from _generated(figures)
    if figures.documents_ms:
        yield "\nThe hardest documents, on a service that does nothing else, until they are answered or refused.\n"
        hardest = sorted(figures.documents_ms.items(), key=lambda each: -each[1])[:HARDEST]
        rows = [[name, f"{taken_ms:.1f}"] for name, taken_ms in hardest]
        yield from table([f"of {len(figures.documents_ms)} documents", "ms"], rows, align="|---|--:|")
    yield ""
    yield from bar_table(bars(figures))
    yield FAIRNESS.format(processes=PROCESSES, ready=READY)
    told = {name: facts[name] for name in FACTS if name in facts}
    yield from table(["", ""], [[name, value] for name, value in (told | figures.versions).items()])


def _verifications(figures: ServiceFigures) -> Iterator[str]:
    def row(name: str, cell: Cell) -> list[str]:
        loads = cell.verified
        rate = _middle(loads, lambda load: load.rate)
        return [name, f"{rate:.1f}", _ms(loads, lambda load: load.p50_ms), _ms(loads, lambda load: load.p95_ms)]

    yield from _rows(figures, ["`verifyUserPasscode`", "a second", "p50, ms", "p95, ms"], row)


def _generated(figures: ServiceFigures) -> Iterator[str]:
    def row(name: str, cell: Cell) -> list[str]:
        ways = (cell.at_once, cell.in_turn)
        percentiles: tuple[Callable[[Load], float], ...] = (lambda load: load.p50_ms, lambda load: load.p95_ms)
        cells = [_ms(loads, of) for loads in ways for of in percentiles]
        return [f"{name}{_refused(cell.at_once + cell.in_turn)}", *cells]

    head = [f"{BURST} new devices", "at once: p50, ms", "p95, ms", "one after the other: p50, ms", "p95, ms"]
    yield from _rows(figures, head, row)


def _rows(figures: ServiceFigures, head: list[str], row: Callable[[str, Cell], list[str]]) -> Iterator[str]:
    rows = [row(f"**{name}**" if name == OURS else name, cell) for name, cell in figures.cells.items()]
    if figures.absent:
        rows.append([THEIRS, figures.absent, *[""] * (len(head) - 2)])
    yield from table(head, rows, align="|---|" + "--:|" * (len(head) - 1))


def _ms(loads: list[Load], of: Callable[[Load], float]) -> str:
    return f"{_middle(loads, of):.1f}"


def _refused(loads: list[Load]) -> str:
    """Return how many answers were refusals; nothing where none was."""
    refused, asked = sum(load.refused for load in loads), sum(len(load.taken_ms) for load in loads)
    return f", {refused} of {asked} refused" if refused else ""


def _middle(loads: list[Load], of: Callable[[Load], float]) -> float:
    return median(of(load) for load in loads)
