"""The process of a plugin: it listens at once, is opened beside that, and ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from keystead.config.sources import LoadedSettings
from keystead.ports import Clock
from keystead.runtime.clock import SystemClock
from keystead.server.kubernetes.calls import Calls
from keystead.server.kubernetes.names import keyring_of
from keystead.server.kubernetes.service import KeyService, opened_service
from keystead.server.kubernetes.socket import placed
from keystead.server.standing import Standing

log = logging.getLogger("keystead.server.kubernetes")

DRAIN_S: Final = 5.0
"""How long calls that run when the plugin ends have to come to theirs."""
MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a request: a ciphertext, and as many annotations as an API server takes."""
MOST_AT_ONCE: Final = 256
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", MOST_AT_ONCE),
    ("grpc.so_reuseport", 0),
)


async def serve(
    settings: LoadedSettings,
    path: Path,
    name: str,
    *,
    clock: Clock | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve the key ``name`` on the socket ``path`` until SIGTERM or SIGINT, or until ``stop`` is set.

    Raises:
        ConfigurationError: the socket cannot be had.
        InvalidInputError: no name of a key.
        Exception: why the service can never open.
    """
    keyring_of(name)
    clock, stop = clock or SystemClock(), stop or asyncio.Event()
    standing: Standing[KeyService] = Standing(partial(opened_service, settings, name, clock), clock)
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MOST_AT_ONCE)
    server.add_generic_rpc_handlers((Calls(standing).handler(),))
    with _told_to_stop(stop):
        async with standing.opened() as opening:
            try:
                with placed(path, lambda first: _bind(server, first)):
                    await server.start()
                    log.info("the plugin listens on %s", path)
                    await _until(stop, opening)
            finally:
                standing.stop()
                await server.stop(DRAIN_S)
    log.info("the plugin has stopped")


def _bind(server: grpc.aio.Server, path: str) -> None:
    server.add_insecure_port(f"unix:{path}")


async def _until(stop: asyncio.Event, opening: asyncio.Task[KeyService]) -> None:
    """Wait until the plugin is told to stop, or can never open."""
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await waiting
    finally:
        waiting.cancel()


@contextmanager
def _told_to_stop(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` on SIGTERM and SIGINT; where signals cannot be taken, leave them."""
    loop, taken = asyncio.get_running_loop(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except (ValueError, RuntimeError, NotImplementedError):
            continue  # not the main thread
        taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
