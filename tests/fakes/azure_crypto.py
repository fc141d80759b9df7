"""The cryptography of the fake Key Vault: real keys, computed with as the service documents."""

from __future__ import annotations

import base64
import hmac
import itertools
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES: dict[str, tuple[ec.EllipticCurve, str, int]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
    "P-521": (ec.SECP521R1(), "ES512", 66),
    "P-256K": (ec.SECP256K1(), "ES256K", 32),
}
RSA_SIZES = (2048, 3072, 4096)
AES_SIZES = (128, 192, 256)
POOL_SIZE = 8

ALL_OPS = {
    "RSA": ("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"),
    "EC": ("sign", "verify"),
    "oct": ("encrypt", "decrypt", "wrapKey", "unwrapKey"),
}
"""What a key may do that was made without ``key_ops``."""


class RefusedError(Exception):
    """What the service answers with 400."""


def b64url(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64url(text: object) -> bytes:
    """Return the bytes of unpadded base64url."""
    if not isinstance(text, str):
        raise RefusedError("Property 'value' is required.")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise RefusedError("Content of 'value' is not base64url.") from None


def _number(value: int, size: int | None = None) -> str:
    return b64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class RsaMaterial:
    """An RSA key pair."""

    family = "RSA"

    def __init__(self, size: int) -> None:
        self.private = _rsa_from_pool(size)

    def jwk(self) -> dict[str, Any]:
        """Return the public members of the key's JWK."""
        public = self.private.public_key().public_numbers()
        return {"n": _number(public.n), "e": _number(public.e)}

    def encrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Encrypt or wrap."""
        try:
            value = self.private.public_key().encrypt(from_b64url(body.get("value")), _rsa_padding(body.get("alg")))
        except ValueError:
            raise RefusedError("The parameter is incorrect.") from None
        return {"value": b64url(value)}

    def decrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Decrypt or unwrap."""
        try:
            value = self.private.decrypt(from_b64url(body.get("value")), _rsa_padding(body.get("alg")))
        except ValueError:
            raise RefusedError("The parameter is incorrect.") from None
        return {"value": b64url(value)}

    def sign(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sign a digest."""
        scheme, digest, algorithm = _rsa_scheme(body.get("alg"), from_b64url(body.get("value")))
        return {"value": b64url(self.private.sign(digest, scheme, Prehashed(algorithm)))}

    def verify(self, body: dict[str, Any]) -> dict[str, Any]:
        """Verify the signature of a digest."""
        scheme, digest, algorithm = _rsa_scheme(body.get("alg"), from_b64url(body.get("digest")))
        try:
            self.private.public_key().verify(from_b64url(body.get("value")), digest, scheme, Prehashed(algorithm))
        except InvalidSignature:
            return {"value": False}
        return {"value": True}


class EcMaterial:
    """A key pair on a curve."""

    family = "EC"

    def __init__(self, curve: str) -> None:
        self.crv = curve
        self._curve, self._algorithm, self._size = CURVES[curve]
        self.private = ec.generate_private_key(self._curve)

    def jwk(self) -> dict[str, Any]:
        """Return the public members of the key's JWK."""
        public = self.private.public_key().public_numbers()
        return {"crv": self.crv, "x": _number(public.x, self._size), "y": _number(public.y, self._size)}

    def sign(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sign a digest; r and s of equal length, one after the other."""
        digest, algorithm = self._digest(body, "value")
        r, s = decode_dss_signature(self.private.sign(digest, ec.ECDSA(Prehashed(algorithm))))
        return {"value": b64url(r.to_bytes(self._size, "big") + s.to_bytes(self._size, "big"))}

    def verify(self, body: dict[str, Any]) -> dict[str, Any]:
        """Verify the signature of a digest."""
        digest, algorithm = self._digest(body, "digest")
        raw = from_b64url(body.get("value"))
        if len(raw) != 2 * self._size:
            raise RefusedError("Invalid length of 'value'.")
        der = encode_dss_signature(int.from_bytes(raw[: self._size], "big"), int.from_bytes(raw[self._size :], "big"))
        try:
            self.private.public_key().verify(der, digest, ec.ECDSA(Prehashed(algorithm)))
        except InvalidSignature:
            return {"value": False}
        return {"value": True}

    def _digest(self, body: dict[str, Any], member: str) -> tuple[bytes, hashes.HashAlgorithm]:
        if body.get("alg") != self._algorithm:
            raise RefusedError("Key and signing algorithm are incompatible.")
        return _checked_digest(from_b64url(body.get(member)), HASHES[self._algorithm[2:5]])


class AesMaterial:
    """A symmetric key inside an HSM."""

    family = "oct"

    def __init__(self, size: int) -> None:
        self._size = size
        self._key = os.urandom(size // 8)

    def jwk(self) -> dict[str, Any]:
        """Return nothing: the key's bytes never leave."""
        return {}

    def encrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Encrypt with AES-GCM under a nonce of the HSM's own, or wrap with AES-KW."""
        value = from_b64url(body.get("value"))
        if body.get("alg") == f"A{self._size}KW":
            if len(value) < 16 or len(value) % 8:
                raise RefusedError("Invalid length of 'value'.")
            return {"value": b64url(keywrap.aes_key_wrap(self._key, value))}
        self._require_gcm(body)
        aad, nonce = from_b64url(body.get("aad") or ""), os.urandom(12)
        sealed = AESGCM(self._key).encrypt(nonce, value, aad)
        return {"value": b64url(sealed[:-16]), "iv": b64url(nonce), "tag": b64url(sealed[-16:]), "aad": b64url(aad)}

    def decrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Decrypt, or unwrap."""
        value = from_b64url(body.get("value"))
        if body.get("alg") == f"A{self._size}KW":
            try:
                return {"value": b64url(keywrap.aes_key_unwrap(self._key, value))}
            except keywrap.InvalidUnwrap:
                raise RefusedError("The parameter is incorrect.") from None
        self._require_gcm(body)
        nonce, tag, aad = from_b64url(body.get("iv")), from_b64url(body.get("tag")), from_b64url(body.get("aad") or "")
        try:
            return {"value": b64url(AESGCM(self._key).decrypt(nonce, value + tag, aad))}
        except (InvalidTag, ValueError):
            raise RefusedError("The parameter is incorrect.") from None

    def sign(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the HMAC of a digest."""
        return {"value": b64url(self._mac(body, from_b64url(body.get("value"))))}

    def verify(self, body: dict[str, Any]) -> dict[str, Any]:
        """Verify the HMAC of a digest."""
        given = from_b64url(body.get("value"))
        return {"value": hmac.compare_digest(self._mac(body, from_b64url(body.get("digest"))), given)}

    def _mac(self, body: dict[str, Any], digest: bytes) -> bytes:
        size = str(body.get("alg")).removeprefix("HS")
        if size not in HASHES or not str(body.get("alg")).startswith("HS"):
            raise RefusedError("Key and signing algorithm are incompatible.")
        _checked_digest(digest, HASHES[size])
        return hmac.digest(self._key, digest, f"sha{size}")

    def _require_gcm(self, body: dict[str, Any]) -> None:
        if body.get("alg") != f"A{self._size}GCM":
            raise RefusedError("Key and encryption algorithm are incompatible.")


Material = RsaMaterial | EcMaterial | AesMaterial


def make_material(kty: str, size: int | None, curve: str | None) -> Material:
    """Return a new key of a type, size or curve.

    Raises:
        RefusedError: the service has no such key.
    """
    family = kty.removesuffix("-HSM")
    if family == "RSA" and (size or 2048) in RSA_SIZES:
        return RsaMaterial(size or 2048)
    if family == "EC" and (curve or "P-256") in CURVES:
        return EcMaterial(curve or "P-256")
    if family == "oct" and (size or 256) in AES_SIZES:
        return AesMaterial(size or 256)
    raise RefusedError("Invalid key type, size or curve.")


def _rsa_padding(alg: object) -> padding.AsymmetricPadding:
    if alg == "RSA1_5":
        return padding.PKCS1v15()
    digest: hashes.HashAlgorithm
    if alg == "RSA-OAEP-256":
        digest = hashes.SHA256()
    elif alg == "RSA-OAEP":
        digest = hashes.SHA1()
    else:
        raise RefusedError("Key and encryption algorithm are incompatible.")
    return padding.OAEP(padding.MGF1(digest), digest, None)


def _rsa_scheme(alg: object, value: bytes) -> tuple[padding.AsymmetricPadding, bytes, hashes.HashAlgorithm]:
    kind, size = str(alg)[:2], str(alg)[2:]
    if kind not in {"RS", "PS"} or size not in HASHES:
        raise RefusedError("Key and signing algorithm are incompatible.")
    digest, algorithm = _checked_digest(value, HASHES[size])
    if kind == "RS":
        return padding.PKCS1v15(), digest, algorithm
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), digest, algorithm


def _checked_digest(digest: bytes, algorithm: hashes.HashAlgorithm) -> tuple[bytes, hashes.HashAlgorithm]:
    if len(digest) != algorithm.digest_size:
        raise RefusedError("Invalid length of 'value'.")
    return digest, algorithm


@cache
def _pool(size: int) -> Callable[[], rsa.RSAPrivateKey]:
    """Return what gives the next of a few keys, each made when it is needed: making them takes most of the time."""
    made: list[rsa.RSAPrivateKey] = []
    turns = itertools.count()

    def take() -> rsa.RSAPrivateKey:
        turn = next(turns) % POOL_SIZE
        if turn >= len(made):
            made.append(rsa.generate_private_key(65537, size))
        return made[turn]

    return take


def _rsa_from_pool(size: int) -> rsa.RSAPrivateKey:
    return _pool(size)()
