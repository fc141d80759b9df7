"""Files and pipes under a keyring of the stream suite, in a worker thread, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from keystead.crypto import stream
from keystead.crypto.context import caller_aad
from keystead.crypto.envelope import parse_header
from keystead.errors import DataKeyNotLoadedError

if TYPE_CHECKING:
    from keystead.manager.handle import KeyringHandle
    from keystead.manager.session import Session


async def encrypt_stream(
    handle: KeyringHandle,
    source: BinaryIO,
    target: BinaryIO,
    context: Mapping[str, str] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Encrypt ``source`` to ``target`` under a salt of its own and return how many bytes were written."""
    aad = caller_aad(context)
    header, key = handle.ring.new_header(1)
    return await asyncio.to_thread(
        stream.encrypt_stream, bytes(key.key), header, source, target, aad_context=aad, progress=progress
    )


async def decrypt_stream(
    handle: KeyringHandle,
    session: Session,
    source: BinaryIO,
    target: BinaryIO,
    context: Mapping[str, str] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Decrypt ``source`` to ``target``; good chunks are written before a bad one is met.

    Raises:
        DecryptionError: wrong key, wrong context, altered or truncated: what was written must not be used.
    """
    aad = caller_aad(context)
    header = await asyncio.to_thread(stream.read_header, source)
    parsed = parse_header(header)
    try:
        key = handle.ring.find(parsed)
    except DataKeyNotLoadedError as exc:
        await session.lifecycle.lookup.fetch(handle.ring, exc.data_key_id)
        key = handle.ring.find(parsed)
    return await asyncio.to_thread(
        stream.decrypt_stream,
        bytes(key.key),
        source,
        target,
        header=header,
        aad_context=aad,
        progress=progress,
    )
