"""``local_encrypt`` and ``local_decrypt`` as closures over a keyring.

Closures because they are measured to be the fastest form Python has: no bound method, no attribute that is not
needed, one tuple read. Each call left out here is 2 to 5 % of a 64-byte encryption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag

from keystead.crypto.context import caller_aad
from keystead.errors import DecryptionError, InvalidInputError, NoActiveKeyError

if TYPE_CHECKING:
    from keystead.crypto.keyring import Keyring

Bytes: TypeAlias = bytes | bytearray | memoryview
BLOCK: Final = 64 * 1024
"""A message counts ``1 + len // BLOCK`` against its salt; from one block on it leaves the fast path."""
FAILED: Final = "decryption failed: wrong key, wrong context or altered bytes"


class LocalEncrypt(Protocol):
    """Signature of ``local_encrypt``."""

    def __call__(self, plaintext: Bytes, *, context: Mapping[str, str] | None = None) -> bytes:
        """Encrypt under the active data key; see ``Keyring``."""


class LocalDecrypt(Protocol):
    """Signature of ``local_decrypt``."""

    def __call__(self, ciphertext: Bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt an envelope; see ``Keyring``."""


class ByteCount:
    """How many bytes a keyring has sealed: the hot path notes each size, which no other thread undoes.

    Args:
        sizes: what it notes them in.
    """

    __slots__ = ("_counted", "_sizes", "add")

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._counted = 0
        self.add = sizes.append

    def settle(self) -> None:
        """Add up what was noted, so that it takes no more room than the nonces that are ready. One at a time."""
        noted = len(self._sizes)
        self._counted += sum(self._sizes[:noted])
        del self._sizes[:noted]

    def take(self) -> int:
        """Return the count, and begin again at zero. One at a time."""
        self.settle()
        taken, self._counted = self._counted, 0
        return taken


def no_cipher(nonce: Bytes, data: Bytes, aad: Bytes | None) -> bytes:
    """Stand for the cipher of a keyring that has no active version at hand."""
    raise NoActiveKeyError("no data key is loaded")


def bind(ring: Keyring) -> tuple[LocalEncrypt, LocalDecrypt, ByteCount]:
    """Return the hot path of ``ring`` and the count of what it seals."""
    byte_count = ByteCount([])
    note = byte_count.add
    # Made once: a slice spelled in brackets is built anew by every call.
    header_part, nonce_part, sealed_part = slice(None, 26), slice(26, 38), slice(38, None)

    def local_encrypt(plaintext: Bytes, *, context: Mapping[str, str] | None = None) -> bytes:
        header, encrypt, pop = ring.sealer
        # Of other buffers len() need not be the size in bytes, and their content may change under the cipher.
        if plaintext.__class__ is bytes and (size := len(plaintext)) < BLOCK:
            aad = header if context is None else header + caller_aad(context)
            try:
                nonce = pop()
            except IndexError:
                return ring.seal(plaintext, aad[len(header) :])
            sealed = header + nonce + encrypt(nonce, plaintext, aad)
            note(size)
            return sealed
        return ring.seal(plaintext, caller_aad(context))

    def local_decrypt(ciphertext: Bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        try:
            header: bytes = ciphertext[header_part]  # type: ignore[assignment]
            aad = header if context is None else header + caller_aad(context)
            return ring.derived[header](ciphertext[nonce_part], ciphertext[sealed_part], aad)  # type: ignore[arg-type]
        except InvalidTag:
            raise DecryptionError(FAILED) from None
        except InvalidInputError:
            raise
        except (KeyError, TypeError, ValueError, BufferError):
            pass
        return ring.open(ciphertext, caller_aad(context))

    return local_encrypt, local_decrypt, byte_count
