"""A call to a KMS: its deadline, repetitions, error mapping and metrics, written once.

Repetitions are a loop of a few lines instead of stamina's: stamina waits on the event loop's own clock, draws its
jitter from the global generator and adds it to the pause, while here the clock is injected and the whole pause is drawn
at random (full jitter), so that clients of one outage do not come back together and tests need no waiting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from keystead import telemetry
from keystead.errors import (
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyRotationError,
    KMSError,
    PartialBatchError,
    ProviderConnectionError,
    SigningError,
)
from keystead.model import EncryptedData, Signature
from keystead.model.kms import A, under
from keystead.ports import Clock, KmsProvider, Random
from keystead.providers.retry import RetryBudget, pause_s
from keystead.runtime.clock import SystemClock
from keystead.runtime.off_loop import in_thread
from keystead.runtime.single_flight import SingleFlight
from keystead.runtime.turnstile import Turnstile

T = TypeVar("T")

_FOREIGN: Final[Mapping[str, type[KMSError]]] = {
    "encrypt": EncryptionError,
    "encrypt_batch": EncryptionError,
    "generate_data_key": EncryptionError,
    "rewrap": EncryptionError,
    "mend_wraps": EncryptionError,
    "decrypt": DecryptionError,
    "decrypt_foreign": DecryptionError,
    "decrypt_texts": DecryptionError,
    "rotate_key": KeyRotationError,
    "retire_version": KeyRotationError,
    "mac": SigningError,
    "mac_batch": SigningError,
    "sign": SigningError,
    "sign_batch": SigningError,
}
"""What an exception that is not ours becomes; for the other operations, and for OSError, ProviderConnectionError."""

_TURNSTILE: Final = Turnstile()
"""Of all providers: an SDK takes the loop up to some milliseconds to begin a call."""

_LATE: Final = "the deadline has passed"


class GuardedCalls:
    """Makes the calls of one provider instance; see ``GuardedProvider``."""

    _capabilities: ClassVar[Mapping[str, type]] = {}

    def __init__(
        self,
        provider: KmsProvider,
        instance: str,
        *,
        clock: Clock | None = None,
        deadline_s: float = 10.0,
        attempts: int = 3,
        random: Random = os.urandom,
    ) -> None:
        if not isinstance(instance, str) or not instance or ":" in instance:
            raise InvalidInputError("a provider instance's name is a text that is not empty and has no colon")
        if not deadline_s > 0 or attempts < 1:
            raise InvalidInputError("a provider's deadline is longer than zero, and it gets at least one attempt")
        self._provider = provider
        self._instance = instance
        self._clock = clock or SystemClock()
        self._deadline_s = deadline_s
        # Behind such a provider there are guards already, which repeat what may be repeated.
        self._attempts = 1 if getattr(provider, "guards_its_calls", False) else attempts
        self._random = random
        self._budget = RetryBudget()
        self._flights: SingleFlight[Any] = SingleFlight()
        for method, capability in self._capabilities.items():
            if isinstance(provider, capability):
                # On the object, not the class: isinstance with a runtime protocol looks for the attribute.
                setattr(self, method, getattr(self, f"_{method}"))

    def __repr__(self) -> str:
        return f"GuardedProvider({self._instance!r}, {self.provider_name})"

    @property
    def provider_name(self) -> str:
        """The provider's kind."""
        return self._provider.provider_name

    @property
    def instance(self) -> str:
        """The name records know this instance by."""
        return self._instance

    @property
    def provider(self) -> KmsProvider:
        """The provider inside, without the guard."""
        return self._provider

    async def _run(
        self,
        operation: str,
        call: Callable[[], Awaitable[T]],
        *,
        attempts: int | None = None,
        shared: Hashable | None = None,
    ) -> T:
        """Make the call within the deadline, repeating it where that may help.

        Args:
            shared: callers who give the same at the same time share one call.
        """
        own: Hashable = object() if shared is None else (operation, shared)
        with self._flights.board(own, lambda: self._repeat(operation, call, attempts or self._attempts)) as flight:
            if not await flight.landed(self._deadline_s):
                flight.given_up_for = _LATE
                raise ProviderConnectionError(
                    f"the provider {self._instance!r} did not answer {operation} within {self._deadline_s:g} s"
                )
            if flight.task.cancelled():
                raise ProviderConnectionError(f"the provider {self._instance!r} gave up {operation}: CancelledError")
            result: T = flight.task.result()
            return result

    async def _repeat(self, operation: str, call: Callable[[], Awaitable[T]], attempts: int) -> T:
        if not telemetry.is_loaded():
            await in_thread(telemetry.load)
        give_up_at = self._clock.monotonic() + self._deadline_s
        repetitions = 0
        while True:
            try:
                result = await self._attempt(operation, call)
            except KMSError as error:
                wait_s = max(pause_s(repetitions + 1, self._random), getattr(error, "retry_after_s", None) or 0.0)
                is_over = repetitions + 1 == attempts or self._clock.monotonic() + wait_s >= give_up_at
                if not error.retryable or is_over or not self._budget.take():
                    raise
            else:
                self._budget.succeeded(repetitions)
                return result
            await self._clock.sleep(wait_s)
            repetitions += 1

    async def _attempt(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        await _TURNSTILE.go_through()
        started, result = self._clock.monotonic(), "ok"
        try:
            return await call()
        except asyncio.CancelledError as exc:
            result = "deadline" if exc.args == (_LATE,) else "cancelled"
            raise
        except Exception as exc:
            error = self._ours(operation, exc)
            result = error.code
        finally:
            telemetry.kms_call(self._instance, operation, result, self._clock.monotonic() - started)
        # Outside the except block: a foreign exception must not travel on as the context of ours.
        raise error

    def _ours(self, operation: str, exc: Exception) -> KMSError:
        if isinstance(exc, PartialBatchError):
            return PartialBatchError(str(exc), [self._owned_result(result) for result in exc.results])
        if isinstance(exc, KMSError):
            return exc
        error = _FOREIGN.get(operation, ProviderConnectionError)
        if isinstance(exc, OSError):
            error = ProviderConnectionError
        return error(f"the provider {self._instance!r} failed {operation}: {type(exc).__name__}")

    def _owned(self, answer: A) -> A:
        """Return what the provider answered, under the instance's name."""
        return under(answer, self._instance)

    def _foreign(self, answer: A) -> A:
        """Return what is under the instance's name as the provider gave it: under its own."""
        return under(answer, self.provider_name)

    def _owned_result(self, result: object) -> object:
        return self._owned(result) if isinstance(result, EncryptedData | Signature) else result
