"""Requests to a Vault server through hvac, one hvac client for each worker thread.

An hvac client is a ``requests`` session with a token in it, which threads cannot share safely. So each thread has its
own, without a token; the token goes along with each request. hvac's methods are not used where they stand in the way:
they refuse on the client what newer servers take, leave slashes in names, and turn answers into exceptions that hold
URLs. Redirects are not followed: the token would travel to wherever they point.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from keystead.errors import ConfigurationError, KMSError, ProviderConnectionError, SystemShutdownError
from keystead.model import SecretText
from keystead.ports import Clock
from keystead.providers.sdk import Sdk
from keystead.providers.vault.config import Target, VaultConfig, escaped, target_of
from keystead.providers.vault.errors import Answer, Reason, RequestTooLargeError, error_of, reason_of
from keystead.providers.vault.login import Login
from keystead.runtime import fork

SDK: Final = Sdk("Vault", "hvac", "hvac", "vault")
MAX_BODY_SIZE: Final = 32 * 1024 * 1024
"""What a server takes in one request, unless it was set up otherwise."""


class VaultClient:
    """Sends requests, from any thread; logs in where that is needed."""

    def __init__(self, config: VaultConfig, environ: Callable[[], Mapping[str, str]], clock: Clock) -> None:
        self._config = config
        self._environ = environ
        self._here = threading.local()
        self._lock = threading.Lock()
        self._clients: list[Any] = []
        self._target: Target | None = None
        self._is_closed = False
        self.login = Login(self.send, config, environ, clock)
        fork.in_child(self._forget)

    def call(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "post") -> Answer:
        """Return the answer to a request made with our token, whatever it says about the request itself.

        A token that is refused is replaced once, by logging in again or reading its file again.

        Raises:
            ConfigurationError: there is no address.
            ProviderAuthError: there is no token, or logging in was refused.
            ProviderConnectionError: no answer.
        """
        # Where to, before who: without an address no token is of use.
        self._where()
        token = self.login.token()
        answer = self.send(method, path, body, token=token)
        if answer.status == 403 and (reason := reason_of(answer)) in {Reason.BAD_TOKEN, Reason.DENIED}:
            other = self.login.replacement(token, is_denied=reason is Reason.DENIED)
            if other is not None:
                answer = self.send(method, path, body, token=other)
        return answer

    def do(self, verb: str, path: str, body: Mapping[str, Any] | None = None, *, method: str = "post") -> Answer:
        """Return the answer to a request that was carried out.

        Raises:
            KMSError: as ``call``, and for a request that was refused.
        """
        answer = self.call(path, body, method=method)
        if not answer.is_ok:
            raise error_of(reason_of(answer), verb, path, answer=answer)
        return answer

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: SecretText | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and return its answer.

        Raises:
            InvalidInputError: the body is larger than a server takes.
            ProviderConnectionError: no answer, or one that was cut short.
        """
        if body is not None and body_size(body) > MAX_BODY_SIZE:
            raise too_large()
        answer, failure = self._exchange(method, path, body, token, timeout_s)
        # Outside of any except block: what requests raises holds the request, and must not travel on as a context.
        if answer is None:
            raise failure or ProviderConnectionError("the Vault server did not answer")
        return answer

    def close(self) -> None:
        """Close every thread's connections; idempotent."""
        with self._lock:
            self._is_closed = True
            clients, self._clients = self._clients, []
        for client in clients:
            client.adapter.close()

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: SecretText | None, timeout_s: float | None
    ) -> tuple[Answer | None, KMSError | None]:
        client, target = self._client()
        headers: dict[str, str] = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Vault-Token"] = token
        if target.namespace is not None:
            headers["X-Vault-Namespace"] = target.namespace
        given: dict[str, Any] = {"headers": headers, "raise_exception": False}
        if body is not None:
            given["data"] = json.dumps(body).encode()
        if timeout_s is not None:
            given["timeout"] = timeout_s
        try:
            response = client.adapter.request(method, f"/v1/{escaped(path)}", **given)
            content = response.json() if response.content else {}
        except Exception as exc:
            return None, _failure(exc, self._config.timeout or 0)
        finally:
            if self._is_closed:
                # A request that began before, or that gives a token back, has opened a connection anew.
                client.adapter.close()
        return Answer(response.status_code, content if isinstance(content, dict) else {}, response.headers), None

    def _where(self) -> Target:
        target = self._target
        if target is None:
            target = self._target = target_of(self._config, self._environ())
        return target

    def _client(self) -> tuple[Any, Target]:
        target = self._where()
        client = getattr(self._here, "client", None)
        if client is None:
            client = self._made(target)
            with self._lock:
                if self._is_closed:
                    client.adapter.close()
                    raise SystemShutdownError("the provider vault was closed")
                self._clients.append(client)
            self._here.client = client
        return client, target

    def _made(self, target: Target) -> Any:
        hvac = SDK.load()
        session = SDK.load("requests").Session()
        # Otherwise requests looks into the environment and ~/.netrc at each request, and lets REQUESTS_CA_BUNDLE win.
        session.trust_env = False
        # hvac takes the session's settings over those it is given itself.
        session.verify, session.cert = target.verify, target.client_cert
        if target.proxy is not None:
            session.proxies = {"http": target.proxy, "https": target.proxy}
        if target.verify is False:
            # Our own warning has been given; urllib3 would give one for each request.
            SDK.load("urllib3").disable_warnings()
        timeout = self._config.timeout
        return hvac.Client(
            url=target.address,
            # Empty, not None: for None hvac looks for a token itself, and for a certificate in the environment.
            token="",
            cert=target.client_cert or (),
            verify=target.verify,
            timeout=(timeout, timeout),
            session=session,
            allow_redirects=False,
            adapter=SDK.load("hvac.adapters").RawAdapter,
        )

    def _forget(self) -> None:
        """Drop what a child of a fork must not share: the parent's connections, and locks its threads may hold."""
        self._here = threading.local()
        self._lock = threading.Lock()
        self._clients = []
        self.login.forget_parent()


