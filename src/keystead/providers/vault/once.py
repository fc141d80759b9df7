"""One thread does something while the others wait for it, and its failure is theirs too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from keystead.errors import KMSError, ProviderConnectionError

T = TypeVar("T")


class Once:
    """A lock for what several threads may want at the same time.

    Without sharing failures, a hundred calls that wait for one login would make a hundred logins that fail, each after
    its timeout.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._runs = 0
        self._failure: KMSError | None = None

    def run(self, found: Callable[[], T | None], make: Callable[[], T]) -> T:
        """Return what ``found`` returns, or else what ``make`` does, which one thread at a time is in."""
        seen = self._runs
        with self.lock:
            result = found()
            if result is not None:
                return result
            if self._runs != seen and self._failure is not None:
                raise _again(self._failure)
            self._runs += 1
            self._failure = None
            try:
                return make()
            except KMSError as exc:
                self._failure = _again(exc)
                raise


def _again(failure: KMSError) -> KMSError:
    """Return the same error without its traceback, which would keep its frames alive."""
    copy = type(failure)(*failure.args)
    if isinstance(failure, ProviderConnectionError) and isinstance(copy, ProviderConnectionError):
        copy.retry_after_s = failure.retry_after_s
    return copy
