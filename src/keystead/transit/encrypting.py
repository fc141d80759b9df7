"""Encrypting, decrypting, rewrapping, and data keys. Computes only; what is slow about it is RSA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from keystead.crypto.batch import open_all, open_one, seal_all
from keystead.crypto.envelope import NONCE_SIZE, OVERHEAD
from keystead.crypto.hot_path import FAILED
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.model import TransitType
from keystead.transit import base64_text
from keystead.transit.ciphers import MARK, open_sealed, seal, seal_convergent
from keystead.transit.opened import OpenKey
from keystead.transit.texts import parted, sealed_bytes, written

CONTEXT_MISSING: Final = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
    "per-request information must be included in order to perform operations with the key"
)
DATA_KEY_BITS: Final = (128, 256, 512)
_OAEP: Final = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
_OAEP_OVERHEAD: Final = 66


def encrypt(
    key: OpenKey, plaintext: bytes, *, context: bytes | None = None, aad: bytes = b"", version: int = 0
) -> tuple[str, int]:
    """Return the ciphertext and the version that made it.

    Raises:
        InvalidInputError: a key that does not encrypt, a version that must not, or no context where one is needed.
        KMSError: as ``Keyring.seal``.
    """
    _require_kind(key, "encryption")
    chosen = key.to_protect(version)
    derived = context_of(key, context)
    if key.record.type.is_rsa:
        return written(chosen.version, _rsa_encrypt(key, chosen, plaintext)), chosen.version
    if key.record.convergent:
        blob = seal_convergent(key.ring, chosen, plaintext, aad=aad, context=derived)
    elif derived is None and chosen.version == key.latest:
        blob = _seal_all(key, chosen, ((plaintext, aad),))[0]
    else:
        blob = seal(key.ring, chosen, plaintext, aad=aad, context=derived, random=key.made.random)
    return written(chosen.version, blob), chosen.version


def encrypt_many(key: OpenKey, messages: Sequence[tuple[bytes, bytes]]) -> tuple[list[str], int]:
    """Return the ciphertexts of plaintexts with their associated data, all by the latest version, and that version.

    Of a key that ``takes_many``; errors as ``encrypt``.
    """
    chosen = key.to_protect(0)
    head, encode = written(chosen.version, b""), base64_text.encode
    return [head + encode(blob) for blob in _seal_all(key, chosen, messages)], chosen.version


def decrypt_many(key: OpenKey, texts: Sequence[str]) -> list[bytes] | None:
    """Return the plaintexts of ciphertexts, all by the latest version and without associated data.

    Of a key that ``takes_many``. None where one of them is not of that kind, or does not open: which one and why,
    ``decrypt`` tells of each.

    Raises:
        KMSError: as ``Keyring.open``.
    """
    chosen = key.versions.get(key.latest)
    if chosen is None or chosen.outside:
        return None
    head, own = written(chosen.version, b""), chosen.id.to_bytes(8, "big")
    size, decode, messages = len(head), base64_text.decode, []
    try:
        for text in texts:
            blob = decode(text[size:])
            if not text.startswith(head) or blob[2:10] != own or len(blob) < OVERHEAD:
                return None
            messages.append((blob, MARK))
        return open_all(key.ring, messages)
    except (InvalidInputError, DecryptionError):
        return None


def takes_many(key: OpenKey) -> bool:
    """Whether many plaintexts are encrypted by the keyring itself: a symmetric key without derivation."""
    return key.record.type.is_symmetric and not key.record.derived


def decrypt(key: OpenKey, text: str, *, context: bytes | None = None, aad: bytes = b"") -> bytes:
    """Return the plaintext of a ciphertext.

    Raises:
        InvalidInputError: no ciphertext, a version that must not decrypt, or no context where one is needed.
        DecryptionError: another key, context or associated data, or altered bytes.
    """
    chosen, blob, derived = opening(key, text, context)
    if key.record.type.is_rsa:
        return _rsa_decrypt(key, chosen, blob)
    try:
        if derived is not None or chosen.outside:
            return open_sealed(key.ring, chosen, blob, aad=aad, context=derived)
        if len(blob) < NONCE_SIZE:
            raise InvalidCiphertextError("invalid ciphertext length")
        if len(blob) < OVERHEAD or blob[2:10] != chosen.id.to_bytes(8, "big"):
            raise DecryptionError(FAILED)
        return open_one(key.ring, blob, MARK + aad)
    except InvalidCiphertextError as exc:
        told = str(exc)
        raise DecryptionError(told if told == "invalid ciphertext length" else _failed(key)) from None
    except DecryptionError:
        raise DecryptionError(_failed(key)) from None


def rewrap(
    key: OpenKey, text: str, *, context: bytes | None = None, aad: bytes = b"", version: int = 0
) -> tuple[str, int]:
    """Return the same plaintext under another version, and that version; errors as ``decrypt`` and ``encrypt``."""
    return encrypt(key, decrypt(key, text, context=context, aad=aad), context=context, aad=aad, version=version)


def data_key(
    key: OpenKey, bits: int = 256, *, context: bytes | None = None, aad: bytes = b"", version: int = 0
) -> tuple[bytes, str, int]:
    """Return a new random key, the same encrypted, and the version; errors as ``encrypt``."""
    require_bits(bits)
    drawn = key.made.random(bits // 8)
    return drawn, *encrypt(key, drawn, context=context, aad=aad, version=version)


def require_bits(bits: int) -> None:
    """Raise ``InvalidInputError`` unless a data key may be of so many bits."""
    if bits not in DATA_KEY_BITS:
        raise InvalidInputError("invalid bit length")


def context_of(key: OpenKey, context: bytes | None) -> bytes | None:
    """Return the context that a key is derived for; None for a key without derivation, whatever was given.

    Raises:
        InvalidInputError: none was given where one is needed.
    """
    if not key.record.derived:
        return None
    if not context:
        raise InvalidInputError(CONTEXT_MISSING)
    return context


def require_encrypts(key: OpenKey, context: bytes | None, version: int) -> None:
    """Raise as ``encrypt`` does of anything but what is encrypted."""
    _require_kind(key, "encryption")
    key.to_protect(version)
    context_of(key, context)


def opening(key: OpenKey, text: str, context: bytes | None) -> tuple[LoadedKey, bytes, bytes | None]:
    """Return the version that a ciphertext names, ``v0`` meaning 1, its bytes, and the context to derive the key for.

    Raises:
        InvalidInputError: as ``decrypt``.
    """
    _require_kind(key, "decryption")
    number, rest = parted(text, "ciphertext")
    chosen = key.to_open(number or 1)
    return chosen, sealed_bytes(rest), context_of(key, context)


def _seal_all(key: OpenKey, version: LoadedKey, messages: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Return envelopes, all under a version that is the latest by this look at the key."""
    marked = ((plaintext, MARK + aad) for plaintext, aad in messages)
    blobs, own = seal_all(key.ring, marked), version.id.to_bytes(8, "big")
    # The keyring may have a newer one by now: what it seals would not open under the version that the text names.
    for place, blob in enumerate(blobs):
        if blob[2:10] != own:
            plaintext, aad = messages[place]
            blobs[place] = seal(key.ring, version, plaintext, aad=aad, context=None, random=key.made.random)
    return blobs


