"""The one thread of a module, without a module."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from keystead.errors import KMSError, ProviderConnectionError
from keystead.providers.pkcs11 import worker as pkcs11_worker
from keystead.providers.pkcs11.worker import ModuleWorker
from tests.providers.pkcs11.forking import in_child


class Gate:
    """A call that stays inside until it is let go."""

    def __init__(self) -> None:
        self.entered, self._leave = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        self._leave.wait(30)
        return "late"

    def open(self) -> None:
        self._leave.set()


@pytest.fixture
def worker() -> ModuleWorker:
    return ModuleWorker("test.so", at_exit=lambda: None)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


async def inside(worker: ModuleWorker, gate: Gate, timeout_s: float = 30.0) -> asyncio.Task[str]:
    task = asyncio.create_task(worker.run(gate, timeout_s=timeout_s))
    await asyncio.to_thread(gate.entered.wait, 30)
    return task


async def test_turns_are_taken_one_after_the_other_in_one_thread(worker: ModuleWorker) -> None:
    threads, order = set(), []

    def turn(number: int) -> None:
        threads.add(threading.get_ident())
        order.append(number)

    await asyncio.gather(*(worker.run(lambda n=n: turn(n), timeout_s=30) for n in range(100)))  # type: ignore[misc]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert order == list(range(100))
    assert worker.turns == 100


async def test_a_turn_raises_what_it_raised(worker: ModuleWorker) -> None:
    def fails() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError):
        await worker.run(fails, timeout_s=30)


async def test_the_callers_context_is_the_turns_own(worker: ModuleWorker) -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("caller")
    assert await worker.run(name.get, timeout_s=30) == "caller"


async def test_a_call_that_does_not_return_is_left_by_its_caller(worker: ModuleWorker, gate: Gate) -> None:
    with pytest.raises(ProviderConnectionError, match=r"has not returned from this call after 1\.?0? s") as caught:
        await worker.run(gate, timeout_s=1.0)
    assert caught.value.retryable


async def test_no_second_call_enters_while_one_does_not_return_and_its_caller_is_told_why(
    worker: ModuleWorker, gate: Gate
) -> None:
    entered: list[str] = []
    waiting = await inside(worker, gate)
    with pytest.raises(ProviderConnectionError, match="another call has been inside"):
        await worker.run(lambda: entered.append("second"), timeout_s=0.05)
    with pytest.raises(ProviderConnectionError, match="another call has been inside"):
        await worker.run(lambda: entered.append("third"), timeout_s=0.01)  # at once: it has been that long already
    gate.open()
    assert await waiting == "late"
    await worker.run(lambda: entered.append("fourth"), timeout_s=30)
    assert entered == ["fourth"]


async def test_a_turn_whose_caller_was_cancelled_before_it_began_is_never_taken(
    worker: ModuleWorker, gate: Gate
) -> None:
    taken: list[str] = []
    waiting = await inside(worker, gate)
    cancelled = asyncio.create_task(worker.run(lambda: taken.append("cancelled"), timeout_s=30))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.open()
    await waiting
    await worker.run(lambda: taken.append("next"), timeout_s=30)
    assert taken == ["next"]


async def test_a_caller_that_is_cancelled_leaves_at_once_and_the_call_goes_on(worker: ModuleWorker, gate: Gate) -> None:
    task = await inside(worker, gate)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    assert await worker.run(lambda: "next", timeout_s=30) == "next"


async def test_the_event_loop_goes_on_while_calls_wait(worker: ModuleWorker, gate: Gate) -> None:
    await inside(worker, gate)
    calls = [asyncio.create_task(worker.run(lambda: None, timeout_s=1.0)) for _ in range(100)]
    turns = 0
    while not all(call.done() for call in calls):
        await asyncio.sleep(0.001)
        turns += 1
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert turns > 10  # a loop that is blocked has one or two, and a busy machine fewer than a thousand
    assert all(isinstance(result, KMSError) for result in results)


def test_two_event_loops_share_a_worker(worker: ModuleWorker) -> None:
    found: list[int] = []

    def loop() -> None:
        found.append(asyncio.run(worker.run(threading.get_ident, timeout_s=30)))

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def run_apart(worker: ModuleWorker, call: Callable[[], int]) -> int:
    return asyncio.new_event_loop().run_until_complete(worker.run(call, timeout_s=10))


async def test_a_child_of_a_fork_has_a_thread_of_its_own(worker: ModuleWorker) -> None:
    await worker.run(lambda: None, timeout_s=30)
    assert await in_child(lambda: run_apart(worker, lambda: 7)) == 7
    assert await worker.run(lambda: 8, timeout_s=30) == 8


async def test_a_fork_waits_for_the_call_under_way(worker: ModuleWorker) -> None:
    ended: list[str] = []
    begun = threading.Event()

    def call() -> None:
        begun.set()
        time.sleep(0.1)
        ended.append("call")

    task = asyncio.create_task(worker.run(call, timeout_s=30))
    await asyncio.to_thread(begun.wait, 30)
    assert await in_child(lambda: len(ended)) == 1
    await task


async def test_a_child_of_a_fork_in_the_middle_of_a_call_does_not_use_the_module(
    worker: ModuleWorker, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pkcs11_worker, "FORK_WAIT_S", 0.01)
    task = await inside(worker, gate)

    def refused() -> int:
        try:
            return run_apart(worker, lambda: 1)
        except ProviderConnectionError as exc:
            return 7 if "forked" in str(exc) else 2

    assert await in_child(refused) == 7
    gate.open()
    assert await task == "late"
    assert await worker.run(lambda: 8, timeout_s=30) == 8


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


def test_a_turn_is_taken_at_the_interpreters_exit() -> None:
    done = run_program(
        "import asyncio\n"
        "from keystead.providers.pkcs11.worker import ModuleWorker\n"
        "worker = ModuleWorker('test.so', at_exit=lambda: print('left', flush=True))\n"
        "print(asyncio.run(worker.run(lambda: 'ran', timeout_s=30)), flush=True)\n"
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["ran", "left"], "")


def test_a_call_that_never_returns_does_not_keep_the_process_alive() -> None:
    done = run_program(
        "import asyncio, time\n"
        "from keystead.errors import ProviderConnectionError\n"
        "from keystead.providers.pkcs11 import worker as pkcs11_worker\n"
        "pkcs11_worker.EXIT_WAIT_S = 0.05\n"
        "worker = pkcs11_worker.ModuleWorker('test.so', at_exit=lambda: print('left'))\n"
        "try:\n"
        "    asyncio.run(worker.run(lambda: time.sleep(600), timeout_s=0.05))\n"
        "except ProviderConnectionError:\n"
        "    print('gave up', flush=True)\n"
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["gave", "up"], "")
