"""Values that are plainly another system's: they are not taken for values in clear."""

from __future__ import annotations

from typing import Final

from keystead.errors import InvalidInputError
from keystead.fields.importing.formats.fernet import is_token
from keystead.fields.importing.formats.vault import is_transit_text

_STARTS: Final = (b"gAAA", b"vault:v")


def require_clear(value: object) -> None:
    """Raise ``InvalidInputError`` for a Fernet token or a text of Transit: its ciphertext would be encrypted.

    Other forms look like values that somebody may well have in clear.
    """
    if not isinstance(value, str | bytes):
        return
    raw = value.encode(errors="replace") if isinstance(value, str) else value
    if raw.startswith(_STARTS) and (is_token(raw) or is_transit_text(raw)):
        raise InvalidInputError(
            "a value in clear has the form of another library; name that with importer= (--import), or declare the "
            "field with allow_envelopes=True if ciphertexts are what it holds"
        )
