"""Suite 0x10: files and pipes of any size in bounded memory.

The 26 header bytes, then a C2SP chunked-encryption stream under the derived key, bound to header and context. Good
chunks are written before a later bad one is seen, so whoever writes a file renames it only after the call returned.
Spec: docs/spec/envelope-v1.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from keystead.crypto.envelope import HEADER_SIZE, SUITE_STREAM, Header, derive_key
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError

READ_SIZE: Final = 256 * 1024

Progress = Callable[[int], None]


def encrypt_stream(
    data_key: bytes | bytearray,
    header: bytes,
    source: BinaryIO,
    target: BinaryIO,
    *,
    aad_context: bytes,
    progress: Progress | None = None,
) -> int:
    """Write ``header`` and the encryption of all of ``source`` to ``target``; return the plaintext's size in bytes.

    ``source`` may give less than asked for (a pipe); it and ``target`` must block. ``aad_context`` is an encoded
    context. ``progress`` is called with the number of bytes each read of ``source`` gave.

    Raises:
        InvalidInputError: a header of another suite, or a file object that does not block.
        OSError: what ``source`` or ``target`` raise.
    """
    _require_stream(header)
    encryptor = Cobblestone256Encryptor(derive_key(data_key, header), header + aad_context)
    _write(target, header)
    size = 0
    for chunk in _chunks(source, progress):
        size += len(chunk)
        _write(target, encryptor.update(chunk))
    _write(target, encryptor.finalize())
    return size


def decrypt_stream(
    data_key: bytes | bytearray,
    source: BinaryIO,
    target: BinaryIO,
    *,
    header: bytes,
    aad_context: bytes,
    progress: Progress | None = None,
) -> int:
    """Write the plaintext of the stream that follows ``header`` in ``source``; return its size in bytes.

    Read the header first, with ``read_header``: it names the data key. What was written is to be thrown away when
    this raises.

    Raises:
        DecryptionError: wrong key, wrong context, altered, reordered or truncated bytes.
        InvalidInputError: a header of another suite, or a file object that does not block.
        OSError: what ``source`` or ``target`` raise.
    """
    _require_stream(header)
    decryptor = Cobblestone256Decryptor(derive_key(data_key, header), header + aad_context)
    size = 0
    for chunk in _chunks(source, progress):
        size += _write(target, _opened(partial(decryptor.update, chunk)))
    return size + _write(target, _opened(decryptor.finalize))


def read_header(source: BinaryIO) -> bytes:
    """Return the 26 header bytes of a stream at the start of ``source``, and read no further.

    Raises:
        InvalidCiphertextError: ``source`` ends before, or holds no stream.
        InvalidInputError: a file object that does not block.
    """
    header = b""
    while len(header) < HEADER_SIZE:
        part = _read(source, HEADER_SIZE - len(header))
        if not part:
            raise InvalidCiphertextError("the stream is truncated in its header")
        header += part
    if Header.from_bytes(header).suite != SUITE_STREAM:
        raise InvalidCiphertextError("not a stream: decrypt it as one message")
    return header


def _require_stream(header: bytes) -> None:
    if len(header) != HEADER_SIZE or header[1] != SUITE_STREAM:
        raise InvalidInputError("a stream's header is 26 bytes of suite 0x10")


def _opened(step: Callable[[], bytes]) -> bytes:
    try:
        return step()
    except (InvalidTag, ValueError):
        raise DecryptionError("decryption failed: wrong key, wrong context, altered or truncated bytes") from None


def _chunks(source: BinaryIO, progress: Progress | None) -> Iterator[bytes]:
    while chunk := _read(source, READ_SIZE):
        yield chunk
        if progress is not None:
            progress(len(chunk))


def _read(source: BinaryIO, size: int) -> bytes:
    # A non-blocking source answers None when it has nothing yet, which must never pass for its end.
    chunk: bytes | None = source.read(size)
    if chunk is None:
        raise InvalidInputError("the source does not block; hand over a blocking file object")
    return chunk


def _write(target: BinaryIO, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        # An unbuffered target may take less than it is given.
        written: int | None = target.write(rest)
        if written is None:
            raise InvalidInputError("the target does not block; hand over a blocking file object")
        rest = rest[written:]
    return len(data)
