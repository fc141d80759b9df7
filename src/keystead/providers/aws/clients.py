"""boto3's session and KMS clients of one provider: made in a worker thread at the first call, renewed, closed."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from keystead.errors import KMSError, SystemShutdownError
from keystead.ports import Clock
from keystead.providers.aws.config import AWSKMSConfig, check_endpoint
from keystead.providers.aws.errors import Failure, Kind
from keystead.providers.aws.keys import place
from keystead.providers.sdk import Sdk
from keystead.runtime import fork

BOTO3: Final = Sdk("AWS KMS", "boto3", "boto3", "aws")

Answer: TypeAlias = dict[str, Any]
_NAMES_OF_KEYS: Final = ("KeyId", "SourceKeyId", "DestinationKeyId")
_NO_OTHERS_FOR_S: Final = 1.0
"""How long it is taken for granted that no other credentials are there: a re-reading may run a program, or ask a
server, and every call that fails would ask for one."""
_OUR_CALL: Final[ContextVar[bool]] = ContextVar("keystead_aws_call", default=False)


class _NoDetails(logging.Filter):
    """Drops what the SDK says of our calls at DEBUG: whole requests and answers, plaintexts and data keys among them.

    Its other messages, and those of other calls in the same process, pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or not _OUR_CALL.get()


_NO_DETAILS: Final = _NoDetails()


@dataclass(slots=True)
class _Session:
    """One set of credentials and the clients that sign with it, by Region."""

    boto: Any
    region: str | None
    clients: dict[str | None, Any] = field(default_factory=dict)

    def credentials(self) -> object:
        """Return what tells these credentials from others."""
        found = self.boto.get_credentials()
        return None if found is None else tuple(found.get_frozen_credentials())

    def close(self) -> None:
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.close()


