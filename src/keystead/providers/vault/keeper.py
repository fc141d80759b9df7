"""Keeps a token alive between calls: one timer of the event loop, and no task while nothing is due.

A provider that is seldom used would otherwise come back to a token whose time has passed. Logging in again mends that,
unless the secret id was good for one login.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Coroutine
from typing import Any, Protocol

from keystead.runtime import fork


class Renews(Protocol):
    """What a keeper looks after."""

    def renew_login(self) -> Coroutine[Any, Any, None]:
        """Renew the token if its time has come. Raises nothing."""


class Keeper:
    """Calls ``renew_login`` of its provider when the token is due, in the event loop that last used the provider."""

    def __init__(self, provider: weakref.ref[Renews]) -> None:
        self._provider = provider
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        fork.in_child(self._forget)

    def see(self, due_in_s: float | None) -> None:
        """Note in how many seconds the token is due, None for never; called after each call, in its loop."""
        loop = asyncio.get_running_loop()
        if self._is_stopped or due_in_s is None:
            return
        if self._timer is not None and self._loop is loop and self._timer.when() <= loop.time() + due_in_s + 0.001:
            return
        self._cancel()
        self._loop, self._timer = loop, loop.call_later(due_in_s, self._begin)

    def stop(self) -> None:
        """Renew no more; idempotent."""
        self._is_stopped = True
        self._cancel()
        if (task := self._task) is not None:
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _begin(self) -> None:
        self._timer = None
        if self._is_stopped or (provider := self._provider()) is None:
            return
        self._task = asyncio.get_running_loop().create_task(provider.renew_login(), name="keystead-vault-renew")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None

    def _cancel(self) -> None:
        timer, loop, self._timer = self._timer, self._loop, None
        if timer is not None and loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(timer.cancel)

    def _forget(self) -> None:
        self._loop = self._timer = self._task = None
