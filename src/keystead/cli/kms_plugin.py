"""``keystead kms-plugin``: Kubernetes' secrets under Keystead's keys."""

from __future__ import annotations

import asyncio
import logging.config
from dataclasses import asdict
from typing import Annotated

import typer

from keystead.cli.frame import FAILED, Call, command, wrong_usage
from keystead.cli.render import Outcome, pairs
from keystead.errors import ConfigurationError
from keystead.errors.extras import needing


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "kms-plugin")(kms_plugin)


def kms_plugin(
    call: Call,
    *,
    socket: Annotated[str, typer.Option("--socket", metavar="PATH", help="Where the API server finds the plugin.")],
    key: Annotated[str | None, typer.Option("--key", metavar="NAME", help="The key that it encrypts under.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=1, max=65535, help="Show metrics to this machine, at /metrics.")
    ] = None,
    is_check: Annotated[
        bool, typer.Option("--check", help="Ask the plugin that runs there whether all is well, instead.")
    ] = False,
) -> Outcome | None:
    """Encrypt the secrets of a Kubernetes cluster, as a KMS v2 plugin of its API server, until it is interrupted."""
    with needing("kubernetes", "the plugin needs {}"):
        from keystead.server.kubernetes.checking import check
        from keystead.server.kubernetes.plugin import serve
        from keystead.server.kubernetes.socket import socket_path
        from keystead.server.logs import log_config
    path = socket_path(socket)
    if is_check:
        found = asyncio.run(check(path))
        told = pairs([("health", found.healthz), ("key id", found.key_id)])
        return Outcome(asdict(found), told, 0 if found.is_healthy else FAILED)
    if key is None:
        wrong_usage("name the key that the plugin encrypts under: --key NAME")
    loaded = call.lasting_settings()
    logging.config.dictConfig(log_config(loaded.settings.server.log_format))
    if metrics_port is not None:
        _show_metrics(metrics_port)
    asyncio.run(serve(loaded, path, key))
    return None


def _show_metrics(port: int) -> None:
    with needing("kubernetes", "metrics need {}"):
        from prometheus_client import start_http_server

        from keystead.server.metrics import NONE_HERE, registry
    collected = registry()
    if collected is None:
        raise ConfigurationError(f"--metrics-port: {NONE_HERE}")
    start_http_server(port, addr="127.0.0.1", registry=collected)
