"""Key pairs of devices: their kinds, how they are made, and how one opens what was encrypted to it.

Spec: docs/spec/client-keys-v1.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_public_key,
)

from keystead.crypto.framing import framed
from keystead.errors import DecryptionError
from keystead.model import SecretBytes
from keystead.ports import PairKind

FAILED: Final = "Failed to decrypt data"
"""What callers are told, whatever the reason."""


class Algorithm(StrEnum):
    """How something is encrypted to a public key."""

    RSA_OAEP_SHA1 = "RSA_OAEP_SHA1"
    RSA_OAEP_SHA256 = "RSA_OAEP_SHA256"
    HPKE_X25519 = "HPKE_X25519"


class Purpose(StrEnum):
    """What a ciphertext is for, as HPKE binds it."""

    PASSCODE = "passcode"
    TRANSACTION_PIN = "transaction_pin"
    DATA = "data"


_OF_RSA: Final = (Algorithm.RSA_OAEP_SHA1, Algorithm.RSA_OAEP_SHA256)
ALGORITHMS: Final[Mapping[PairKind, tuple[Algorithm, ...]]] = {
    PairKind.RSA_2048: _OF_RSA,
    PairKind.RSA_3072: _OF_RSA,
    PairKind.X25519: (Algorithm.HPKE_X25519,),
}
"""What each kind opens, its default first."""

_BITS: Final = {PairKind.RSA_2048: 2048, PairKind.RSA_3072: 3072}
_OAEP: Final = {
    # SHA-1 is what documented clients encrypt with; OAEP needs no hash that is free of collisions.
    Algorithm.RSA_OAEP_SHA1: OAEP(MGF1(SHA1()), SHA1(), None),  # noqa: S303
    Algorithm.RSA_OAEP_SHA256: OAEP(MGF1(SHA256()), SHA256(), None),
}
_HPKE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HPKE_OVERHEAD: Final = 48
"""Bytes of a public key and a tag: no ciphertext has fewer."""
# The base point, so that X25519 goes all the way, and a tag that fits nothing.
_HPKE_STAND_IN: Final = b"\x09" + bytes(31) + bytes(16)

_Private: TypeAlias = RSAPrivateKey | X25519PrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair in clear: ``private`` PKCS#8, ``public`` SubjectPublicKeyInfo, both in DER."""

    kind: PairKind
    private: SecretBytes
    public: bytes


def make_pair(kind: PairKind) -> Pair:
    """Make a key pair. RSA takes the processor for some hundred milliseconds: call it in a thread."""
    made: _Private
    made = X25519PrivateKey.generate() if kind is PairKind.X25519 else generate_private_key(65537, _BITS[kind])
    private = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Pair(kind, SecretBytes(private), public)


def public_pem(public: bytes) -> str:
    """Return a public half as PEM, its last line ended."""
    loaded = load_der_public_key(public)
    return loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def public_der(pem: str) -> bytes:
    """Return a public half, SubjectPublicKeyInfo, from its PEM."""
    loaded = load_pem_public_key(pem.encode("ascii"))
    return loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def binding(key_id: str, device_id: str, purpose: Purpose) -> bytes:
    """Return what HPKE binds a ciphertext to."""
    return framed("keystead client key v1", key_id, device_id, purpose)


class OpenKey:
    """A private half, parsed once: parsing takes longer than decrypting.

    Args:
        private: PKCS#8 in DER, from an envelope that has opened: its numbers are not checked again.
    """

    __slots__ = ("_block_size", "_private", "kind")

    def __init__(self, kind: PairKind, private: bytes) -> None:
        self.kind = kind
        self._private = cast(_Private, load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True))
        # Asked once: what a private key is of is asked of an abstract class.
        self._block_size = self._private.key_size // 8 if isinstance(self._private, RSAPrivateKey) else None

    def __repr__(self) -> str:
        return f"OpenKey({self.kind})"

    def open(self, ciphertext: bytes, algorithm: Algorithm, info: bytes = b"") -> SecretBytes:
        """Return the plaintext.

        Args:
            info: what HPKE has bound it to, by ``binding``; OAEP binds nothing.

        Raises:
            DecryptionError: another key, algorithm or binding, or altered bytes: the same error for all.
        """
        is_one = algorithm in ALGORITHMS[self.kind] and self._takes(len(ciphertext))
        # What would be refused unread takes as long as the rest, so that the time does not tell why: another is read.
        block = ciphertext if is_one else self._stand_in()
        try:
            plaintext = self._decrypted(block, algorithm if is_one else ALGORITHMS[self.kind][0], info)
            if is_one:
                return SecretBytes(plaintext)
        except (ValueError, InvalidTag):
            pass
        # Outside the except block: what OpenSSL says of the padding must not travel on.
        raise DecryptionError(FAILED)

    def _takes(self, size: int) -> bool:
        return size >= _HPKE_OVERHEAD if self._block_size is None else size == self._block_size

    def _stand_in(self) -> bytes:
        """Return what is as long as a ciphertext, and less than the modulus of any key."""
        return _HPKE_STAND_IN if self._block_size is None else bytes(1) + b"\x5a" * (self._block_size - 1)

    def _decrypted(self, block: bytes, algorithm: Algorithm, info: bytes) -> bytes:
        if self._block_size is None:
            return _HPKE.decrypt(block, cast(X25519PrivateKey, self._private), info)
        return cast(RSAPrivateKey, self._private).decrypt(block, _OAEP[algorithm])


def encrypt_to(public: bytes, plaintext: bytes, algorithm: Algorithm, info: bytes = b"") -> bytes:
    """Encrypt as a client does.

    Raises:
        ValueError: longer than the key takes, or an algorithm that is not one of its kind.
    """
    loaded = load_der_public_key(public)
    if isinstance(loaded, RSAPublicKey) and algorithm in _OAEP:
        return loaded.encrypt(plaintext, _OAEP[algorithm])
    if isinstance(loaded, X25519PublicKey) and algorithm is Algorithm.HPKE_X25519:
        return _HPKE.encrypt(plaintext, loaded, info)
    raise ValueError(f"{algorithm} is not for this key")
