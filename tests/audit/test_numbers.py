"""Sets of numbers as ranges, and ids that only grow."""

from __future__ import annotations

import random
from datetime import timedelta

from keystead.ledger.audit.entries import EntryIds
from keystead.ledger.audit.numbers import Numbers
from tests.fakes.clock import FakeClock


def test_numbers_in_any_order_are_the_set_that_they_are() -> None:
    draw = random.Random(1)
    for _ in range(200):
        wanted: set[int] = set()
        numbers = Numbers()
        for _ in range(40):
            if draw.random() < 0.7:
                number = draw.randrange(30)
                assert numbers.add(number) is (number not in wanted)
                wanted.add(number)
            else:
                first = draw.randrange(30)
                last = first + draw.randrange(5)
                numbers.add_range(first, last)
                wanted |= set(range(first, last + 1))
            if draw.random() < 0.05:
                below = draw.randrange(35)
                numbers.drop_below(below)
                wanted = {number for number in wanted if number >= below}
            assert {number for number in range(40) if number in numbers} == wanted
            limit = draw.randrange(40)
            within = {n for first, last in numbers.ranges(limit) for n in range(first, last + 1)}
            holes = {n for first, last in numbers.holes(limit) for n in range(first, last + 1)}
            assert within == {number for number in wanted if number < limit}
            assert holes == set(range(limit)) - wanted


def test_ranges_touch_nowhere() -> None:
    numbers = Numbers()
    for number in (1, 3, 2, 7, 5):
        numbers.add(number)
    assert numbers.ranges(100) == [[1, 3], [5, 5], [7, 7]]
    numbers.add_range(4, 6)
    assert numbers.ranges(6) == [[1, 5]]


def test_ids_grow_even_where_the_clock_is_set_back() -> None:
    clock = FakeClock()
    ids = EntryIds(lambda size: b"\xff" * size)
    drawn = [ids.draw(clock.now()) for _ in range(3)]
    clock.set(clock.now() - timedelta(days=1))
    drawn.append(ids.draw(clock.now()))
    clock.advance(timedelta(days=2))
    drawn.append(ids.draw(clock.now()))
    assert drawn == sorted(set(drawn))
    assert {each[6] >> 4 for each in drawn} == {7}
    assert {each[8] >> 6 for each in drawn} == {2}
