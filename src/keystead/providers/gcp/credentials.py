"""Credentials for Cloud KMS: found or read off the loop, and renewed off the loop.

The SDK's own way asks for the token in a new thread for every call, which takes longer than the call, and learns
nothing from a token that the service refuses. Here the token is put into the call's metadata, and renewed once for all
who wait when it is about to expire or was refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from keystead.errors import ConfigurationError
from keystead.providers.gcp.config import GCPKMSConfig
from keystead.providers.workers import Workers
from keystead.runtime.single_flight import SingleFlight

SCOPES: Final = ("https://www.googleapis.com/auth/cloudkms",)

_AWS_TOKEN: Final = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105  # a type's name
_READERS: Final[Mapping[str, tuple[str, str]]] = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
    "external_account_authorized_user": ("google.auth.external_account_authorized_user", "from_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
    "external_account of AWS": ("google.auth.aws", "from_info"),
    "external_account of a program": ("google.auth.pluggable", "from_info"),
}
"""What reads each kind of file. google-auth's reader of any kind is deprecated, for those who read files of others."""


def load_credentials(config: GCPKMSConfig) -> Any:
    """Return the credentials object that ``config`` says; blocks, and may look for a metadata server.

    Raises:
        ConfigurationError: the file cannot be read, or is no credentials file.
        google.auth.exceptions.GoogleAuthError: there are none, or they cannot be used.
    """
    auth: Any = import_module("google.auth")
    credentials: Any = import_module("google.auth.credentials")
    service_account: Any = import_module("google.oauth2.service_account")
    if config.credentials is not None:
        found = config.credentials
    elif config.credentials_file is not None:
        found = _read(config)
    else:
        # Given scopes, it would go and ask for the project's id, which nobody here wants to know.
        found, _ = auth.default()
    found = credentials.with_scopes_if_required(found, SCOPES)
    if isinstance(found, service_account.Credentials):
        # https://google.aip.dev/auth/4111: the account signs its own tokens, and no token server is asked.
        found = found.with_always_use_jwt_access(True)
    return found


class Tokens:
    """The metadata that authenticates a call; one renewal at a time in each event loop."""

    def __init__(self, credentials: Any, workers: Workers, *, timeout_s: float) -> None:
        from google.auth.transport.requests import Request

        self._credentials = credentials
        self._workers = workers
        request = Request()
        without_netrc(request.session)
        self._refresh: Callable[[], None] = partial(credentials.refresh, partial(request, timeout=timeout_s))
        self._flights: SingleFlight[None] = SingleFlight()

    @property
    def current(self) -> str | None:
        """The token at hand, good or not."""
        token: str | None = self._credentials.token
        return token

    async def metadata(self, *, refused: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return a call's metadata, with another token than the one that was ``refused``.

        Raises:
            google.auth.exceptions.GoogleAuthError: there is no good token, and none is to be had.
        """
        is_refused = refused is not None and self._credentials.token == refused
        if is_refused or not self._credentials.valid:
            await self._flights.run(is_refused, lambda: self._renew(is_refused=is_refused))
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return tuple((name.lower(), value) for name, value in headers.items())

    async def _renew(self, *, is_refused: bool) -> None:
        from google.auth.credentials import TokenState
        from google.auth.exceptions import TransportError

        before = self._credentials.token_state
        try:
            await self._workers.run(self._refresh)
        except TransportError:
            if is_refused or before is not TokenState.STALE:
                raise
            # It is renewed some minutes before it expires: until then it is as good as ever.


def without_netrc(session: Any) -> None:
    """Keep a session of ``requests`` from sending what ``~/.netrc`` has for a host, or by default, instead of a token.

    Proxies and the rest of the environment count as before.
    """
    session.auth = _as_it_is


def _as_it_is(request: Any) -> Any:
    return request


def _read(config: GCPKMSConfig) -> Any:
    path = config.credentials_file
    try:
        with open(path or "", encoding="utf-8") as file:
            info = json.load(file)
        kind = _kind_of(info)
        module, reader = _READERS[kind]
        return getattr(import_module(module).Credentials, reader)(info)
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    except KeyError:
        problem = "it is none of the kinds that google-auth reads"
    except (ValueError, TypeError, AttributeError):
        problem = "it is no credentials file, or a damaged one"
    raise ConfigurationError(f"credentials_file {path}: {problem}")


def _kind_of(info: Any) -> str:
    kind = info["type"]
    if kind == "external_account" and info.get("subject_token_type") == _AWS_TOKEN:
        return f"{kind} of AWS"
    if kind == "external_account" and (info.get("credential_source") or {}).get("executable") is not None:
        return f"{kind} of a program"
    return str(kind)
