"""The paths of the wire protocol, and what gives them their requests."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from keystead.server.rest.paths import register_names
from keystead.server.service import Service
from keystead.server.standing import Standing
from keystead.server.vault import (
    auth,
    sys,
    transit_encryption,
    transit_import,
    transit_keys,
    transit_macs,
    transit_signing,
    transit_tools,
)
from keystead.server.vault.answers import ROOMS, VERSION
from keystead.server.vault.capabilities import Capabilities
from keystead.server.vault.door import Door
from keystead.server.vault.limits import Limits
from keystead.server.vault.request import VaultPath

_KNOWN: Final = (
    *transit_encryption.PATHS,
    *transit_signing.PATHS,
    *transit_macs.PATHS,
    *transit_keys.PATHS,
    *transit_tools.PATHS,
    *transit_import.PATHS,
    *auth.PATHS,
    *sys.PATHS,
)
PATHS: Final = (*_KNOWN, Capabilities(_KNOWN).path)
"""Every path. Routes are tried in this order: what is asked most stands first."""
UNKNOWN: Final = VaultPath("/{path:name}")
"""Any other path: whoever shows a good token is told that it is none."""


class VaultRoutes:
    """Gives what comes to the protocol's rooms to its doors at once; it stands behind ``Standby``."""

    def __init__(self, app: ASGIApp, standing: Standing[Service]) -> None:
        register_names()
        self._app = app
        limits = Limits()
        doors = [Route(VERSION + path.template, Door(path, standing, limits)) for path in (*PATHS, UNKNOWN)]
        self._router = Router(doors, redirect_slashes=False)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or pass it on."""
        is_ours = scope["type"] == "http" and scope["path"].startswith(ROOMS)
        return (self._router if is_ours else self._app)(scope, receive, send)
