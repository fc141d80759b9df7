"""A provider's way to its token: which one, how to log in, and the turns in which something is done with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, SupportsIndex, TypeVar

from keystead.errors import SystemShutdownError
from keystead.ports import Clock, Random
from keystead.providers.pkcs11.config import PinSource, Pkcs11KMSConfig
from keystead.providers.pkcs11.token import SDK, Module, OpenToken, TokenName, module_at
from keystead.runtime.clock import SystemClock
from keystead.runtime.off_loop import in_thread

T = TypeVar("T")

BATCH: Final = 128
"""Items that are done in one turn, so that others have theirs in between."""


class TokenAccess:
    """What ``Pkcs11KMSProvider`` is made of; see there."""

    def __init__(
        self,
        config: Pkcs11KMSConfig | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        random: Random = os.urandom,
        clock: Clock | None = None,
    ) -> None:
        config = config or Pkcs11KMSConfig()
        SDK.require()
        self._path = config.module_path(environ)
        self._wanted = TokenName(config.token_label, config.token_serial, config.token_manufacturer, config.token_model)
        self._pins = PinSource(config)
        self._timeout_s = config.timeout_s
        self._allow_extractable = config.allow_extractable
        self._limit = config.messages_per_key
        self._random = random
        self._clock = clock or SystemClock()
        self._module: Module | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path}, {self._wanted})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a PIN and cannot be pickled or copied; make one in each process")

    async def aclose(self) -> None:
        """Let go of the token; the last provider of it that is closed ends the session and logs out. Idempotent."""
        self._is_closed = True
        module, self._module = self._module, None
        if module is not None:
            await module.release(self, timeout_s=self._timeout_s)

    async def _turn(self, operation: str, job: Callable[[OpenToken], T]) -> T:
        """Return what ``job`` returns, called with the token in a turn of its module."""
        if self._module is None and not self._is_closed:
            self._module = await in_thread(module_at, self._path)
        module = self._module
        if module is None or self._is_closed:
            raise SystemShutdownError("the provider pkcs11 was closed")
        return await module.run(
            operation, job, wanted=self._wanted, holder=self, pins=self._pins, timeout_s=self._timeout_s
        )

    async def _in_parts(
        self, operation: str, items: Sequence[bytes], job: Callable[[OpenToken, Sequence[bytes]], list[T]]
    ) -> list[T]:
        """Return what ``job`` makes of the items, so many in a turn; order kept."""

        def with_part(part: Sequence[bytes]) -> Callable[[OpenToken], list[T]]:
            return lambda token: job(token, part)

        done: list[T] = []
        for start in range(0, len(items), BATCH):
            done += await self._turn(operation, with_part(items[start : start + BATCH]))
        return done
