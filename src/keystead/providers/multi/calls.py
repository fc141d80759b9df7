"""Asking several KEKs: all at once, or one after the other until one answers; and which of their errors to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.ports import Clock

T = TypeVar("T")
Call: TypeAlias = Callable[[], Awaitable[T]]
Failures: TypeAlias = Mapping[str, KMSError]

_MOST_TELLING: Final[tuple[type[KMSError], ...]] = (
    DecryptionError,
    InvalidInputError,
    KeyStateError,
    KeyNotFoundError,
    ProviderAuthError,
    ConfigurationError,
    EncryptionError,
)


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What each of several answered, and how the others failed; by name."""

    results: dict[str, T] = field(default_factory=dict)
    failures: dict[str, KMSError] = field(default_factory=dict)

    def in_order(self, names: Iterable[str]) -> Answers[T]:
        """Return the same in the order of ``names``, whoever was the quicker."""
        order = list(names)
        return Answers(
            {name: self.results[name] for name in order if name in self.results},
            {name: self.failures[name] for name in order if name in self.failures},
        )


async def ask_all(calls: Mapping[str, Call[T]], *, needed: int = 0, patience_s: float | None = None) -> Answers[T]:
    """Make every call at once. Ends when all have ended, or as soon as ``needed`` successes are out of reach.

    Once there are ``needed`` successes the rest get ``patience_s`` more (real seconds; None: as long as they take), and
    who has not answered by then counts as failed. Whoever has not answered at the end is cancelled.
    """
    answers: Answers[T] = Answers()
    tasks = {_start(call): name for name, call in calls.items()}
    pending = set(tasks)
    now = asyncio.get_running_loop().time
    until: float | None = None
    try:
        while pending and len(calls) - len(answers.failures) >= needed:
            if until is None and patience_s is not None and len(answers.results) >= needed:
                until = now() + patience_s
            patience = None if until is None else max(0.0, until - now())
            done, _ = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                late = ProviderConnectionError("it had not answered when enough of the others had")
                answers.failures.update((tasks[task], late) for task in pending)
                break
            for task in done:
                _collect(answers, tasks[task], task)
            pending -= done
    finally:
        await _end(pending)
    return answers.in_order(calls)


async def ask_in_turn(calls: Mapping[str, Call[T]], *, clock: Clock, pause_s: float) -> Answers[T]:
    """Make the calls in their order until one succeeds, which is then the one result.

    The next call is made when one has failed, or has not answered for ``pause_s``. Whoever has not answered when one
    has is cancelled, and is neither a result nor a failure.
    """
    answers: Answers[T] = Answers()
    waiting = list(calls.items())
    running: dict[asyncio.Future[T], str] = {}
    pause: asyncio.Future[Any] | None = None
    try:
        while waiting or running:
            if waiting:
                name, call = waiting.pop(0)
                running[_start(call)] = name
                await _end({pause})
                pause = _start(lambda: clock.sleep(pause_s)) if waiting else None
            is_stalled = False
            while running and not is_stalled:
                await asyncio.wait({*running, *({pause} if pause else ())}, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    _collect(answers, running.pop(task), task)
                    if answers.results:
                        return answers
                    is_stalled = bool(waiting)
                is_stalled = is_stalled or (pause is not None and pause.done())
    finally:
        await _end({*running, pause})
    return answers


def most_telling(failures: Failures, what: str) -> KMSError:
    """Return one error for several: retryable if one of them is, else of the kind that says most.

    Its text is ``what`` and every failure behind the name of who failed.
    """
    told = f"{what}: " + "; ".join(f"{name}: {error}" for name, error in failures.items())
    retryable = [error for error in failures.values() if error.retryable]
    if retryable:
        waits = [error.retry_after_s for error in retryable if isinstance(error, ProviderConnectionError)]
        return ProviderConnectionError(told, retry_after_s=min((s for s in waits if s is not None), default=None))
    for kind in _MOST_TELLING:
        if any(isinstance(error, kind) for error in failures.values()):
            return kind(told)
    return KMSError(told)


def _start(call: Call[T]) -> asyncio.Future[T]:
    task = asyncio.ensure_future(call())
    task.add_done_callback(_mark_seen)
    return task


def _mark_seen(task: asyncio.Future[Any]) -> None:
    """Take note of an outcome that nobody waits for any more, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


def _collect(answers: Answers[T], name: str, task: asyncio.Future[T]) -> None:
    try:
        answers.results[name] = task.result()
    except KMSError as exc:
        answers.failures[name] = exc


async def _end(tasks: Collection[asyncio.Future[Any] | None]) -> None:
    """Cancel what is not over and wait until it is."""
    ending = [task for task in tasks if task is not None and not task.done()]
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending)