class AwsClients:
    """Calls KMS from worker threads. A child of a fork makes a session of its own.

    Clients are safe to share between threads; making them is not, so one thread makes them and the others wait.
    """

    def __init__(self, config: AWSKMSConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._no_others_until = 0.0
        self._is_closed = False
        self._making = threading.Lock()
        self._state = threading.Lock()
        self._session: _Session | None = None
        fork.in_child(self._forget)

    def ask(self, operation: str, action: str, parameters: dict[str, Any]) -> Answer | Failure:
        """Return AWS's answer, or why there is none; blocks.

        Credentials that AWS calls expired are read again once, and what they are refused for is asked again.

        Raises:
            ConfigurationError: a key, Region and endpoint that do not fit each other.
            MissingDependencyError: boto3 is not installed.
            SystemShutdownError: the provider was closed.
        """
        token = _OUR_CALL.set(True)
        try:
            session, answer = self._once(operation, action, parameters)
            is_expired = isinstance(answer, Failure) and answer.kind is Kind.EXPIRED
            if is_expired and session is not None and self._renew(session):
                _, answer = self._once(operation, action, parameters)
            return answer
        finally:
            _OUR_CALL.reset(token)

    def headers_of_an_unsigned_answer(self) -> dict[str, str] | Failure:
        """Return the headers of an answer to a request that names nobody; it needs no credentials and no permission."""
        token = _OUR_CALL.set(True)
        try:
            session = self._current()
            with self._making:
                client = self._make(session, session.region, signature_version=BOTO3.load("botocore").UNSIGNED)
            try:
                return dict(client.list_keys(Limit=1)["ResponseMetadata"]["HTTPHeaders"])
            finally:
                client.close()
        except KMSError:
            raise
        except Exception as exc:
            response = getattr(exc, "response", None) or {}
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
            return dict(headers) if headers else Failure.of(exc, "list_keys", "ListKeys")
        finally:
            _OUR_CALL.reset(token)

    def credential_method(self) -> str | None:
        """Return how boto3 found the credentials, by its own word; None where it found none. Blocks."""
        token = _OUR_CALL.set(True)
        try:
            session = self._current()
            with self._making:
                found = session.boto.get_credentials()
        except KMSError:
            raise
        except Exception:
            return None  # the call that needs them says why
        finally:
            _OUR_CALL.reset(token)
        method = getattr(found, "method", None)
        return method if isinstance(method, str) else None

    def close(self) -> None:
        """Close the connections; a call under way ends with its own. Idempotent, never blocks."""
        with self._state:
            self._is_closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _once(
        self, operation: str, action: str, parameters: dict[str, Any]
    ) -> tuple[_Session | None, Answer | Failure]:
        session: _Session | None = None
        try:
            session = self._current()
            return session, self._send(session, operation, parameters)
        except KMSError:
            raise
        except Exception as exc:
            return session, Failure.of(exc, operation, action)

    def _send(self, session: _Session, operation: str, parameters: dict[str, Any]) -> Answer:
        region, placed = session.region, dict(parameters)
        has_own_endpoint = self._config.endpoint_url is not None
        for name in _NAMES_OF_KEYS:
            if name in placed:
                placed[name], region = place(placed[name], session.region, has_own_endpoint=has_own_endpoint)
        answer: Answer = getattr(self._client(session, region), operation)(**placed)
        return answer

    def _client(self, session: _Session, region: str | None) -> Any:
        client = session.clients.get(region)
        if client is None:
            with self._making:
                client = session.clients.get(region)
                if client is None:
                    client = self._keep(session, region, self._make(session, region))
        return client

    def _keep(self, session: _Session, region: str | None, client: Any) -> Any:
        with self._state:
            if not self._is_closed:
                session.clients[region] = client
                return client
        client.close()
        raise _closed()

    def _current(self) -> _Session:
        session = self._session
        if session is None:
            with self._making:
                if self._session is None:
                    self._install(self._open())
                session = self._session
        if session is None or self._is_closed:
            raise _closed()
        return session

    def _install(self, session: _Session) -> None:
        with self._state:
            if not self._is_closed:
                self._session = session

    def _renew(self, used: _Session) -> bool:
        """Read the credentials again; whether there are others now than those that were ``used``."""
        if self._config.has_own_credentials:
            return False
        with self._making:
            if self._session is not used:
                return True
            if self._clock.monotonic() < self._no_others_until:
                return False
            fresh = self._find_others(used)
            if fresh is None:
                self._no_others_until = self._clock.monotonic() + _NO_OTHERS_FOR_S
                return False
            self._install(fresh)
        used.close()
        return True

    def _find_others(self, used: _Session) -> _Session | None:
        try:
            fresh = self._open()
            return None if fresh.credentials() == used.credentials() else fresh
        except Exception:
            return None  # what AWS said of the old ones is the error to report

    def _open(self) -> _Session:
        config = self._config
        core = BOTO3.load("botocore.session").get_session()
        _silence_details()
        # Also the clients that fetch credentials (STS, SSO) get these timeouts.
        core.set_default_client_config(self._client_config())
        session = BOTO3.load("boto3.session").Session(
            botocore_session=core,
            region_name=config.region,
            profile_name=config.profile,
            aws_access_key_id=_plain(config.access_key),
            aws_secret_access_key=_plain(config.secret_key),
            aws_session_token=_plain(config.session_token),
        )
        return _Session(session, session.region_name)

    def _make(self, session: _Session, region: str | None, **options: Any) -> Any:
        client = session.boto.client(
            "kms",
            region_name=region,
            endpoint_url=self._config.endpoint_url,
            config=self._client_config(**options),
        )
        _silence_details()  # loggers that making the client brought
        try:
            # It may come from AWS_ENDPOINT_URL or a profile.
            check_endpoint(client.meta.endpoint_url)
        except KMSError:
            client.close()
            raise
        return client

    def _client_config(self, **options: Any) -> Any:
        config = self._config
        return BOTO3.load("botocore.config").Config(
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            max_pool_connections=config.max_connections,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            user_agent_extra="keystead",
            **options,
        )

    def _forget(self) -> None:
        self._making = threading.Lock()
        self._state = threading.Lock()
        self._session = None


def _silence_details() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"boto3", "botocore"}:
            logging.getLogger(name).addFilter(_NO_DETAILS)


def _plain(secret: str | None) -> str | None:
    # A SecretText works as a text, but formats as its name: boto3 gets what it expects.
    return None if secret is None else str.__str__(secret)


def _closed() -> SystemShutdownError:
    return SystemShutdownError("the provider aws was closed")
