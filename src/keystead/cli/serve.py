"""``keystead serve``: the key service."""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystead.cli.example import making
from keystead.cli.frame import Call, command, say, wrong_usage
from keystead.config.service import load_service
from keystead.errors.extras import needing

if TYPE_CHECKING:
    from fastapi import FastAPI

_DEVELOPMENT = """development: every caller is the one user named "dev", who may do everything, without a token.
Only programs of this machine are answered. Never serve people so."""
_EXAMPLE = """All of it is invented: keyrings, Transit keys, devices, tokens, an audit trail, people in example.db. It
is used a little, for an hour from each start. For keys of your own begin in another folder, and delete this one."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "serve")(serve)


def serve(
    call: Call,
    *,
    dev: Annotated[bool, typer.Option("--dev", help="Everybody is one user; this machine alone is answered.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = None,
    tls_cert: Annotated[str | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate, in PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its key, in PEM.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that serve.")] = 1,
    has_example: Annotated[
        bool,
        typer.Option(
            "--example/--no-example",
            help="With --dev in an empty folder, which gets a store: whether it has keys, devices and rows to look at.",
        ),
    ] = True,
) -> None:
    """Serve GraphQL to devices, REST and Transit to programs, and the console, until it is interrupted.

    With --dev an empty folder is made ready as by `keystead init`, and gets an example that is used a little for an
    hour, so that there is something to look at. A folder with anything in it is left as it is.
    """
    with needing("server", "the service needs {}"):
        import uvicorn  # noqa: F401

        from keystead.cli.example.now import using
        from keystead.server.app import Beside, create_app
        from keystead.server.development import HOSTS
        from keystead.server.logs import log_config
        from keystead.server.tls import tls_options
    flags: dict[str, Any] = {
        **call.flags,
        "server.host": host,
        "server.port": port,
        "server.tls_cert": tls_cert,
        "server.tls_key": tls_key,
    }
    loaded = load_service(call.config, flags=flags)
    server = loaded.settings.server
    beside: Beside | None = None
    if dev and server.host not in HOSTS:
        wrong_usage("--dev listens on this machine alone: leave --host out, or name 127.0.0.1 or ::1")
    if dev and workers > 1:
        wrong_usage("--dev serves with one process")
    if dev:
        if making.is_called_for(loaded, Path()):
            _begin(Path(), has_example=has_example)
            loaded = load_service(call.config, flags=flags)
        if has_example and (found := making.found_in(loaded)) is not None:
            beside = partial(using, example=found)
        say(_DEVELOPMENT)
        say(_console_at(server.host, server.port))
    from keystead.server.methods import PROTOCOL

    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "log_config": log_config(server.log_format),
        "access_log": False,
        "http": PROTOCOL,
        **tls_options(loaded),
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 20,
    }
    if workers == 1:
        _serve(create_app(loaded, is_development=dev, beside=beside), options)
        return
    # Each worker reads the settings itself: what was said here goes to it by its environment.
    said: dict[str, str | None] = {
        "KEYSTEAD_SERVER_HASHES": str(server.hashes or max(1, (os.cpu_count() or 1) // workers)),
        "KEYSTEAD_STORE": call.flags.get("store"),
        "KEYSTEAD_KMS": call.flags.get("kms"),
        "KEYSTEAD_CONFIG": call.config,
        # Read by the C library when a process starts: see docs/adr/0038.
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    }
    os.environ |= {name: value for name, value in said.items() if value is not None}
    _serve_by_several(workers, options)


def _begin(folder: Path, *, has_example: bool) -> None:
    """Make an empty folder ready."""
    made = making.prepare(folder, has_example=has_example)
    say(f"This folder was empty: made {', '.join(path.name for path in made.made)}, as `keystead init` does.")
    if has_example:
        say("Making an example to look at; --no-example leaves it out.")
        making.make(folder)
        say(_EXAMPLE)


def _console_at(host: str, port: int) -> str:
    where = f"http://{'localhost' if host == '127.0.0.1' else f'[{host}]' if ':' in host else host}:{port}/"
    return f"Console: open {where if port else 'the address below'} in a browser. Nobody has to sign in."


def _serve(app: FastAPI, options: dict[str, Any]) -> None:
    """Serve until the process is told to end, which is no failure.

    Raises:
        Exception: why the service can never open.
    """
    import uvicorn

    # The server sends itself the signal that has ended it once more, for whoever had it before: done is done.
    signal.signal(signal.SIGTERM, lambda *given: sys.exit(0))
    try:
        uvicorn.run(app, **options)
    finally:
        failure: Exception | None = app.state.standing.failure
        if failure is not None:
            raise failure


def _serve_by_several(workers: int, options: dict[str, Any]) -> None:
    """Serve by several processes; where the service of one can never open, none goes on.

    Raises:
        ConfigurationError: the port is taken.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from keystead.server.sockets import LOOP, PortOfSeveral
    from keystead.server.standing import FAILED

    with PortOfSeveral(options["host"], options["port"]) as port:
        config = uvicorn.Config("keystead.server.worker:new_app", factory=True, workers=workers, loop=LOOP, **options)
        supervisor = Multiprocess(config, sockets=[port.joining])
        logging.getLogger("uvicorn.error").info(
            "Uvicorn running on %s (Press CTRL+C to quit)", port.url(is_tls=config.is_ssl)
        )
        port.deal(until=supervisor.should_exit)
        supervisor.run()
    if any(process.exitcode == FAILED for process in supervisor.processes):
        raise typer.Exit(1)
