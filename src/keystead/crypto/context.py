"""Context encoding: a caller's ``dict[str, str]`` as the canonical bytes that are authenticated with a ciphertext.

Spec: docs/spec/context-v1.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from keystead.errors import InvalidInputError

RESERVED_PREFIX: Final = "keystead."
"""Keys beginning so are Keystead's own; a caller who uses one is refused."""

_RESERVED: Final = RESERVED_PREFIX.encode()
_u32 = Struct(">I").pack


def encode_context(context: Mapping[str, str] | None) -> bytes:
    """Return the canonical bytes of ``context``; None and ``{}`` both give zero bytes.

    Pairs are sorted by the UTF-8 bytes of the key, each ``u32be(len(key)) key u32be(len(value)) value``. Text is
    encoded exactly as given, without Unicode normalisation.

    Raises:
        InvalidInputError: not a mapping, a key or value that is not ``str``, or text with a lone surrogate.
    """
    if context is None:
        return b""
    parts: list[bytes] = []
    try:
        # Text sorts by code point as its UTF-8 sorts by byte.
        for key in sorted(context):
            name, value = str.encode(key), str.encode(context[key])
            parts += (_u32(len(name)), name, _u32(len(value)), value)
    except (TypeError, AttributeError, UnicodeEncodeError):
        raise _refusal(context) from None
    if not parts and not isinstance(context, Mapping):
        raise _refusal(context)
    return b"".join(parts)


def caller_aad(context: Mapping[str, str] | None) -> bytes:
    """Return the canonical bytes of a context that a caller gave.

    Raises:
        InvalidInputError: as ``encode_context``, and for keys beginning with ``keystead.``, which are reserved.
    """
    encoded = encode_context(context)
    if _RESERVED in encoded:
        for key in context or ():
            if key.startswith(RESERVED_PREFIX):
                raise InvalidInputError(f"context keys beginning with {RESERVED_PREFIX!r} are reserved; rename {key!r}")
    return encoded


def check_context(context: Mapping[str, str] | None) -> dict[str, str]:
    """Return a caller's context as a plain dict of its own; None gives ``{}``.

    Raises:
        InvalidInputError: as ``caller_aad``.
    """
    caller_aad(context)
    return dict(context or {})


def _refusal(context: object) -> InvalidInputError:
    """Say which part of ``context`` cannot be encoded, without telling a value."""
    if not isinstance(context, Mapping):
        return InvalidInputError(f"a context is a dict of str to str, not {type(context).__name__}")
    for key, value in context.items():
        if not isinstance(key, str):
            return InvalidInputError(f"a context key must be str, not {type(key).__name__}; pass str(key)")
        if not isinstance(value, str):
            return InvalidInputError(
                f"the context value of {key!r} must be str, not {type(value).__name__}; pass str({key})"
            )
    return InvalidInputError("the context has a lone surrogate, which UTF-8 cannot encode")
