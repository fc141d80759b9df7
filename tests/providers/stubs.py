"""Providers with less, or worse, than the fake KMS has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from keystead.errors import ProviderConnectionError
from keystead.model import EncryptedData
from keystead.testing import FakeKMS

Guarded = Any
"""A guard whose capabilities a test knows and mypy cannot."""

OUTAGE = ProviderConnectionError("the network is down")


class Bare:
    """A provider with nothing but what every provider needs."""

    def __init__(self, service: FakeKMS) -> None:
        self._service = service

    @property
    def provider_name(self) -> str:
        return "bare"

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        return await self._service.encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        return await self._service.decrypt(encrypted, context=context)


class Hanging(Bare):
    """Answers nothing until ``gate`` opens, and counts the calls that reached it."""

    def __init__(self, service: FakeKMS) -> None:
        super().__init__(service)
        self.gate = asyncio.Event()
        self.started = 0
        self.cancelled = 0

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().decrypt(encrypted, context=context)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so, for a minute at most; what it was waited for is for the test to assert."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)
