"""RSA signatures of hashes: PSS and PKCS #1 v1.5 (RFC 8017, 8.1 and 8.2)."""

from __future__ import annotations

from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from keystead.errors import InvalidInputError
from keystead.transit.digests import Hash
from keystead.transit.signature_options import ANY_SALT, PKCS1, PSS, SALT_OF_HASH, Options

_OVERHEAD: Final = 11
"""Bytes that PKCS #1 v1.5 adds at least."""


def sign(private: rsa.RSAPrivateKey, digest: bytes, options: Options) -> bytes:
    """Return the signature of a hash.

    Raises:
        InvalidInputError: a scheme, salt or hash that cannot be.
    """
    if options.scheme == PSS:
        function = _require_function(options)
        salt = _salt(private, options, function, any_salt=padding.PSS.MAX_LENGTH)
        if len(digest) != function.algorithm.digest_size:
            raise InvalidInputError("crypto/rsa: input must be hashed with given hash")
        return private.sign(digest, _pss(function, salt), Prehashed(function.algorithm))
    if options.scheme != PKCS1:
        _refuse_scheme(options)
    if options.function is not None:
        if len(digest) != options.function.algorithm.digest_size:
            raise InvalidInputError("crypto/rsa: input must be hashed message")
        return private.sign(digest, padding.PKCS1v15(), Prehashed(options.function.algorithm))
    if not digest:
        raise InvalidInputError("crypto/rsa: hash cannot be empty")
    if len(digest) > private.key_size // 8 - _OVERHEAD:
        raise InvalidInputError("crypto/rsa: message too long for RSA key size")
    return private.sign(digest, padding.PKCS1v15(), NoDigestInfo())


def is_valid(public: rsa.RSAPublicKey, digest: bytes, signature: bytes, options: Options) -> bool:
    """Whether a signature is one of a hash; errors as ``sign``, but that a hash of another length has none."""
    if options.scheme not in (PSS, PKCS1):
        _refuse_scheme(options)
    function = options.function
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if options.scheme == PSS:
        function = _require_function(options)
        pad = _pss(function, _salt(public, options, function, any_salt=padding.PSS.AUTO))
    try:
        if function is None:
            return bool(digest) and digest == public.recover_data_from_signature(signature, padding.PKCS1v15(), None)
        if len(digest) != function.algorithm.digest_size:
            return False
        public.verify(signature, digest, pad, Prehashed(function.algorithm))
    except InvalidSignature:
        return False
    return True


def _require_function(options: Options) -> Hash:
    assert options.function is not None  # noqa: S101 -- ``options_of`` lets it be None with the other scheme alone
    return options.function


def _pss(function: Hash, salt: int | object) -> padding.PSS:
    return padding.PSS(padding.MGF1(function.algorithm), salt)  # type: ignore[arg-type]


def _salt(
    key: rsa.RSAPrivateKey | rsa.RSAPublicKey, options: Options, function: Hash, *, any_salt: object
) -> int | object:
    if options.salt_length == ANY_SALT:
        return any_salt
    if options.salt_length == SALT_OF_HASH:
        return padding.PSS.DIGEST_LENGTH
    if options.salt_length > padding.calculate_max_pss_salt_length(key, function.algorithm):
        raise InvalidInputError(f"requested salt length {options.salt_length} is invalid")
    return options.salt_length


def _refuse_scheme(options: Options) -> NoReturn:
    raise InvalidInputError(f"unsupported rsa signature algorithm {options.scheme}")
