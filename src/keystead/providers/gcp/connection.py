"""How Cloud KMS is called: the SDK's client, one for each event loop, over gRPC or REST; errors mapped.

Forks: gRPC does not work in a child of a process that has a channel open, whatever ``GRPC_ENABLE_FORK_SUPPORT`` says:
its threads are gone, calls time out, and freeing an inherited channel, a closed one too, waits for one of them for
ever or ends the process. So a child of a process that had loaded gRPC keeps what it inherited untouched, and uses REST.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from typing import Any, Final, Protocol

from keystead.errors import ConfigurationError, KMSError, SystemShutdownError
from keystead.providers.gcp.config import GCPKMSConfig
from keystead.providers.gcp.credentials import Tokens, load_credentials, without_netrc
from keystead.providers.gcp.errors import error_of, is_unauthenticated
from keystead.providers.gcp.messages import Messages, inner
from keystead.providers.sdk import Sdk
from keystead.providers.workers import Workers
from keystead.runtime import fork
from keystead.runtime.per_loop import PerLoop

SDK: Final = Sdk("Google Cloud KMS", "google-cloud-kms", "google.cloud.kms_v1", "gcp")
CHECKSUMS: Final = Sdk("Google Cloud KMS", "google-crc32c", "google_crc32c", "gcp")

_TRANSPORTS: Final = "google.cloud.kms_v1.services.key_management_service.transports"
_CHANNEL_OPTIONS: Final = (
    # A connection that died without a word is noticed by pings, instead of by the kernel a quarter of an hour later.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # After an outage the next attempt to connect is seconds away, instead of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
_PAYLOADS: Final = ("request", "response", "metadata", "httpRequest", "httpResponse")
_LOGGERS: Final = (f"{_TRANSPORTS}.grpc_asyncio", f"{_TRANSPORTS}.rest", "google.auth.transport.requests")


class CloudKms:
    """The service, as the provider calls it. Loads nothing and connects to nothing before the first call."""

    def __init__(self, config: GCPKMSConfig) -> None:
        SDK.require()
        CHECKSUMS.require()
        self._config = config
        self._workers = Workers("gcp", threads=config.max_connections)
        self._uses_rest = config.transport == "rest"
        self._is_closed = False
        self._messages: Messages | None = None
        fork.in_child(self._leave_grpc)
        self._connections: PerLoop[_Connection] = PerLoop(self._connect, _close)

    async def messages(self) -> Messages:
        """Return the SDK's messages, loaded off the loop.

        Raises:
            SystemShutdownError: after ``aclose``.
        """
        if self._messages is None:
            self._messages = await self._workers.run(_load)
        return self._messages

    async def call(self, operation: str, method: str, request: Any) -> Any:
        """Make one call, without repetitions, and return its response.

        Args:
            operation: what our caller asked for, by our name; it decides what errors mean.
            method: the client's method.
            request: the SDK's message, or a ``HiddenRequest``.

        Raises:
            KMSError: whatever failed.
            SystemShutdownError: after ``aclose``, or because of it.
        """
        error: KMSError
        try:
            self._require_open()
            connection = await self._connections.get()
            return await connection.call(method, request)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            error = _closed()
        except KMSError:
            raise
        except Exception as exc:
            error = _closed() if self._is_closed else error_of(operation, exc, method)
        # Outside the except block: an SDK's exception must not travel on as the context of ours.
        raise error

    async def aclose(self) -> None:
        """Close every connection; idempotent. Calls under way end with ``SystemShutdownError``."""
        self._is_closed = True
        await self._connections.aclose()
        self._workers.close()

    async def _connect(self) -> _Connection:
        config, workers = self._config, self._workers
        await self.messages()
        if self._uses_rest:
            client = await workers.run(lambda: _rest_client(config))
            return _RestConnection(client, workers, config.timeout_s)
        credentials, tls = await workers.run(lambda: (load_credentials(config), _tls_credentials(config)))
        tokens = Tokens(credentials, workers, timeout_s=config.timeout_s)
        # In the loop it is for: the channel belongs to it.
        return _GrpcConnection(_grpc_client(config, tls), tokens, config.timeout_s)

    def _leave_grpc(self) -> None:
        if "grpc" in sys.modules:
            self._uses_rest = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise _closed()


class _Connection(Protocol):
    async def call(self, method: str, request: Any) -> Any: ...

    async def close(self) -> None: ...


class _GrpcConnection:
    """The SDK's asyncio client on a channel of its loop."""

    def __init__(self, client: Any, tokens: Tokens, timeout_s: float) -> None:
        self._client = client
        self._tokens = tokens
        self._timeout_s = timeout_s

    async def call(self, method: str, request: Any) -> Any:
        """Make a call; one that the service did not let in is made again with a new token."""
        metadata = await self._tokens.metadata()
        token = self._tokens.current
        try:
            return await self._send(method, request, metadata)
        except Exception as exc:
            if not is_unauthenticated(exc):
                raise
        return await self._send(method, request, await self._tokens.metadata(refused=token))

    async def close(self) -> None:
        await self._client.transport.close()

    async def _send(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...]) -> Any:
        send = getattr(self._client, method)
        return await send(request=inner(request), retry=None, timeout=self._timeout_s, metadata=metadata)