def _require_kind(key: OpenKey, action: str) -> None:
    if not key.record.type.encrypts:
        raise InvalidInputError(f"message {action} not supported for key type {key.record.type}")


def _failed(key: OpenKey) -> str:
    kind = "chacha20poly1305" if key.record.type is TransitType.CHACHA20 else "cipher"
    return f"{kind}: message authentication failed"


def _rsa_encrypt(key: OpenKey, version: LoadedKey, plaintext: bytes) -> bytes:
    public = key.pair(version).public
    assert isinstance(public, rsa.RSAPublicKey)  # noqa: S101 -- what the keyring's algorithm says
    if len(plaintext) > public.key_size // 8 - _OAEP_OVERHEAD:
        raise InvalidInputError("failed to RSA encrypt the plaintext: crypto/rsa: message too long for RSA key size")
    return public.encrypt(plaintext, _OAEP)


def _rsa_decrypt(key: OpenKey, version: LoadedKey, blob: bytes) -> bytes:
    private = key.pair(version).private
    if private is None:
        raise InvalidInputError("cannot decrypt ciphertext, key version does not have a private counterpart")
    assert isinstance(private, rsa.RSAPrivateKey)  # noqa: S101 -- what the keyring's algorithm says
    try:
        return private.decrypt(blob, _OAEP)
    except ValueError:
        raise DecryptionError("failed to RSA decrypt the ciphertext: crypto/rsa: decryption error") from None
