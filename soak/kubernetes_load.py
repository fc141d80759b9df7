"""API servers that keep plugins busy, and note whatever is not as it should be.

Each asks its own plugin for its status, encrypts as an API server does when it is told of a key, and has every plugin
decrypt: what was written just now, and what was kept from before.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

KEY: Final = "cluster"
KEPT: Final = 2_000
TIMEOUT_S: Final = 2.0
SETTLED: Final = 600
"""How often a plugin is asked, before and after the load, whether it is healthy, ten times a second."""
QUIET: Final = 500
"""Secrets that are encrypted and decrypted, one after the other, before anything else happens."""
_EXPLAINED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})


class Kept(NamedTuple):
    """A plaintext, and what became of it."""

    plaintext: bytes
    ciphertext: bytes
    key_id: str
    annotations: dict[str, bytes]


@dataclass
class Seen:
    """What the API servers have seen."""

    answers: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    wrong: int = 0
    mismatched: int = 0
    ambiguous: int = 0
    outages_told: int = 0
    longest_away_s: float = 0.0
    kept_at_end: int = 0
    read_at_end: int = 0
    p95_ms: float = 0.0
    quiet_p95_ms: float = 0.0
    key_ids: set[str] = field(default_factory=set)


def load(paths: list[Path], folder: Path) -> Seen:
    """Ask until ``folder`` has a file ``stop``; then read everything that was kept by every plugin."""
    return asyncio.run(_Load(paths, folder).run())


class _Load:
    def __init__(self, paths: list[Path], folder: Path) -> None:
        self._folder = folder
        self._seen = Seen()
        self._kept: list[Kept] = []
        self._times: list[float] = []
        self._paths = paths
        self._clients: list[_Client] = []

    async def run(self) -> Seen:
        self._clients = [_Client(path) for path in self._paths]
        # A plugin listens before it is open, and the key is made by the first that opens.
        for client in self._clients:
            await self._until_healthy(client)
        self._seen.quiet_p95_ms = await self._time_calls(self._clients[0])
        (self._folder / "loading").touch()
        await asyncio.gather(*(self._serve(client) for client in self._clients))
        await self._read_everything()
        for client in self._clients:
            await client.channel.close()
        seen = self._seen
        seen.ambiguous = len(seen.key_ids) - len({key_id.rpartition("/")[2] for key_id in seen.key_ids})
        seen.p95_ms = _p95_ms(self._times)
        return seen

    async def _time_calls(self, client: _Client) -> float:
        """Return how long 95 of a hundred calls take at most while nothing else happens, in milliseconds."""
        told = await self._healthy(client) or ""
        await self._write(client, told)
        self._times.clear()
        for _ in range(QUIET):
            await self._write(client, told)
            await self._read(client, self._kept[-1])
        return _p95_ms(self._times)

    async def _serve(self, client: _Client) -> None:
        """Be the API server beside one plugin."""
        healthy_at = time.monotonic()
        was_told = False
        while not (self._folder / "stop").exists():
            told = await self._healthy(client)
            if told is None:
                await asyncio.sleep(0.02)
                continue
            if not told:
                self._seen.outages_told += not was_told
                was_told = True
                await asyncio.sleep(0.02)
                continue
            self._seen.longest_away_s = max(self._seen.longest_away_s, time.monotonic() - healthy_at)
            healthy_at, was_told = time.monotonic(), False
            self._seen.key_ids.add(told)
            await self._write(client, told)
            if self._kept:
                await self._read(client, random.choice(self._kept))
            await asyncio.sleep(0)

    async def _healthy(self, client: _Client) -> str | None:
        """Return the key id that a healthy status tells; empty for another, None where nobody answers."""
        answer = await self._ask(client, "Status")
        if answer is None:
            return None
        return answer.key_id if answer.healthz == "ok" else ""

    async def _write(self, client: _Client, told: str) -> None:
        plaintext = os.urandom(32)
        answer = await self._ask(client, "Encrypt", plaintext=plaintext)
        if answer is None:
            return
        self._seen.mismatched += answer.key_id != told
        made = Kept(plaintext, answer.ciphertext, answer.key_id, dict(answer.annotations))
        if len(self._kept) < KEPT:
            self._kept.append(made)
        else:
            self._kept[random.randrange(KEPT)] = made
        for other in self._clients:
            await self._read(other, made)

    async def _read(self, client: _Client, kept: Kept) -> bool:
        given = {"ciphertext": kept.ciphertext, "key_id": kept.key_id, "annotations": kept.annotations}
        answer = await self._ask(client, "Decrypt", **given)
        if answer is None:
            return False
        self._seen.wrong += answer.plaintext != kept.plaintext
        return bool(answer.plaintext == kept.plaintext)

    async def _ask(self, client: _Client, call: str, **given: Any) -> Any:
        """Return an answer; None for a refusal, which is noted where nothing explains it."""
        import grpc

        begun = time.monotonic()
        try:
            answer = await client.calls[call](client.requests[call](**given), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            code = exc.code().name
            self._seen.answers[code] += 1
            if code not in _EXPLAINED:
                self._seen.refused.add(f"{call} {code}: {exc.details()}")
            return None
        self._times.append(time.monotonic() - begun)
        self._seen.answers[call] += 1
        return answer

    async def _read_everything(self) -> None:
        for client in self._clients:
            await self._until_healthy(client)
            self._seen.kept_at_end += len(self._kept)
            for kept in self._kept:
                self._seen.read_at_end += await self._read(client, kept)

    async def _until_healthy(self, client: _Client) -> None:
        for _ in range(SETTLED):
            if await self._healthy(client):
                return
            await asyncio.sleep(0.1)


def _p95_ms(seconds: list[float]) -> float:
    return 1000 * statistics.quantiles(seconds, n=20)[-1]


class _Client:
    """The calls of one plugin."""

    def __init__(self, path: Path) -> None:
        import grpc

        from keystead.server.kubernetes import kms_v2_pb2
        from keystead.server.kubernetes.calls import SERVICE

        # What was sent to a plugin that died is never sent to the one after it.
        options = [("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
        options += [("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.aio.insecure_channel(f"unix:{path}", options=options)
        self.requests = {name: getattr(kms_v2_pb2, f"{name}Request") for name in ("Status", "Encrypt", "Decrypt")}
        self.calls = {
            name: self.channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=getattr(kms_v2_pb2, f"{name}Response").FromString,
            )
            for name in self.requests
        }
