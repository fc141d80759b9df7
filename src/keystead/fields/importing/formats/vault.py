"""``vault:vN:`` texts that an application had encrypted by Transit itself, of HashiCorp Vault or OpenBao.

The key stays in the server, which opens some hundred values in one request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from keystead.errors import InvalidInputError, KMSError
from keystead.fields.importing.form import from_base64
from keystead.ports import OpensTransitTexts

_FORM: Final = re.compile(rb"vault:v[1-9][0-9]{0,9}:([A-Za-z0-9+/]+={0,2})")
_LEAST: Final = 12 + 16
"""A nonce and a tag."""


class TransitTexts:
    """Texts under one key of a Transit engine.

    Args:
        provider: ``VaultKMSProvider``, or another that opens Transit's texts.
        key: the key's name, with its mount in front where that is another than the provider's.
        context: what the key is derived by, the same for all values; bytes, or text for its UTF-8, before base64.
        associated_data: what was sent as such, the same for all values.
    """

    def __init__(
        self, provider: OpensTransitTexts, key: str, context: bytes | str = b"", associated_data: bytes | str = b""
    ) -> None:
        if not isinstance(provider, OpensTransitTexts):
            raise InvalidInputError("provider= of format vault is a VaultKMSProvider")
        if not isinstance(key, str) or not key:
            raise InvalidInputError("key= of format vault is the name of the Transit key")
        self._provider = provider
        self._key = key
        self._context, self._associated = _bytes(context), _bytes(associated_data)

    def recognises(self, value: bytes) -> bool:
        """Return whether it is such a text, in its one spelling."""
        return is_transit_text(value)

    async def open_many(self, values: Sequence[bytes]) -> list[object | KMSError]:
        """Return the plaintext of each text, or why it does not open."""
        texts = [value.decode("ascii") for value in values]
        return [
            *await self._provider.decrypt_texts(
                texts, self._key, context=self._context, associated_data=self._associated
            )
        ]


def is_transit_text(value: bytes) -> bool:
    """Return whether bytes are a text of Transit in its one spelling."""
    match = _FORM.fullmatch(value)
    raw = None if match is None else from_base64(match[1])
    return raw is not None and len(raw) >= _LEAST


def _bytes(given: bytes | str) -> bytes:
    if not isinstance(given, str | bytes):
        raise InvalidInputError("context= and associated_data= of format vault are bytes or text")
    return given.encode() if isinstance(given, str) else given
