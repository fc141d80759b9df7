"""An importer by texts alone, as a command line gives them: dates, options, and the URI of a provider."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.fields import Importer, importer
from keystead.manager.assembly import provider_from_uri
from keystead.manager.manager import KeyManager
from keystead.providers.guard import GuardedProvider
from keystead.runtime.clock import SystemClock

_RAW_KEYS: Final = frozenset({"aws-encryption-sdk", "fraiseql"})
"""Formats whose keys are AES keys themselves, of 16, 24 or 32 bytes."""
_PROVIDED: Final = frozenset({"vault", "fraiseql"})
_CONTEXT: Final = "context."


@asynccontextmanager
async def opened_importer(
    km: KeyManager, format: str, *, until: str, keys: Sequence[bytes] = (), options: Mapping[str, Sequence[str]]
) -> AsyncIterator[Importer]:
    """Give an importer, and close what was opened for it.

    Args:
        km: the manager whose store has the keys of ``kratos-kms``.
        until: a day or a time in ISO 8601.
        keys: as files or variables hold them; raw AES keys also in base64 or hex.
        options: each option's values, as text: those of the format, ``provider`` for the URI of one, and
            ``context.NAME`` for a pair of an encryption context.

    Raises:
        InvalidInputError: an end, a key or an option that cannot be.
        KMSError: as ``importer``, and as opening a provider.
    """
    given: dict[str, Any] = {name: _option(name, values) for name, values in options.items() if name != "provider"}
    pairs = {name: given.pop(name) for name in [*given] if name.startswith(_CONTEXT)}
    if pairs:
        given["context"] = {name.removeprefix(_CONTEXT): value for name, value in pairs.items()}
    if format == "kratos-kms":
        given["km"] = km
        if keys:
            given["old_text_key"] = _raw_key(keys[0])
    elif keys:
        given["keys"] = [_raw_key(key) for key in keys] if format in _RAW_KEYS else list(keys)
    end = _moment(until)
    uris = options.get("provider", ())
    if not uris:
        yield importer(format, until=end, **given)
        return
    if len(uris) > 1 or format not in _PROVIDED:
        raise InvalidInputError(f"provider= is one URI, for the formats {' and '.join(sorted(_PROVIDED))}")
    opened = provider_from_uri(uris[0], clock=SystemClock(), random=os.urandom)
    guarded: Any = GuardedProvider(opened.provider, opened.name)
    try:
        if format == "vault":
            given |= {"provider": guarded, "key": given.get("key", opened.default_key_id)}
        else:
            given["providers"] = {opened.provider.provider_name: guarded}
        yield importer(format, until=end, **given)
    finally:
        if hasattr(opened.provider, "aclose"):
            await opened.provider.aclose()


def _option(name: str, values: Sequence[str]) -> object:
    if name in ("salts", "kms_keys", "encryption_keys"):
        return list(values)
    if name == "field_keys":
        return [_raw_key(value.encode()) for value in values]
    if len(values) > 1:
        raise InvalidInputError(f"option {name} of an importer is given once")
    if name == "use_hkdf":
        if values[0] not in ("true", "false"):
            raise InvalidInputError("use_hkdf is true or false")
        return values[0] == "true"
    return values[0]


def _raw_key(content: bytes) -> bytes:
    if len(content) in (16, 24, 32):
        return content
    text = content.strip()
    for read in (binascii.unhexlify, base64.b64decode):
        try:
            key = read(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) in (16, 24, 32):
            return key
    raise InvalidInputError("an AES key is 16, 24 or 32 bytes, as they are, in hex or in base64")


def _moment(text: str) -> datetime | date:
    try:
        return date.fromisoformat(text) if "T" not in text and " " not in text else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError("an importer's end is a day, 2027-03-31, or a time with a zone") from None
