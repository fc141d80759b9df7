"""The key service over a store in memory, on a port of the loopback interface, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keystead.access.callers import scopes_of
from keystead.access.role_rules import AppRoleRules
from keystead.config.service import load_service
from keystead.errors import ConfigurationError
from keystead.errors.extras import needing
from keystead.manager.admin import create_local_kek

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from keystead.server.service import Service

T = TypeVar("T")

HOST: Final = "127.0.0.1"
EVERYTHING: Final = "transit:*:*"
START_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.01
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class AppRole:
    """What a program logs in with at ``auth/approle/login``."""

    role_id: str
    secret_id: str = field(repr=False)


class TransitServer:
    """A running server; ``transit_server`` makes one.

    Attributes:
        url: its address, as ``VAULT_ADDR`` has it.
        token: one that may do everything with every key, as ``VAULT_TOKEN`` has it.
    """

    def __init__(self, url: str, app: FastAPI, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self._app = app
        self._loop = loop
        self.token = self.new_token(EVERYTHING)

    def new_token(self, *scopes: str, tenant: str = "", lifetime: timedelta | None = None) -> str:
        """Return a token that may do what its scopes say, such as ``transit:encrypt:orders-*``.

        Args:
            tenant: whose keys it is for; a tenant's keys are not there for another.
            lifetime: how long it is good; None for no end.

        Raises:
            InvalidInputError: no scope, or a malformed one.
        """
        create = self._service.tokens.create("test", scopes_of(scopes), tenant=tenant, lifetime=lifetime)
        return "".join(self._ask(create).text)

    def new_app_role(self, name: str, *scopes: str, tenant: str = "", token_ttl_s: int = 3600) -> AppRole:
        """Return a new role with a secret id for logins.

        Raises:
            InvalidInputError: no scope, or a malformed one.
            ConflictError: there is a role of that name.
        """
        rules = AppRoleRules(
            token_ttl_s=token_ttl_s, token_max_ttl_s=_DAY, secret_id_ttl_s=_DAY, secret_id_uses=1_000_000
        )
        roles = self._service.access.roles

        async def make() -> AppRole:
            role = await roles.create(name, scopes_of(scopes), rules, tenant=tenant)
            made = await roles.create_secret_id(name, tenant=tenant)
            return AppRole(role.id, "".join(made.text))

        return self._ask(make())

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.standing.service
        return service

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_WITHIN_S)


@contextmanager
def transit_server(port: int = 0) -> Iterator[TransitServer]:
    """Run a server; it has no keys at first, and forgets those that were made when the block ends.

        @pytest.fixture(scope="session")
        def vault():
            with transit_server() as server:
                yield server

    It really encrypts, and keeps its keys in memory, wrapped by a KEK in a folder of its own that is removed. It serves
    programs of this machine alone, over HTTP.

    Args:
        port: to listen on; any free one without it.

    Raises:
        MissingDependencyError: the extra ``server`` is not installed.
        ConfigurationError: the port is taken.
    """
    with needing("server", "the server needs {}"):
        import uvicorn

        from keystead.server.app import create_app
        from keystead.server.methods import PROTOCOL
    with tempfile.TemporaryDirectory(prefix="keystead-transit-") as folder, _listening(port) as listener:
        kek = Path(folder) / "keystead.kek"
        create_local_kek(kek)
        environ = {"KEYSTEAD_STORE": "memory://", "KEYSTEAD_KMS": f"local:{kek}", "KEYSTEAD_CLIENT_KEYS_READY": "0"}
        app = create_app(load_service(environ=environ))
        config = uvicorn.Config(
            app, http=PROTOCOL, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        server = _Thread(uvicorn.Server(config), listener, app)
        server.start()
        try:
            loop = server.wait()
            host, number = listener.getsockname()[:2]
            yield TransitServer(f"http://{host}:{number}", app, loop)
        finally:
            server.stop()


class _Thread:
    """The server's own thread and event loop."""

    def __init__(self, server: Server, listener: socket.socket, app: FastAPI) -> None:
        self._server = server
        self._listener = listener
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="keystead-transit", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def wait(self) -> asyncio.AbstractEventLoop:
        """Return its loop when the service is open.

        Raises:
            Exception: why it can never open.
        """
        until = time.monotonic() + START_WITHIN_S
        standing = self._app.state.standing
        while standing.service is None or self._loop is None or not self._server.started:
            if standing.failure is not None:
                raise standing.failure
            if not self._thread.is_alive() or time.monotonic() > until:
                raise ConfigurationError("the server for tests did not start")
            time.sleep(_LOOK_S)
        return self._loop

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._listener])


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as exc:
            raise ConfigurationError(f"port {port} cannot be listened on: {exc.strerror}; name another") from None
        yield listener
