"""How a plugin of fapilog makes itself heard: fapilog contains what plugins raise, and its diagnostics are off."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import ClassVar, Final

from keystead.errors import KMSError

log = logging.getLogger("keystead.fapilog")

AGAIN_AFTER_S: Final = 30.0
"""How long an alarm of one kind is not repeated."""


class SealedLogRefusedError(BaseException):
    """The plugin cannot seal, and fapilog was about to go on without it.

    It is no ``Exception``, since fapilog catches those while it loads plugins, says nothing, and writes records to
    stdout instead. It ends the start of an application that asked for sealed records and would not have got them.

    Attributes:
        reason: what is wrong; its text names the cure.
    """

    code: ClassVar[str] = "sealed_log_refused"

    def __init__(self, reason: KMSError) -> None:
        super().__init__(f"no record would be sealed: {reason}")
        self.reason = reason


class Alarm:
    """Says what goes wrong with one log: on stderr, to ``logging`` and to fapilog's diagnostics.

    All three, since each may be what does not work: ``logging`` may lead into fapilog and so into the log itself.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: dict[str, float] = {}

    def say(self, message: str, code: str) -> None:
        """Say ``message``, unless an alarm of the same code was said a short while ago. Raises nothing."""
        now = time.monotonic()
        if now - self._said.get(code, -AGAIN_AFTER_S) < AGAIN_AFTER_S:
            return
        self._said[code] = now
        told = f"the sealed log {self._name}: {message}"
        with contextlib.suppress(Exception):
            print(f"keystead: {told}", file=sys.stderr, flush=True)  # noqa: T201  # see the class
        with contextlib.suppress(Exception):
            if log.hasHandlers():
                log.error("%s", told, extra={"code": code})
        with contextlib.suppress(Exception):
            from fapilog.core import diagnostics

            diagnostics.warn("sealed", told, code=code)

    def is_over(self, code: str) -> None:
        """Forget that an alarm was said, so that the next one is."""
        self._said.pop(code, None)
