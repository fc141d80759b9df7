"""The public halves of key pairs, as clients of Vault read them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.snapshot import LoadedKey
from keystead.errors import InvalidInputError
from keystead.transit import base64_text
from keystead.transit.ciphers import DERIVED_INFO, hkdf
from keystead.transit.opened import OpenKey


def public_text(key: OpenKey, version: LoadedKey, context: bytes = b"") -> str:
    """Return the public key of a version: PEM, or of Ed25519 its bytes in base64.

    Of a derived key it is that of a context, and empty without one.
    """
    if key.record.derived:
        return raw_text(derived_signer(key, version, context).public_key()) if context else ""
    public = key.pair(version).public
    if isinstance(public, ed25519.Ed25519PublicKey):
        return raw_text(public)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def derived_signer(key: OpenKey, version: LoadedKey, context: bytes) -> ed25519.Ed25519PrivateKey:
    """Return the Ed25519 key that a version derives for a context.

    Its seed is HKDF-SHA256 of the version's own seed, without a salt, with the info ``keystead transit`` and the
    context behind it.

    Raises:
        InvalidInputError: the private half is held by somebody else, and so nothing can be derived.
    """
    private = key.pair(version).private
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InvalidInputError("requested version does not contain a private part, from which keys could be derived")
    return ed25519.Ed25519PrivateKey.from_private_bytes(hkdf(private.private_bytes_raw(), DERIVED_INFO + context))


def raw_text(public: ed25519.Ed25519PublicKey) -> str:
    """Return the 32 bytes of a public key in base64."""
    return base64_text.encode(public.public_bytes_raw())
