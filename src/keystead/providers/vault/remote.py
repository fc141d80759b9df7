"""Another Transit engine, of HashiCorp Vault or OpenBao, as keys and ciphertexts come from it or go to it.

Permissions of its token (``<m>`` the mount, ``<k>`` a key): ``list`` on ``<m>/keys``; ``read`` on ``<m>/keys/<k>``;
``update`` on ``<m>/decrypt/<k>``, and on ``<m>/encrypt/<k>`` where ciphertexts go there; ``read`` on
``<m>/export/<kind>/<k>`` for key material, which the server gives of exportable keys alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KMSError,
    ProviderConnectionError,
)
from keystead.ports import TransitItem
from keystead.providers.vault.batches import split
from keystead.providers.vault.cipher import batch_results, has_results, item_error
from keystead.providers.vault.client import VaultClient
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.errors import DECRYPTION_FAILED, Answer, RequestTooLargeError, error_of, reason_of
from keystead.providers.vault.forms import decode, encode
from keystead.runtime.clock import SystemClock

T = TypeVar("T")

_NOT_FOUND: Final = 404


class RemoteTransit:
    """An engine, at the configuration's mount. Blocks; thread-safe."""

    def __init__(self, config: VaultConfig) -> None:
        self._client = VaultClient(config, lambda: os.environ, SystemClock())
        self.mount: str = config.mount_path or ""

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def names(self) -> list[str]:
        """Return the names of its keys; errors as ``describe``."""
        answer = self._client.call(f"{self.mount}/keys", method="list")
        if answer.status == _NOT_FOUND:
            return []
        _require(answer, "list", f"{self.mount}/keys")
        found = answer.data.get("keys")
        return sorted(str(name) for name in found) if isinstance(found, list) else []

    def describe(self, name: str) -> Mapping[str, Any]:
        """Return what the server says of a key.

        Raises:
            KeyNotFoundError: there is none of that name.
            ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        path = f"{self.mount}/keys/{name}"
        answer = self._client.call(path, method="get")
        if answer.status == _NOT_FOUND:
            raise KeyNotFoundError(f"the other engine has no key {name!r} at {self.mount}/keys")
        _require(answer, "read", path)
        return answer.data

    def export(self, kind: str, name: str) -> dict[int, str]:
        """Return the key material of each version: base64, or PEM of a key pair.

        Args:
            kind: ``encryption-key``, ``signing-key`` or ``hmac-key``.

        Raises:
            KMSError: the server does not give it.
        """
        path = f"{self.mount}/export/{kind}/{name}"
        answer = self._client.call(path, method="get")
        _require(answer, "export", path)
        keys = answer.data.get("keys")
        if not isinstance(keys, Mapping) or not all(isinstance(each, str) for each in keys.values()):
            raise ProviderConnectionError("the Vault server's answer holds no key material")
        return {int(number): text for number, text in sorted(keys.items(), key=lambda each: int(each[0]))}

    def key(self, name: str) -> RemoteKey:
        """Return a key for moving ciphertexts; errors as ``describe``."""
        return RemoteKey(self._client, self.mount, name, self.describe(name))


class RemoteKey:
    """A key of another engine; ``keystead.ports.TransitEnd``."""

    def __init__(self, client: VaultClient, mount: str, name: str, told: Mapping[str, Any]) -> None:
        if told.get("supports_encryption") is not True:
            raise InvalidInputError(f"{mount}/keys/{name} is of type {told.get('type')}, and encrypts nothing")
        self._client = client
        self._path = f"{mount}/{{}}/{name}"
        self.type = str(told.get("type"))
        self.is_derived = told.get("derived") is True

    def is_done(self, text: str) -> bool:
        """Return False: a ciphertext does not say whose it is."""
        return False

    def decrypt(self, items: Sequence[TransitItem]) -> list[bytes | KMSError]:
        """Return for each ciphertext its plaintext or the error that is its own."""
        return self._each(
            "decrypt", [{"ciphertext": item.value.decode("ascii"), **_bound(item)} for item in items], _plain
        )

    def encrypt(self, items: Sequence[TransitItem]) -> list[str | KMSError]:
        """Return for each plaintext its ciphertext or the error that is its own."""
        return self._each("encrypt", [{"plaintext": encode(item.value), **_bound(item)} for item in items], _text)

    def _each(
        self, verb: str, items: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T | KMSError]
    ) -> list[T | KMSError]:
        results: list[T | KMSError] = []
        for start, end in split(items, {}):
            results += self._asked(verb, items[start:end], read)
        return results

    def _asked(
        self, verb: str, items: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T | KMSError]
    ) -> list[T | KMSError]:
        path = self._path.format(verb)
        answer = self._client.call(path, {"batch_input": [*items]})
        if not has_results(answer):
            error = error_of(reason_of(answer), verb, path, answer=answer)
            if not isinstance(error, RequestTooLargeError) or len(items) < 2:
                raise error
            middle = len(items) // 2
            return [*self._asked(verb, items[:middle], read), *self._asked(verb, items[middle:], read)]
        told = batch_results(answer, len(items))
        return [item_error(each, path, verb) or read(each) for each in told]


def _bound(item: TransitItem) -> dict[str, str]:
    bound = {"context": item.context, "associated_data": item.associated_data}
    return {name: encode(content) for name, content in bound.items() if content}


def _plain(result: Mapping[str, Any]) -> bytes | KMSError:
    # OpenBao leaves an empty plaintext out of a batch's result.
    text = result.get("plaintext", "")
    plaintext = decode(text) if isinstance(text, str) else None
    return DecryptionError(DECRYPTION_FAILED) if plaintext is None else plaintext


def _text(result: Mapping[str, Any]) -> str | KMSError:
    text = result.get("ciphertext")
    return text if isinstance(text, str) else ProviderConnectionError("the Vault server answered without a ciphertext")


def _require(answer: Answer, verb: str, path: str) -> None:
    if not answer.is_ok:
        raise error_of(reason_of(answer), verb, path, answer=answer)
