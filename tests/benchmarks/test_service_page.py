"""What the page tells of the key service, and what it is measured with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import documents, load, service_page
from benchmarks.load import Load, graphql_request, length_of
from benchmarks.service import OURS, THEIRS, Cell, ServiceFigures
from keystead.server.graphql.documents import MAX_TEXT

FACTS = {"date": "2030-01-01", "load when the run began": "0.0"}


def loads(*seconds: float) -> list[Load]:
    """Return rounds of a hundred answers, which take so long in all and as many milliseconds at most each."""
    return [Load(each, tuple(each * number / 100 for number in range(1, 101))) for each in seconds]


FASTER = Cell(loads(10.0, 30.0, 11.0), loads(15.0, 19.0, 90.0), loads(1.0))
SLOWER = Cell(loads(11.0, 33.0, 10.0), loads(900.0), loads(300.0))
FOUND = ServiceFigures({OURS: FASTER, THEIRS: SLOWER}, {"short": 2.0, "long": 51.0}, {"Node.js": "20.0.0"})


def met(figures: ServiceFigures) -> list[bool]:
    return [bar.is_met for bar in service_page.bars(figures)]


def test_services_are_compared_round_by_round() -> None:
    assert FOUND.rate_times() == pytest.approx(1.1)
    assert FOUND.p95_times() == pytest.approx(1 / 1.1)
    assert met(FOUND) == [True, True, True, False]
    assert met(replace(FOUND, cells={OURS: SLOWER, THEIRS: FASTER}))[:3] == [False, False, False]


def test_what_is_not_there_is_told_and_no_bar_is_passed_by_it() -> None:
    alone = ServiceFigures({OURS: FASTER}, {"short": 2.0}, {}, "no Node.js here")
    assert met(alone) == [False, False, True, True]
    assert service_page.section(alone, FACTS).count("no Node.js here") == 4
    nothing = ServiceFigures({}, {}, {}, "no PostgreSQL here")
    assert met(nothing) == [False, False]
    assert "no PostgreSQL here" in service_page.section(nothing, FACTS)


def test_a_burst_of_which_something_was_refused_is_told_of_and_not_passed() -> None:
    refusing = replace(FASTER, at_once=[replace(each, refused=2) for each in FASTER.at_once])
    figures = replace(FOUND, cells={OURS: refusing, THEIRS: SLOWER})
    assert met(figures)[2] is False
    assert "| **Keystead**, 6 of 400 refused |" in service_page.section(figures, FACTS)


def test_a_run_of_the_service_alone_replaces_its_section_and_nothing_else() -> None:
    new = service_page.section(FOUND, FACTS)
    page = f"# Benchmarks\n\n## Bars\n\nkept\n\n{service_page.TITLE}\n\nold\n\n## How\n\nkept too\n"
    after = service_page.replaced(page, new)
    assert after == page.replace(f"{service_page.TITLE}\n\nold", new.rstrip())
    assert service_page.replaced(after, new) == after
    assert service_page.replaced("# Benchmarks\n", new) == f"# Benchmarks\n\n{new.rstrip()}\n"


def test_hard_documents_are_no_longer_than_is_said_and_never_the_same() -> None:
    texts = documents.hard_documents()
    sizes = {name: len(documents.numbered(text, 7)) for name, text in texts.items()}
    too_long = [name for name, size in sizes.items() if size > MAX_TEXT]
    assert too_long == ["a document twice as long"]
    assert MAX_TEXT == documents.SIZE
    for text in texts.values():
        assert len({documents.numbered(text, number) for number in (0, 9, 10**7)}) == 3


def test_a_request_says_what_it_asks_and_how_long_it_is() -> None:
    sent = graphql_request("{ __typename }", {"a": "ü"}, "X-User: ada")
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"\r\nX-User: ada\r\n" in head
    assert length_of(head) == len(body)
    assert json.loads(body) == {"query": "{ __typename }", "variables": {"a": "ü"}}


def test_an_answer_without_a_length_is_not_read() -> None:
    with pytest.raises(RuntimeError, match="length"):
        load.length_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
