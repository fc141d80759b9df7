"""The HTTP session under the Azure SDK's clients: one TLS context, and no socket left open at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import urllib.request
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from weakref import WeakSet

from keystead.errors import ConfigurationError
from keystead.providers.azure.config import AzureKMSConfig
from keystead.providers.azure.errors import http_date
from keystead.providers.sdk import Sdk
from keystead.runtime.off_loop import in_thread

if TYPE_CHECKING:
    import ssl

    import aiohttp

SDKS: Final = (
    Sdk("Azure Key Vault", "azure-keyvault-keys", "azure.keyvault.keys", "azure"),
    Sdk("Azure Key Vault", "azure-identity", "azure.identity", "azure"),
    Sdk("Azure Key Vault", "aiohttp", "aiohttp", "azure"),
)
_MODULES: Final = ("azure.keyvault.keys.crypto.aio", "azure.identity.aio", "aiohttp")
_AT_FIRST_USE: Final = ("azure.keyvault.keys.aio", "cryptography.hazmat.backends.openssl.backend")
"""What would be loaded by the first call, on the loop."""
_TURNS: Final = 100
"""How often the loop may turn until connections that were hung up are closed."""


class AzureSession:
    """An aiohttp session of the running loop.

    The SDK's own transport would make a TLS context for every request where a CA file is given, on the loop, and so
    never use a connection twice. The clients share one transport over this session instead.
    """

    def __init__(self, config: AzureKMSConfig, context: ssl.SSLContext) -> None:
        import aiohttp

        self._config = config
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=config.max_connections, socket_factory=self._make_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The SDK decompresses itself. Of the environment a proxy counts, which each request is given: aiohttp
            # would look into ~/.netrc as well, and refuse the request because of what it finds there.
            auto_decompress=False,
            trust_env=False,
        )

    @classmethod
    async def open(cls, config: AzureKMSConfig) -> AzureSession:
        """Load the SDK and make the TLS context in a thread, then return a session; nobody is called yet.

        Raises:
            MissingDependencyError, ConfigurationError: the SDK or the CA file is missing.
        """
        return cls(config, await in_thread(prepare, config))

    def transport(self) -> Any:
        """Return a transport for the SDK's clients, which closes nothing when it is closed."""
        from azure.core.pipeline.transport import AioHttpTransport

        class Transport(AioHttpTransport):  # type: ignore[misc]  # the SDK has no types
            """Goes through the environment's proxy, as everywhere in the SDK."""

            async def send(self, request: Any, **options: Any) -> Any:
                return await super().send(request, proxy=_proxy_for(request.url), **options)

        return Transport(
            session=self._session,
            session_owner=False,
            connection_timeout=self._config.connect_timeout_s,
            read_timeout=self._config.read_timeout_s,
        )

    async def service_time(self, url: str) -> datetime | None:
        """Return the ``Date`` of a vault's answer to somebody who is not signed in, if there is one."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            sock_connect=self._config.connect_timeout_s, sock_read=self._config.read_timeout_s
        )
        try:
            request = self._session.get(url, allow_redirects=False, timeout=timeout, proxy=_proxy_for(url))
            async with request as answer:
                return http_date(answer.headers.get("Date"))
        except (aiohttp.ClientError, OSError, ValueError):
            return None

    async def aclose(self) -> None:
        """Close every connection: those too that wait for a service which does not answer to say goodbye."""
        await self._session.close()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS):
            if all(each.fileno() == -1 for each in list(self._sockets)):
                return
            await asyncio.sleep(0)

    def _make_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made


def _proxy_for(url: str) -> str | None:
    parts = urlsplit(url)
    is_direct = parts.hostname is None or urllib.request.proxy_bypass(parts.hostname)
    return None if is_direct else urllib.request.getproxies().get(parts.scheme)


def prepare(config: AzureKMSConfig) -> ssl.SSLContext:
    """Load the SDK and return the TLS context; both take long, and read files.

    Raises:
        MissingDependencyError, ConfigurationError: the SDK or the CA file is missing.
    """
    import ssl

    for sdk, module in zip(SDKS, _MODULES, strict=True):
        sdk.load(module)
    for module in _AT_FIRST_USE:
        import_module(module)
    try:
        return ssl.create_default_context(cafile=None if config.ca_file is None else os.fspath(config.ca_file))
    except (OSError, ValueError):
        raise ConfigurationError(f"the ca_file {config.ca_file} is missing, or no PEM file of certificates") from None
