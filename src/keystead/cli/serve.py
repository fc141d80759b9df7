"""``keystead serve``: the key service."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from keystead.cli.frame import Call, command, say, wrong_usage
from keystead.config.service import load_service
from keystead.errors import MissingDependencyError

_DEVELOPMENT = """development: every caller is the one user named "dev", who may do everything, without a token.
Only programs of this machine are answered. Never serve people so."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "serve")(serve)


def serve(
    call: Call,
    *,
    dev: Annotated[bool, typer.Option("--dev", help="Everybody is one user; this machine alone is answered.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that serve.")] = 1,
) -> None:
    """Serve GraphQL to devices, until it is interrupted."""
    try:
        import uvicorn

        from keystead.server.app import create_app
        from keystead.server.development import HOSTS
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "keystead":
            raise
        raise MissingDependencyError(f"the service needs {exc.name}: pip install 'keystead[server]'") from None
    flags: dict[str, Any] = {**call.flags, "server.host": host, "server.port": port}
    loaded = load_service(call.config, flags=flags)
    server = loaded.settings.server
    if dev and server.host not in HOSTS:
        wrong_usage("--dev listens on this machine alone: leave --host out, or name 127.0.0.1 or ::1")
    if dev and workers > 1:
        wrong_usage("--dev serves with one process")
    if dev:
        say(_DEVELOPMENT)
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "log_level": "info",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 20,
    }
    if workers == 1:
        uvicorn.run(create_app(loaded, is_development=dev), **options)
        return
    # Each worker reads the settings itself: what was said here goes to it by its environment.
    said = {
        "KEYSTEAD_STORE": call.flags.get("store"),
        "KEYSTEAD_KMS": call.flags.get("kms"),
        "KEYSTEAD_CONFIG": call.config,
    }
    os.environ |= {name: value for name, value in said.items() if value is not None}
    uvicorn.run("keystead.server.worker:new_app", factory=True, workers=workers, **options)
