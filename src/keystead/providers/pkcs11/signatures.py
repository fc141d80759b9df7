"""MACs and signatures inside a token, in its module's turns; and public keys as SubjectPublicKeyInfo.

Messages are hashed here, and the token gets the hash (PKCS #11 v2.40, sections 2.1.6, 2.1.10 and 2.3.6); Ed25519 and
HMAC take the message itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from keystead.crypto.signatures import ecdsa_der
from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    SigningError,
)
from keystead.model import SignatureAlgorithm
from keystead.providers.pkcs11.keys import Version
from keystead.providers.pkcs11.token import OpenToken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a message that goes to the token whole."""
MIN_RSA_SIZE: Final = 256
INVALID_MAC: Final = "the MAC is not of these bytes under this key"

_HMACS: Final = {
    SignatureAlgorithm.HMAC_SHA_512: ("SHA512_HMAC", 64),
    SignatureAlgorithm.HMAC_SHA_384: ("SHA384_HMAC", 48),
    SignatureAlgorithm.HMAC_SHA_256: ("SHA256_HMAC", 32),
}
_RSA: Final = {
    "RSA_PKCS_PSS": (
        SignatureAlgorithm.RSA_PSS_SHA_256,
        SignatureAlgorithm.RSA_PSS_SHA_384,
        SignatureAlgorithm.RSA_PSS_SHA_512,
    ),
    "RSA_PKCS": (
        SignatureAlgorithm.RSA_PKCS1_SHA_256,
        SignatureAlgorithm.RSA_PKCS1_SHA_384,
        SignatureAlgorithm.RSA_PKCS1_SHA_512,
    ),
}
_ECDSA: Final = (
    SignatureAlgorithm.ECDSA_SHA_256,
    SignatureAlgorithm.ECDSA_SHA_384,
    SignatureAlgorithm.ECDSA_SHA_512,
)
_CURVES: Final = {
    bytes.fromhex("06082a8648ce3d030107"): ("secp256r1", 32, SignatureAlgorithm.ECDSA_SHA_256),
    bytes.fromhex("06052b81040022"): ("secp384r1", 48, SignatureAlgorithm.ECDSA_SHA_384),
    bytes.fromhex("06052b81040023"): ("secp521r1", 66, SignatureAlgorithm.ECDSA_SHA_512),
}
_ED25519: Final = frozenset({bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519"})
_DIGEST_INFOS: Final[Mapping[str, bytes]] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""DER in front of a hash (RFC 8017, section 9.2, note 1)."""


def algorithms_of(token: OpenToken, version: Version) -> tuple[SignatureAlgorithm, ...]:
    """Return what a version and its token make MACs or signatures with, the default first.

    A MAC key is as long as the hash at least (RFC 2104), and defaults to the longest hash that it is long enough for;
    an elliptic curve defaults to the hash of its own length. RSA keys under 2048 bits sign nothing.
    """

    def has(name: str) -> bool:
        return token.p11.Mechanism[name] in token.mechanisms

    if version.kind == "GENERIC_SECRET":
        return tuple(each for each, (name, size) in _HMACS.items() if version.size >= size and has(name))
    if version.kind == "RSA":
        return tuple(each for name, rest in _RSA.items() if version.size >= MIN_RSA_SIZE and has(name) for each in rest)
    if version.kind == "EC" and version.curve in _CURVES and has("ECDSA"):
        own = _CURVES[version.curve][2]
        return own, *(each for each in _ECDSA if each is not own)
    if version.kind == "EC_EDWARDS" and version.curve in _ED25519 and has("EDDSA"):
        return (SignatureAlgorithm.ED25519,)
    return ()


def choose_algorithm(token: OpenToken, version: Version, algorithm: SignatureAlgorithm | None) -> SignatureAlgorithm:
    """Return the algorithm that is asked for, or the default.

    Raises:
        InvalidInputError: the key or the token does not do it.
        KeyStateError: they do none, or the key is disabled.
    """
    has = algorithms_of(token, version)
    if algorithm is not None and algorithm not in has:
        raise InvalidInputError(f"the key {str(version.name)!r} works with {', '.join(has) or 'no algorithm here'}")
    if not has:
        raise KeyStateError(
            f"the key {str(version.name)!r} works with no algorithm here: RSA keys have 2048 bits at least, MAC keys "
            "256, curves are P-256, P-384, P-521 and Ed25519, and the token needs the mechanism"
        )
    if "SIGN" not in version.uses:
        raise KeyStateError(
            f"the key {str(version.name)!r} (CKA_ID {version.key_id.hex()}) is disabled: it does not permit CKA_SIGN"
        )
    return algorithm or has[0]


def make(token: OpenToken, version: Version, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    """Return the MAC or signature of ``message``.

    Raises:
        InvalidInputError: a message that must go to the token whole is too long.
        SigningError: the token answers with something else.
    """
    mechanism, parameters, data = _call(token.p11, version, algorithm, _to_token(algorithm, message))
    value = bytes(version.handle.sign(data, mechanism=mechanism, mechanism_param=parameters))
    if version.kind != "EC":
        return value
    try:
        return ecdsa_der(value)
    except InvalidSignatureError:
        raise SigningError("the token answered with something that is no ECDSA signature") from None


def check_mac(token: OpenToken, version: Version, algorithm: SignatureAlgorithm, message: bytes, mac: bytes) -> None:
    """Return if ``mac`` is of ``message``.

    Raises:
        InvalidSignatureError: it is not.
        KeyStateError: the version is disabled.
    """
    if algorithm not in algorithms_of(token, version) or len(mac) != _HMACS[algorithm][1]:
        raise InvalidSignatureError(INVALID_MAC)
    mechanism, _, data = _call(token.p11, version, algorithm, message)
    if "VERIFY" in version.uses:
        is_valid = bool(version.handle.verify(data, mac, mechanism=mechanism))
    elif "SIGN" in version.uses:
        is_valid = hmac.compare_digest(make(token, version, algorithm, message), mac)
    else:
        raise KeyStateError(
            f"the key {str(version.name)!r} (CKA_ID {version.key_id.hex()}) is disabled: it permits neither CKA_VERIFY "
            "nor CKA_SIGN"
        )
    if not is_valid:
        raise InvalidSignatureError(INVALID_MAC)


def public_der(token: OpenToken, version: Version) -> bytes:
    """Return the public half of a version, from the public object that has its id.

    Raises:
        KeyNotFoundError: the token has no such object.
        SigningError: it is of a kind or form that cannot be read.
    """
    halves = _public_halves(token, version)
    if not halves:
        raise KeyNotFoundError(
            f"the token has no public key of the label and id of {str(version.name)!r} (CKA_ID "
            f"{version.key_id.hex()}): import it with the token's own tool"
        )
    if halves[0] is None:
        raise SigningError(f"the public key of {str(version.name)!r} is of no form that Keystead reads")
    return halves[0]


def _to_token(algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    """Return what the token gets of a message: its hash, or the message itself."""
    if not algorithm.is_mac and (name := algorithm.hash_name) is not None:
        return hashlib.new(name, message).digest()
    if len(message) > MAX_MESSAGE:
        raise InvalidInputError(
            f"{algorithm} takes at most {MAX_MESSAGE} bytes here, since the token gets the message itself; give it a "
            "hash of the message"
        )
    return message


def _call(p11: Any, version: Version, algorithm: SignatureAlgorithm, content: bytes) -> tuple[Any, Any, bytes]:
    """Return mechanism, parameters and data of the call."""
    mechanisms = p11.Mechanism
    if algorithm in _HMACS:
        return mechanisms[_HMACS[algorithm][0]], None, content
    if version.kind == "EC_EDWARDS":
        return mechanisms.EDDSA, None, content
    name = algorithm.hash_name or ""
    if version.kind == "EC":
        # The leftmost bits, as many as the order has (FIPS 186-5, section 6.4.1): not every token cuts by itself.
        return mechanisms.ECDSA, None, content[: _CURVES[version.curve][1]]
    if algorithm in _RSA["RSA_PKCS"]:
        return mechanisms.RSA_PKCS, None, _DIGEST_INFOS[name] + content
    return mechanisms.RSA_PKCS_PSS, (mechanisms[name.upper()], p11.MGF[name.upper()], len(content)), content


def _public_halves(token: OpenToken, version: Version) -> list[bytes | None]:
    """Return each public object that has a version's label and id; None for one that cannot be read."""
    p11 = token.p11
    attribute = p11.Attribute
    template = {
        attribute.CLASS: p11.ObjectClass.PUBLIC_KEY,
        attribute.KEY_TYPE: p11.KeyType[version.kind],
        attribute.ID: version.key_id,
        attribute.LABEL: version.label,
    }
    return [_public_half(p11, version, each) for each in list(token.session.get_objects(template))]


def _public_half(p11: Any, version: Version, public: Any) -> bytes | None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = _public_key(p11, version, public)
    except ValueError:
        return None
    return None if key is None else key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_key(p11: Any, version: Version, public: Any) -> PublicKeyTypes | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    attribute = p11.Attribute
    if version.kind == "RSA":
        exponent, modulus = public[attribute.PUBLIC_EXPONENT], public[attribute.MODULUS]
        return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    point = bytes(public[attribute.EC_POINT])
    if version.kind == "EC_EDWARDS":
        return ed25519.Ed25519PublicKey.from_public_bytes(_bare_point(point, 32))
    name, size, _ = _CURVES.get(version.curve, ("", 0, None))
    curve = {each.name: each for each in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())}.get(name)
    if curve is None:
        return None
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, _bare_point(point, 2 * size + 1))


def _bare_point(point: bytes, size: int) -> bytes:
    """Return a point without the DER octet string around it, which not every token writes."""
    return point if len(point) == size else point[-size:]