def body_size(body: Mapping[str, Any]) -> int:
    """Return how long a body is as JSON, as its texts are all base64 or names: nothing in them is escaped."""
    return sum(_size(name) + _size(value) + 4 for name, value in body.items()) + 2


def string_count(body: Mapping[str, Any]) -> int:
    """Return how many strings a body has, keys included: what a server limits."""
    return sum(1 + _strings(value) for value in body.values())


def too_large() -> RequestTooLargeError:
    """Return the error for more than a server takes in one request."""
    return RequestTooLargeError(
        "this is more than a Vault server takes in one request (32 MiB, in base64); encrypt it under a data key: "
        "km.local_encrypt, or generate_data_key"
    )


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, Mapping):
        return body_size(value)
    if isinstance(value, list):
        return sum(_size(each) + 2 for each in value) + 2
    return len(str(value)) + 1


def _strings(value: object) -> int:
    if isinstance(value, str):
        return 1
    if isinstance(value, Mapping):
        return string_count(value)
    return sum(_strings(each) for each in value) if isinstance(value, list) else 0


def _failure(exc: Exception, timeout_s: float) -> KMSError:
    """Return our error for what requests or hvac raised; of the foreign one only its kind is kept."""
    errors = SDK.load("requests.exceptions")
    if isinstance(exc, errors.SSLError):
        return ProviderConnectionError(
            "the Vault server's TLS certificate was not accepted, or TLS failed otherwise; tls_ca_cert (VAULT_CACERT) "
            "names the authority of a private one"
        )
    if isinstance(exc, errors.ConnectTimeout):
        return ProviderConnectionError(f"no connection to the Vault server within {timeout_s:g} s")
    if isinstance(exc, errors.Timeout):
        return ProviderConnectionError(f"the Vault server did not answer within {timeout_s:g} s")
    if isinstance(exc, errors.ProxyError):
        return ProviderConnectionError("the proxy in front of the Vault server failed the connection")
    if isinstance(exc, errors.ConnectionError | errors.ChunkedEncodingError | errors.ContentDecodingError):
        return ProviderConnectionError(
            "the Vault server cannot be reached, or broke the connection; is VAULT_ADDR right?"
        )
    if isinstance(exc, errors.JSONDecodeError):
        return ProviderConnectionError("what answered is no Vault server: its answer is no JSON")
    if isinstance(exc, errors.InvalidURL | errors.InvalidSchema | errors.MissingSchema):
        return ConfigurationError("the address of Vault, or of the proxy in front of it, is no URL of a server")
    return ProviderConnectionError(f"the call to the Vault server failed: {type(exc).__name__}")
