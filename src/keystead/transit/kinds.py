"""What each type of Transit key is made of: the purpose and the algorithm of its keyring."""

from __future__ import annotations

from typing import Final

from keystead.errors import InvalidInputError
from keystead.model import KeyringPurpose, TransitType

SMALLEST_HMAC_KEY: Final = 32
LARGEST_HMAC_KEY: Final = 512
_ALGORITHMS: Final = {
    TransitType.AES_128: "AES-128-GCM",
    TransitType.AES_256: "AES-256-GCM",
    TransitType.CHACHA20: "ChaCha20-Poly1305",
    TransitType.ED25519: "Ed25519",
    TransitType.ECDSA_P256: "ECDSA-P256",
    TransitType.ECDSA_P384: "ECDSA-P384",
    TransitType.ECDSA_P521: "ECDSA-P521",
    TransitType.RSA_2048: "RSA-2048",
    TransitType.RSA_3072: "RSA-3072",
    TransitType.RSA_4096: "RSA-4096",
}


def type_of(text: str) -> TransitType:
    """Return the type of a name.

    Raises:
        InvalidInputError: there is none.
    """
    try:
        return TransitType(text)
    except ValueError:
        raise InvalidInputError(f"unknown key type {text}") from None


def algorithm_name(kind: TransitType, *, convergent: bool = False, key_size: int = 0) -> str:
    """Return the algorithm of the keyring of a key."""
    if kind is TransitType.HMAC:
        return f"HMAC/{key_size}"
    return _ALGORITHMS[kind] + ("-CONVERGENT" if convergent else "")


def purpose_of(kind: TransitType) -> KeyringPurpose:
    """Return the purpose of the keyring of a key."""
    if kind.is_symmetric:
        return KeyringPurpose.ENCRYPT
    return KeyringPurpose.MAC if kind is TransitType.HMAC else KeyringPurpose.SIGN


def require_size(kind: TransitType, key_size: int) -> None:
    """Raise ``InvalidInputError`` unless a key of that type may be asked for in that size; 0 where none is named."""
    if key_size == 0:
        return
    if kind is not TransitType.HMAC:
        raise InvalidInputError(f"key_size is not valid for algorithm {kind}")
    if not SMALLEST_HMAC_KEY <= key_size <= LARGEST_HMAC_KEY:
        raise InvalidInputError(f"invalid key_size {key_size}")


def require_derived(*, derived: bool, convergent: bool) -> None:
    """Raise ``InvalidInputError`` for convergent encryption without derivation."""
    if convergent and not derived:
        raise InvalidInputError("convergent encryption requires derivation to be enabled")


def require_possible(kind: TransitType, *, derived: bool, convergent: bool, key_size: int) -> None:
    """Raise unless there may be a key of that type with those options.

    Raises:
        InvalidInputError: there may not.
    """
    require_derived(derived=derived, convergent=convergent)
    require_size(kind, key_size)
    if derived and not kind.derives:
        raise InvalidInputError(f"key derivation and convergent encryption not supported for keys of type {kind}")
    if convergent and not kind.is_symmetric:
        raise InvalidInputError(f"convergent encryption not supported for keys of type {kind}")
    if kind is TransitType.HMAC and key_size == 0:
        raise InvalidInputError("invalid key size for HMAC key, must be between 32 and 512 bytes")
