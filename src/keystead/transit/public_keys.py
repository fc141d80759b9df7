"""The public halves of key pairs, as clients of Vault read them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.snapshot import LoadedKey
from keystead.transit import base64_text
from keystead.transit.ciphers import DERIVED_INFO, hkdf
from keystead.transit.opened import OpenKey


def public_text(key: OpenKey, version: LoadedKey, context: bytes = b"") -> str:
    """Return the public key of a version: PEM, or of Ed25519 its bytes in base64.

    Of a derived key it is that of a context, and empty without one.
    """
    if key.record.derived:
        return base64_text.encode(_raw(derived_signer(key, version, context).public_key())) if context else ""
    public = key.pair(version).public
    if isinstance(public, ed25519.Ed25519PublicKey):
        return base64_text.encode(_raw(public))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def derived_signer(key: OpenKey, version: LoadedKey, context: bytes) -> ed25519.Ed25519PrivateKey:
    """Return the Ed25519 key that a version derives for a context."""
    secret = key.pair(version).secret
    return ed25519.Ed25519PrivateKey.from_private_bytes(hkdf(secret, DERIVED_INFO + context))


def _raw(public: ed25519.Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
