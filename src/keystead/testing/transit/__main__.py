"""``python -m keystead.testing.transit``: see the package."""

from __future__ import annotations

import argparse
import signal
import sys

from keystead.errors import KMSError
from keystead.testing.transit.server import transit_server

_TOLD = "# in memory, for tests alone: every key is forgotten when this ends (Ctrl-C)"


def main() -> int:
    """Serve until interrupted; print what a client of Vault reads from its environment."""
    parser = argparse.ArgumentParser(
        prog="python -m keystead.testing.transit", description="A server that speaks Vault's Transit, for tests."
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; any free one without it")
    port = parser.parse_args().port
    ends = {signal.SIGINT, signal.SIGTERM}
    # Before the thread is: it and whatever it starts leave them to us.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with transit_server(port) as server:
            sys.stdout.write(f"{_TOLD}\nexport VAULT_ADDR={server.url}\nexport VAULT_TOKEN={server.token}\n")
            sys.stdout.flush()
            signal.sigwait(ends)
    except KMSError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
