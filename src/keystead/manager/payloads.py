"""Encrypting and decrypting whole inputs of any size and form, for the command line.

A keyring's algorithm decides what is written: chunks of bounded memory under a keyring for files, one message of at
most 64 MiB under any other. Reading goes by the first bytes.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from keystead.crypto.envelope import (
    HEADER_SIZE,
    MAGIC,
    MAX_PLAINTEXT,
    OVERHEAD,
    SUITE_STREAM,
    TEXT_PREFIX,
    Header,
    inspect,
    to_text,
)
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyNotFoundError,
)
from keystead.manager import streams
from keystead.manager.admin import open_keyring
from keystead.manager.manager import STREAM_ALGORITHM
from keystead.manager.session import FILES_KEYRING
from keystead.model import EncryptedData

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from keystead.manager.handle import KeyringHandle
    from keystead.manager.manager import KeyManager

KMS_MAGIC: Final = 0xAF
KMS_TEXT_PREFIX: Final = "ks2."
_LONGEST_TEXT: Final = len(TEXT_PREFIX) + -(-(MAX_PLAINTEXT + OVERHEAD) * 4 // 3) + 64

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was decrypted: its form (``stream``, ``message``, ``text``, ``kms``) and the plaintext's size."""

    form: str
    size_bytes: int


class Replayed(io.RawIOBase):
    """A source that gives ``head``, which was read from it already, and then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer`` from the head, then from the rest."""
        view = memoryview(buffer).cast("B")
        part = self._head[: len(view)] if self._head else self._rest.read(len(view))
        self._head = self._head[len(part) :] if self._head else b""
        view[: len(part)] = part
        return len(part)


async def seal_stream(
    km: KeyManager,
    source: BinaryIO,
    target: BinaryIO,
    *,
    keyring: str | None = None,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Encrypt all of ``source``, under the keyring ``files`` unless another is named; return the plaintext's size.

    Raises:
        InvalidInputError: over 64 MiB under a keyring that is not for files.
    """
    name = keyring or FILES_KEYRING
    handle = await _keyring_to_write(km, name, STREAM_ALGORITHM)
    if handle.ring.suite == SUITE_STREAM:
        return await streams.encrypt_stream(handle, source, target, context, progress=progress)
    plaintext = await _read_message(source, MAX_PLAINTEXT)
    target.write(handle.local_encrypt(plaintext, context=context))
    return len(plaintext)


async def seal_text(
    km: KeyManager, source: BinaryIO, *, keyring: str | None = None, context: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Return the ``ks1.`` text of all of ``source``, under the default keyring unless another is named, and its size.

    Raises:
        InvalidInputError: over 64 MiB, or a keyring for files, which has no text form.
    """
    name = keyring or km.default.name
    handle = await _keyring_to_write(km, name, None)
    if handle.ring.suite == SUITE_STREAM:
        raise InvalidInputError(f"keyring {name!r} is for files and has no text form; use another one for text")
    plaintext = await _read_message(source, MAX_PLAINTEXT)
    return to_text(handle.local_encrypt(plaintext, context=context)), len(plaintext)


async def open_any(
    km: KeyManager,
    source: BinaryIO,
    target: BinaryIO,
    *,
    keyring: str | None = None,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Decrypt whatever form ``source`` holds; of a stream, good chunks are written before a bad one is met.

    Raises:
        InvalidCiphertextError: no form that Keystead reads.
        DecryptionError: wrong key, wrong context, altered or truncated bytes, or another keyring's.
    """
    head = await asyncio.to_thread(_read_up_to, source, HEADER_SIZE)
    whole = io.BufferedReader(Replayed(head, source), 256 * 1024)
    if len(head) == HEADER_SIZE and head[0] == MAGIC and head[1] == SUITE_STREAM:
        handle = await _keyring_to_read(km, keyring or FILES_KEYRING, Header.from_bytes(head).key_id)
        session = await km.session()
        size = await streams.decrypt_stream(handle, session, whole, target, context, progress=progress)
        return Opened("stream", size)
    blob = await _read_message(whole, _LONGEST_TEXT)
    form = "message"
    if blob.lstrip()[:4] in (TEXT_PREFIX.encode(), KMS_TEXT_PREFIX.encode()):
        form = "text"
    if blob[:1] == bytes([KMS_MAGIC]) or blob.lstrip().startswith(KMS_TEXT_PREFIX.encode()):
        sealed = EncryptedData.parse(blob if form == "message" else _ascii(blob))
        plaintext = await km.decrypt(sealed, context=context)
        form = "kms"
    else:
        envelope = _ascii(blob) if form == "text" else blob
        key_id = inspect(envelope).data_key_id
        handle = await _keyring_to_read(km, keyring or km.default.name, key_id)
        plaintext = await handle.decrypt_local(envelope, context=context)
    target.write(plaintext)
    return Opened(form, len(plaintext))


async def _keyring_to_write(km: KeyManager, name: str, algorithm: str | None) -> KeyringHandle:
    """Return a keyring to encrypt under, made if there is none."""
    try:
        return await open_keyring(km, name)
    except KeyNotFoundError:
        return await (km.keyring(name, algorithm=algorithm) if algorithm else km.keyring(name))


async def _keyring_to_read(km: KeyManager, name: str, key_id: int) -> KeyringHandle:
    """Return the keyring to decrypt with; where the ciphertext is another one's, say whose."""
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        row = await work.find_key(key_id)
    if row is None:
        raise DataKeyNotLoadedError(key_id, await session.lifecycle.lookup.absence_of(key_id))
    if row.keyring != name:
        raise DecryptionError(f"this was encrypted under the keyring {row.keyring!r}: give --keyring {row.keyring}")
    return await open_keyring(km, name)


async def _read_message(source: BinaryIO, most: int) -> bytes:
    content = await asyncio.to_thread(_read_up_to, source, most + 1)
    if len(content) > most:
        raise InvalidInputError(
            f"over 64 MiB, which is too long for one message: use a keyring for files, such as {FILES_KEYRING!r} "
            "(`keystead key create NAME --files` makes others), without --text"
        )
    return content


def _read_up_to(source: BinaryIO, size: int) -> bytes:
    parts, left = [], size
    while left and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _ascii(blob: bytes) -> str:
    try:
        return blob.strip().decode("ascii")
    except UnicodeDecodeError:
        raise InvalidCiphertextError("malformed text form of an envelope") from None
