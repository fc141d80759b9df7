"""What the Azure provider stores: RSA wraps with their context and signature, AES-GCM with what the service drew.

Spec: docs/spec/azure-wrap-v1.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidCiphertextError
from keystead.model import SignatureAlgorithm

RSA_ALGORITHM: Final = "RSA-OAEP-256"
AES_ALGORITHM: Final = "A256GCM"

RSA_CAPACITIES: Final[Mapping[int, int]] = {2048: 158, 3072: 286, 4096: 414}
"""The longest plaintext by the bits of the modulus: what OAEP with SHA-256 leaves, less the context hash."""
AES_CAPACITY: Final = 4095

HASH_SIZE: Final = 32
_MAGIC: Final = b"\xab\x01"
_RSA_FORM: Final = 0x01
_AES_FORM: Final = 0x02
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_FRAME: Final = b"\x01"
_RSA_SIZES: Final = frozenset(bits // 8 for bits in RSA_CAPACITIES)
_LONGEST_ID: Final = 512

_NUMBERS: Final[Mapping[SignatureAlgorithm, int]] = {
    SignatureAlgorithm.ECDSA_SHA_256: 0x01,
    SignatureAlgorithm.ECDSA_SHA_384: 0x02,
    SignatureAlgorithm.ECDSA_SHA_512: 0x03,
    SignatureAlgorithm.RSA_PSS_SHA_256: 0x11,
}
_ALGORITHMS: Final = {number: algorithm for algorithm, number in _NUMBERS.items()}
_COORDINATE_SIZES: Final[Mapping[SignatureAlgorithm, int]] = {
    SignatureAlgorithm.ECDSA_SHA_256: 32,
    SignatureAlgorithm.ECDSA_SHA_384: 48,
    SignatureAlgorithm.ECDSA_SHA_512: 66,
}
_u16 = Struct(">H").pack


@dataclass(frozen=True, slots=True)
class Signer:
    """Which key version signs a wrap, and how."""

    key_id: str
    algorithm: SignatureAlgorithm

    def mark(self) -> bytes:
        """Return the bytes in a ciphertext that say so; they are signed along."""
        key_id = self.key_id.encode("ascii")
        return bytes((_NUMBERS[self.algorithm],)) + _u16(len(key_id)) + key_id


@dataclass(frozen=True, slots=True)
class RsaWrap:
    """Form 0x01. ``signature`` is raw: r and s, or as RSA has it; both are empty where nobody signed."""

    wrapped: bytes
    signer: Signer | None = None
    signature: bytes = b""

    def body(self) -> bytes:
        """Return what comes before the signature, and is signed."""
        head = _MAGIC + bytes((_RSA_FORM,)) + _u16(len(self.wrapped)) + self.wrapped
        return head + (b"\x00" if self.signer is None else self.signer.mark())

    def message(self, key_id: str, context: bytes) -> bytes:
        """Return the signed message, given the versioned id of the key that wraps, and the context hash."""
        name = key_id.encode("ascii")
        return b"keystead azure wrap v1\x00" + _u16(len(name)) + name + context + self.body()

    def to_bytes(self) -> bytes:
        """Return the ciphertext."""
        return self.body() if self.signer is None else self.body() + _u16(len(self.signature)) + self.signature


@dataclass(frozen=True, slots=True)
class AesSeal:
    """Form 0x02."""

    nonce: bytes
    tag: bytes
    sealed: bytes

    def to_bytes(self) -> bytes:
        """Return the ciphertext."""
        return _MAGIC + bytes((_AES_FORM,)) + self.nonce + self.tag + self.sealed


def parse(blob: bytes) -> RsaWrap | AesSeal:
    """Read a ciphertext; what would not have been written is refused, so that nothing has two spellings.

    Raises:
        InvalidCiphertextError: another format, truncated, or spelt otherwise.
    """
    try:
        if blob[:2] != _MAGIC:
            raise ValueError
        if blob[2] == _RSA_FORM:
            return _parse_rsa(blob)
        if blob[2] == _AES_FORM:
            return _parse_aes(blob)
    except (ValueError, KeyError, IndexError):
        pass
    raise InvalidCiphertextError("not a ciphertext of the Azure provider, version 1")


def context_hash(context: Mapping[str, str] | None) -> bytes:
    """Return the 32 bytes that stand for ``context``.

    Raises:
        InvalidInputError: as ``encode_context``.
    """
    return hashlib.sha256(b"keystead azure context v1\x00" + encode_context(context)).digest()


def frame(plaintext: bytes) -> bytes:
    """Return what an AES key encrypts: never empty."""
    return _FRAME + plaintext


def unframe(framed: bytes) -> bytes:
    """Return the plaintext an AES key gave.

    Raises:
        DecryptionError: it is not of this provider.
    """
    if framed[:1] != _FRAME:
        raise DecryptionError("decryption failed")
    return framed[1:]


def open_sealed(sealed: bytes, context: bytes) -> bytes:
    """Return the plaintext an RSA key gave, given the context hash it must begin with.

    Raises:
        DecryptionError: it was sealed with another context.
    """
    if not hmac.compare_digest(sealed[:HASH_SIZE], context):
        raise DecryptionError("decryption failed")
    return sealed[HASH_SIZE:]


def one_spelling(raw: bytes, algorithm: SignatureAlgorithm) -> bytes:
    """Return an ECDSA signature with the lower of the two values of s that verify; RSA has one spelling only."""
    size = _COORDINATE_SIZES.get(algorithm)
    if size is None or len(raw) != 2 * size:
        return raw
    order, s = _order(algorithm), int.from_bytes(raw[size:], "big")
    return raw[:size] + min(s, order - s).to_bytes(size, "big") if 0 < s < order else raw


def _parse_rsa(blob: bytes) -> RsaWrap:
    wrapped, at = _field(blob, 3)
    if len(wrapped) not in _RSA_SIZES:
        raise ValueError
    if blob[at] == 0:
        signer, signature, end = None, b"", at + 1
    else:
        key_id, after = _field(blob, at + 1)
        if not 0 < len(key_id) <= _LONGEST_ID:
            raise ValueError
        signer = Signer(key_id.decode("ascii"), _ALGORITHMS[blob[at]])
        signature, end = _field(blob, after)
        _require_form(signature, signer.algorithm)
    if end != len(blob):
        raise ValueError
    return RsaWrap(wrapped, signer, signature)


def _parse_aes(blob: bytes) -> AesSeal:
    sealed_at = 3 + _NONCE_SIZE + _TAG_SIZE
    if len(blob) <= sealed_at:
        raise ValueError
    return AesSeal(blob[3 : 3 + _NONCE_SIZE], blob[3 + _NONCE_SIZE : sealed_at], blob[sealed_at:])


def _field(blob: bytes, at: int) -> tuple[bytes, int]:
    """Return the field whose length stands at ``at``, and where it ends."""
    length = int.from_bytes(blob[at : at + 2], "big")
    start, end = at + 2, at + 2 + length
    if end > len(blob):
        raise ValueError
    return blob[start:end], end


def _require_form(signature: bytes, algorithm: SignatureAlgorithm) -> None:
    size = _COORDINATE_SIZES.get(algorithm)
    if len(signature) not in (_RSA_SIZES if size is None else {2 * size}):
        raise ValueError
    if one_spelling(signature, algorithm) != signature:
        raise ValueError


def _order(algorithm: SignatureAlgorithm) -> int:
    from cryptography.hazmat.primitives.asymmetric import ec

    curves: Mapping[SignatureAlgorithm, ec.EllipticCurve] = {
        SignatureAlgorithm.ECDSA_SHA_256: ec.SECP256R1(),
        SignatureAlgorithm.ECDSA_SHA_384: ec.SECP384R1(),
        SignatureAlgorithm.ECDSA_SHA_512: ec.SECP521R1(),
    }
    return curves[algorithm].group_order
