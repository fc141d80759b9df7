"""A relay that answers late: ``python -m soak.relay HOST:PORT SECONDS`` prints its port, and ends with its input.

What comes back from the service is held for so long, as a distance would; bytes and connections stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def relay(address: str, delay_s: float) -> Iterator[str]:
    """Run a relay in a process of its own; gives its ``host:port``, or ``address`` where there is nothing to delay."""
    if not delay_s:
        yield address
        return
    command = [sys.executable, "-m", "soak.relay", address, str(delay_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


async def _serve(host: str, port: int, delay_s: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, far_writer, 0.0), _pass_on(far_reader, writer, delay_s))

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # At once: connections that are cut off are what whoever ends a relay expects.
    os._exit(0)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass bytes on, each piece late by itself: pieces that follow each other do not wait for each other."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def read() -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                pieces.put_nowait((loop.time() + delay_s, piece))
        pieces.put_nowait((loop.time() + delay_s, b""))

    reading = asyncio.create_task(read())
    with contextlib.suppress(OSError):
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    writer.close()
    reading.cancel()


if __name__ == "__main__":
    where, _, number = sys.argv[1].rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(where, int(number), float(sys.argv[2])))
