"""Signing and verifying by any version of a key pair. Computes only; RSA and P-384 take milliseconds.

What is signed is the hash of a message, or the message where it is a hash already. Ed25519 signs the message itself,
whatever is asked. A key that derives signs by a key of its own for each context: see ``derived_signer``.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from keystead.crypto.private_keys import PrivateKey, PublicKey
from keystead.crypto.snapshot import LoadedKey
from keystead.errors import InvalidInputError
from keystead.transit import base64_text, ecdsa_signatures, rsa_signatures
from keystead.transit.encrypting import context_of
from keystead.transit.opened import OpenKey
from keystead.transit.public_keys import derived_signer, raw_text
from keystead.transit.signature_options import USUAL, Marshaling, Options
from keystead.transit.texts import parted, written


@dataclass(frozen=True, slots=True)
class Signature:
    """What was signed.

    Attributes:
        public_key: of Ed25519 in base64, that of the context; empty for a key that does not derive.
    """

    text: str
    version: int
    public_key: str = ""


def sign(
    key: OpenKey, message: bytes, options: Options = USUAL, *, context: bytes | None = None, version: int = 0
) -> Signature:
    """Return the signature of a message by a version; 0 for the latest.

    Raises:
        InvalidInputError: a key that does not sign or is soft-deleted, a version that is not there, must not sign or
            is public alone, no context where one is needed, or options that cannot be.
    """
    require_signer(key, "signing")
    key.require_usable()
    chosen = key.to_protect(version, "signing")
    private: PrivateKey | None = key.pair(chosen).private
    if private is None:
        raise InvalidInputError("requested version for signing does not contain a private part")
    public_text = ""
    if (derived := _context(key, context)) is not None:
        private = derived_signer(key, chosen, derived)
        public_text = raw_text(private.public_key())
    signature = _signed(private, message, options)
    is_url = options.marshaling is Marshaling.JWS
    return Signature(written(chosen.version, signature, is_url=is_url), chosen.version, public_text)


def verify(key: OpenKey, message: bytes, text: str, options: Options = USUAL, *, context: bytes | None = None) -> bool:
    """Whether a text is the signature of a message.

    Raises:
        InvalidInputError: no signature, a version that is not there or must not be used, a key that does not verify
            or is soft-deleted, no context where one is needed, or options that cannot be.
    """
    require_signer(key, "verification")
    key.require_usable()
    version, rest = parted(text, "signature")
    chosen = key.to_open(version, "signature")
    signature = _decoded(rest, options.marshaling)
    return _is_valid(_public(key, chosen, context), message, signature, options)


def require_signer(key: OpenKey, action: str) -> None:
    """Raise ``InvalidInputError`` for a key that has no use for ``signing`` or ``verification``."""
    if not key.record.type.signs:
        raise InvalidInputError(f"key type {key.record.type} does not support {action}")


def _context(key: OpenKey, context: bytes | None) -> bytes | None:
    try:
        return context_of(key, context)
    except InvalidInputError as exc:
        raise InvalidInputError(f"error deriving key: {exc}") from None


def _public(key: OpenKey, version: LoadedKey, context: bytes | None) -> PublicKey:
    derived = _context(key, context)
    return key.pair(version).public if derived is None else derived_signer(key, version, derived).public_key()


def _signed(private: PrivateKey, message: bytes, options: Options) -> bytes:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(message)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return ecdsa_signatures.sign(private, options.hashed(message), options.marshaling)
    return rsa_signatures.sign(private, options.hashed(message), options)


def _is_valid(public: PublicKey, message: bytes, signature: bytes, options: Options) -> bool:
    if isinstance(public, ed25519.Ed25519PublicKey):
        try:
            public.verify(signature, message)
        except InvalidSignature:
            return False
        return True
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ecdsa_signatures.is_valid(public, options.hashed(message), signature, options.marshaling)
    return rsa_signatures.is_valid(public, options.hashed(message), signature, options)


def _decoded(text: str, marshaling: Marshaling) -> bytes:
    decode = base64_text.decode_url if marshaling is Marshaling.JWS else base64_text.decode
    try:
        return decode(text)
    except InvalidInputError:
        raise InvalidInputError("invalid base64 signature value") from None
