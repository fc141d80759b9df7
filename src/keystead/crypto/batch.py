"""Many messages under one look at the keyring: what ``local_encrypt`` and ``local_decrypt`` do, without their calls.

The contexts are encoded already, reserved keys allowed. Spec: docs/spec/envelope-v1.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidTag

from keystead.crypto.hot_path import BLOCK, FAILED
from keystead.crypto.keyring import Keyring
from keystead.errors import DecryptionError


def seal_all(ring: Keyring, messages: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return an envelope for each plaintext and encoded context.

    Raises:
        KMSError: as ``Keyring.seal``.
    """
    sealed: list[bytes] = []
    counted = 0
    header, encrypt, pop = ring.sealer
    try:
        for plaintext, context in messages:
            if len(plaintext) < BLOCK:
                try:
                    nonce = pop()
                except IndexError:
                    pass
                else:
                    sealed.append(header + nonce + encrypt(nonce, plaintext, header + context))
                    counted += len(plaintext)
                    continue
            sealed.append(ring.seal(plaintext, context))
            header, encrypt, pop = ring.sealer
    finally:
        ring.byte_count.add(counted)
    return sealed


def open_one(ring: Keyring, ciphertext: bytes, context: bytes) -> bytes:
    """Return the plaintext of an envelope in binary form.

    Raises:
        DecryptionError, KMSError: as ``Keyring.open``.
    """
    header = ciphertext[:26]
    try:
        return ring.derived[header](ciphertext[26:38], ciphertext[38:], header + context)
    except InvalidTag:
        raise DecryptionError(FAILED) from None
    except (KeyError, TypeError, ValueError):
        return ring.open(ciphertext, context)


def open_all(ring: Keyring, messages: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the plaintext of each envelope and encoded context; the first failure ends it.

    Raises:
        DecryptionError, KMSError: as ``Keyring.open``.
    """
    opened: list[bytes] = []
    # Made once: a slice spelled in brackets is built anew by every turn.
    header_part, nonce_part, sealed_part = slice(None, 26), slice(26, 38), slice(38, None)
    for ciphertext, context in messages:
        header = ciphertext[header_part]
        try:
            decrypt = ring.derived[header]
            opened.append(decrypt(ciphertext[nonce_part], ciphertext[sealed_part], header + context))
        except InvalidTag:
            raise DecryptionError(FAILED) from None
        except (KeyError, TypeError, ValueError):
            opened.append(ring.open(ciphertext, context))
    return opened
