"""A load over HTTP: connections that are kept open, each of which sends its next request when it has its answer."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Final

PERCENTILES: Final = 100
ANSWER_S: Final = 60.0
"""How long an answer may take."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load saw: how long it took in all, each answer in milliseconds, and how many of them were refusals."""

    seconds: float
    taken_ms: tuple[float, ...]
    refused: int = 0

    @property
    def rate(self) -> float:
        """Return how many answers came a second."""
        return len(self.taken_ms) / self.seconds

    @property
    def p50_ms(self) -> float:
        return median(self.taken_ms)

    @property
    def p95_ms(self) -> float:
        return quantiles(self.taken_ms, n=PERCENTILES, method="inclusive")[94]


def graphql_request(query: str, variables: dict[str, Any], header: str) -> bytes:
    """Return a request as it is sent, with one header of its own."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    head = f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def send(port: int, requests: Sequence[bytes], *, connections: int) -> tuple[Load, list[Any]]:
    """Send the requests, in their order as connections are free; return what was seen, and the answers' JSON.

    Raises:
        RuntimeError: something was answered neither with 200 nor with 400, by which GraphQL refuses a document.
    """
    gc.collect()
    gc.disable()
    try:
        load, bodies = asyncio.run(_send(port, requests, connections))
    finally:
        gc.enable()
    return load, [json.loads(body) for body in bodies]


async def _send(port: int, requests: Sequence[bytes], connections: int) -> tuple[Load, list[bytes]]:
    opened = await asyncio.gather(*(Connection.open(port) for _ in range(connections)))
    bodies, taken = [b""] * len(requests), [0.0] * len(requests)
    waiting: Iterator[tuple[int, bytes]] = iter(enumerate(requests))

    async def work(connection: Connection) -> None:
        for number, request in waiting:
            begun = perf_counter()
            bodies[number] = await connection.ask(request)
            taken[number] = (perf_counter() - begun) * 1000

    started = perf_counter()
    await _all(work(connection) for connection in opened)
    seconds = perf_counter() - started
    for connection in opened:
        connection.close()
    return Load(seconds, tuple(taken)), bodies


async def _all(works: Iterable[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


class Connection:
    """One connection, and one request at a time on it: as little work as an answer can be read with."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a server of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            RuntimeError: the answer is neither 200 nor 400, or does not tell its length.
        """
        self._writer.write(request)
        async with asyncio.timeout(ANSWER_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            body = await self._reader.readexactly(length_of(head))
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")):
            raise RuntimeError(f"answered: {head.decode(errors='replace')}{body[:500].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close it."""
        self._writer.close()


def length_of(head: bytes) -> int:
    """Return how long the body below the head of an answer is.

    Raises:
        RuntimeError: it does not say.
    """
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError("an answer does not tell its length")
