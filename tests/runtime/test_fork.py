from __future__ import annotations

import gc
import os
import threading

import pytest

from keystead.runtime import fork
from keystead.runtime.callbacks import Callbacks


class Renewed:
    """Counts how often it was told of a fork."""

    def __init__(self) -> None:
        self.told = 0
        fork.in_child(self.renew)

    def renew(self) -> None:
        self.told += 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_what_is_alive_is_told_once_in_the_child_and_never_in_the_parent() -> None:
    alive, gone = Renewed(), Renewed()
    del gone
    gc.collect()
    child = os.fork()
    if child == 0:
        os._exit(alive.told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert alive.told == 0


def test_what_is_gone_is_forgotten_and_what_is_alive_is_not() -> None:
    alive = [Renewed() for _ in range(300)]
    for _ in range(2000):
        Renewed()
    gc.collect()
    assert len(fork._CHILDREN) < 2000
    fork._CHILDREN.call()
    assert {one.told for one in alive} == {1}


def test_no_registration_is_lost_between_threads() -> None:
    kept: list[Renewed] = []
    threads = [threading.Thread(target=lambda: kept.extend(Renewed() for _ in range(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fork._CHILDREN.call()
    assert {one.told for one in kept} == {1}
    assert len(kept) == 4000


def test_none_is_lost_that_comes_while_garbage_is_collected() -> None:
    callbacks = Callbacks[None]()
    kept: list[Renewed] = []

    def add() -> None:
        kept.append(Renewed())
        callbacks.add(kept[-1].renew)

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and len(kept) % 2:
            add()

    before = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(50, 1000, 1000)
    try:
        for _ in range(9000):  # a list this long of pairs is not made without a collection
            add()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
    callbacks.call()
    assert {one.told for one in kept} == {1}
    assert len(kept) > 9000


class Broken:
    def renew(self) -> None:
        raise RuntimeError("what cannot be renewed")


def test_one_that_fails_keeps_none_of_the_others_from_being_told() -> None:
    callbacks, broken, others = Callbacks[None](), Broken(), [Renewed(), Renewed()]
    callbacks.add(others[0].renew)
    callbacks.add(broken.renew)
    callbacks.add(others[1].renew)
    with pytest.raises(RuntimeError, match="what cannot be renewed"):
        callbacks.call()
    assert [other.told for other in others] == [1, 1]
