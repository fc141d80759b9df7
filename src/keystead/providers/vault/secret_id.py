"""AppRole's secret id: given in clear, in a file, or inside a response-wrapping token.

A wrapping token can be opened once. Before it is, the server says what it was made for: a token that somebody put in
its place was made by another path, and is not opened. A secret id that came out of one is kept, for as many logins as
it is good for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keystead.errors import KMSError, ProviderAuthError
from keystead.model import SecretText
from keystead.providers.vault.config import VaultConfig, variable
from keystead.providers.vault.errors import Reason, error_of, reason_of

if TYPE_CHECKING:
    from keystead.providers.vault.login import Sends

_UNWRAP = "sys/wrapping/unwrap"


class SecretIds:
    """Finds the secret id for each login; its caller sees to it that one login is made at a time."""

    def __init__(self, send: Sends, config: VaultConfig) -> None:
        self._send = send
        self._config = config
        self._opened: SecretText | None = None
        self._secret_id: SecretText | None = None
        self._uses: int | None = None

    def take(self, mount: str, environ: Mapping[str, str]) -> SecretText | None:
        """Return the secret id for a login; None where nothing holds one, as a role may need none.

        Raises:
            ProviderAuthError: its file cannot be read, or its wrapping token is not one for it, or spent.
            ProviderConnectionError: no answer about the wrapping token.
        """
        given, is_wrapped = self._given(environ)
        if given is None or not is_wrapped:
            return given
        if self._opened != given:
            self._open(given, mount, self._config.namespace or variable(environ, "NAMESPACE"))
        if self._uses == 0 or self._secret_id is None:
            raise ProviderAuthError(
                "the wrapped secret id has been used up; deliver another wrapping token, or make the role's secret "
                "ids good for more logins (secret_id_num_uses)"
            )
        if self._uses is not None:
            self._uses -= 1
        return self._secret_id

    def _given(self, environ: Mapping[str, str]) -> tuple[SecretText | None, bool]:
        config = self._config
        if config.wrapped_secret_id is not None:
            return SecretText(config.wrapped_secret_id), True
        path = config.secret_id_file
        text = config.secret_id
        if text is None and path is None:
            text = variable(environ, "SECRET_ID")
            path = None if text else variable(environ, "SECRET_ID_FILE")
        if path is not None:
            text = read_file(path)
            if not text:
                raise ProviderAuthError(f"the secret id cannot be read from {os.fspath(path)}")
        return (SecretText(text.strip()) if text else None), config.secret_id_is_wrapped

    def _open(self, wrapping: SecretText, mount: str, namespace: str | None) -> None:
        path = self._creation_path(wrapping)
        if not self._is_for_us(path, mount, namespace) or (namespace is None and _has_namespace(wrapping)):
            raise ProviderAuthError(
                "the wrapping token was not made for a secret id of this AppRole, and was not opened: somebody may "
                "have put it in the place of the right one"
            )
        answer = self._send("post", _UNWRAP, token=wrapping)
        if not answer.is_ok:
            raise _spent(reason_of(answer))
        secret_id, uses = answer.data.get("secret_id"), answer.data.get("secret_id_num_uses")
        if not isinstance(secret_id, str):
            raise ProviderAuthError("the wrapping token holds no secret id")
        self._opened, self._secret_id = wrapping, SecretText(secret_id)
        self._uses = uses if isinstance(uses, int) and uses > 0 else None

    def _creation_path(self, wrapping: SecretText) -> str:
        answer = self._send("post", "sys/wrapping/lookup", {"token": wrapping})
        if not answer.is_ok:
            raise _spent(reason_of(answer))
        return str(answer.data.get("creation_path", ""))

    def _is_for_us(self, path: str, mount: str, namespace: str | None) -> bool:
        named = self._config.role if self._config.role_id is not None else None
        role = "[^/]+" if named is None else re.escape(named)
        # Vault Enterprise puts the namespace in front.
        front = "" if namespace is None else f"(?:{re.escape(namespace.strip('/'))}/)?"
        return re.fullmatch(rf"{front}auth/{re.escape(mount)}/role/{role}/(?:custom-)?secret-id", path) is not None


def _has_namespace(token: SecretText) -> bool:
    """Whether a token was made in another namespace than the root: then its id stands behind a second dot."""
    return str.count(token, ".") > 1


def read_file(path: str | os.PathLike[str]) -> SecretText | None:
    """Return what a file holds, without white space around it; None where it cannot be read or is empty."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return SecretText(text) if text else None


def _spent(reason: Reason) -> KMSError:
    if reason in {Reason.UNAVAILABLE, Reason.SEALED, Reason.THROTTLED}:
        return error_of(reason, "unwrap", _UNWRAP)
    return ProviderAuthError(
        "the wrapping token of the secret id is not valid any more: it has expired, or was opened before. If it was "
        "not opened by this process, take it for stolen: destroy the secret id and deliver another"
    )