class _RestConnection:
    """The SDK's blocking client, in the provider's threads; it renews its token itself."""

    def __init__(self, client: Any, workers: Workers, timeout_s: float) -> None:
        self._client = client
        self._workers = workers
        self._timeout_s = timeout_s

    async def call(self, method: str, request: Any) -> Any:
        send = getattr(self._client, method)
        return await self._workers.run(lambda: send(request=inner(request), retry=None, timeout=self._timeout_s))

    async def close(self) -> None:
        self._client.transport.close()


class _HidesPayloads(logging.Filter):
    """At DEBUG, the SDK logs whole requests and responses, plaintexts and tokens among them."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name in _PAYLOADS:
            if hasattr(record, name):
                setattr(record, name, "hidden by keystead")
        return True


_FILTER: Final = _HidesPayloads()


class _Channels:
    """Every channel that was made and not freed, open or closed: a child of a fork never frees them."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_used = False
        fork.in_child(self._never_free)

    def keep(self, channel: Any) -> Any:
        """Return the channel, which is one of them from now on."""
        self._alive.add(channel)
        self._is_used = True
        return channel

    def _never_free(self) -> None:
        if self._is_used:
            # What the parent left for its collector is not for this process's to come upon.
            gc.freeze()
        for channel in self._alive:
            fork.never_free(channel)


_CHANNELS: Final = _Channels()


def _load() -> Messages:
    service = SDK.load("google.cloud.kms_v1.types.service")
    resources = SDK.load("google.cloud.kms_v1.types.resources")
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
    return Messages(service, resources, CHECKSUMS.load())


def _grpc_client(config: GCPKMSConfig, tls: Any) -> Any:
    import grpc

    kms, transports = SDK.load(), SDK.load(_TRANSPORTS)
    channel = _CHANNELS.keep(grpc.aio.secure_channel(config.address, tls, options=_CHANNEL_OPTIONS))
    transport = transports.KeyManagementServiceGrpcAsyncIOTransport(channel=channel)
    return kms.KeyManagementServiceAsyncClient(transport=transport)


def _rest_client(config: GCPKMSConfig) -> Any:
    kms, transports = SDK.load(), SDK.load(_TRANSPORTS)
    credentials = load_credentials(config)
    transport = transports.KeyManagementServiceRestTransport(host=config.address, credentials=credentials)
    _read_authorities(config)
    # The transport has no parameters for any of it.
    session = transport._session
    session.mount("https://", _adapter(config))
    # What is sent may be a plaintext: where it is to go to says the configuration, and not who answers.
    session.max_redirects = 0
    without_netrc(session)
    without_netrc(session._auth_request.session)
    return kms.KeyManagementServiceClient(transport=transport)


def _adapter(config: GCPKMSConfig) -> Any:
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """Checks certificates by our authorities; a session's own are overruled by ``REQUESTS_CA_BUNDLE``."""

        def send(self, request: Any, *given: Any, **settings: Any) -> Any:
            if config.ca_file is not None:
                settings["verify"] = str(config.ca_file)
            return super().send(request, *given, **settings)

    return Adapter(pool_maxsize=config.max_connections)


def _tls_credentials(config: GCPKMSConfig) -> Any:
    import grpc

    return grpc.ssl_channel_credentials(root_certificates=_read_authorities(config))


def _read_authorities(config: GCPKMSConfig) -> bytes | None:
    if config.ca_file is None:
        return None
    try:
        with open(config.ca_file, "rb") as file:
            content = file.read()
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    else:
        if b"-----BEGIN CERTIFICATE-----" in content:
            return content
        problem = "it holds no certificate in PEM"
    raise ConfigurationError(f"ca_file {config.ca_file}: {problem}")


async def _close(connection: _Connection) -> None:
    await connection.close()


def _closed() -> SystemShutdownError:
    return SystemShutdownError("the provider gcp was closed")
