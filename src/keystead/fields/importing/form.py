"""What a format is to an importer, and what their texts have in common."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, runtime_checkable

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KMSError
from keystead.model import SecretBytes

Keys: TypeAlias = str | bytes | SecretBytes | Sequence[str | bytes | SecretBytes]
"""One key or several, the newest first: text stands for its UTF-8."""
Opened: TypeAlias = object
"""A plaintext: bytes, text, or a value of a type that the form itself knows."""

MOST_KEYS: Final = 64
"""Each value that does not open is tried under all of them."""
NOT_OPENED: Final = "the value does not open: another key, or altered bytes"


class Format(Protocol):
    """One form of another system's values, with the keys to open it."""

    def recognises(self, value: bytes) -> bool:
        """Return whether a value has the form, as far as its bytes tell; no key is used."""


@runtime_checkable
class OpensHere(Protocol):
    """Values are opened in memory."""

    def open(self, value: bytes) -> Opened:
        """Return the plaintext.

        Raises:
            DecryptionError: it does not open.
        """


@runtime_checkable
class OpensThere(Protocol):
    """Values are opened by somebody who has to be waited for."""

    async def open_many(self, values: Sequence[bytes]) -> list[Opened | KMSError]:
        """Return for each value its plaintext, or why it does not open.

        Raises:
            KMSError: what concerns no single value, such as a service that does not answer.
        """


@runtime_checkable
class FindsEqual(Protocol):
    """Equal plaintexts have equal forms, so that a database finds them."""

    def form_of(self, text: str) -> str:
        """Return the one form that a text has. For comparing with what is stored, never for storing."""


def keys_of(given: Keys, format: str, *, option: str = "keys") -> tuple[bytes, ...]:
    """Return keys as bytes.

    Raises:
        InvalidInputError: none, too many, or of another type.
    """
    several = [given] if isinstance(given, str | bytes | bytearray | SecretBytes) else given
    if not isinstance(several, Sequence) or not several or len(several) > MOST_KEYS:
        raise InvalidInputError(f"format {format} takes 1 to {MOST_KEYS} {option}, the newest first: {option}=[...]")
    found = []
    for number, key in enumerate(several, 1):
        if not isinstance(key, str | bytes | bytearray | SecretBytes) or not key:
            raise InvalidInputError(
                f"{option} of format {format}: number {number} is no text and no bytes, or is empty; give what the "
                "other library was given"
            )
        found.append(key.encode() if isinstance(key, str) else bytes(key))
    return tuple(found)


def from_base64(text: bytes, *, url_safe: bool = False) -> bytes | None:
    """Return the bytes of padded base64, or None where it is not the one spelling of them."""
    try:
        raw = base64.b64decode(text, altchars=b"-_" if url_safe else None, validate=True)
    except (binascii.Error, ValueError):
        return None
    written = base64.urlsafe_b64encode(raw) if url_safe else base64.b64encode(raw)
    return raw if written == text else None


def not_opened() -> DecryptionError:
    """Return the one error for a value that does not open, whatever the reason."""
    return DecryptionError(NOT_OPENED)


def not_of(format: str) -> InvalidCiphertextError:
    """Return the error for a value that has not the form."""
    return InvalidCiphertextError(f"not a value in the form {format}")
