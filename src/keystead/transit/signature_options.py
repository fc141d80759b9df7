"""How a signature is made or checked: what clients of Vault may say about it, in their words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keystead.errors import InvalidInputError
from keystead.model import TransitType
from keystead.transit.digests import Hash, hash_of

PSS: Final = "pss"
PKCS1: Final = "pkcs1v15"
ANY_SALT: Final = 0
"""The longest salt where a signature is made, and any where one is checked."""
SALT_OF_HASH: Final = -1
"""A salt as long as the hash."""
_SALTS: Final = {"auto": ANY_SALT, "hash": SALT_OF_HASH}
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Marshaling(StrEnum):
    """The form of signatures: as usual in base64, or as in JSON Web Signatures in URL-safe base64 without padding.

    ECDSA's two numbers are DER in the one and plain bytes, one after the other, in the other.
    """

    ASN1 = "asn1"
    JWS = "jws"


@dataclass(frozen=True, slots=True)
class Options:
    """How a signature is made or checked.

    Attributes:
        function: None where RSA signs what it is given, without a name of a hash function in it.
        is_prehashed: what is given is a hash already.
        scheme: of RSA, ``pss`` or ``pkcs1v15``; another one is refused where it is used.
        salt_length: of PSS in bytes, ``ANY_SALT`` or ``SALT_OF_HASH``.
    """

    function: Hash | None = Hash.SHA2_256
    is_prehashed: bool = False
    scheme: str = PSS
    salt_length: int = ANY_SALT
    marshaling: Marshaling = Marshaling.ASN1

    def hashed(self, message: bytes) -> bytes:
        """Return what is signed for a message."""
        return message if self.is_prehashed or self.function is None else self.function.digest(message)


USUAL: Final = Options()


def options_of(
    kind: TransitType,
    *,
    marshaling: str = Marshaling.ASN1,
    hash_algorithm: str = Hash.SHA2_256,
    salt_length: str = "auto",
    signature_algorithm: str = PSS,
    is_prehashed: bool = False,
) -> Options:
    """Return the options for a key of a type.

    Raises:
        InvalidInputError: one of them is not known, or they do not go together.
    """
    options = Options(
        marshaling=marshaling_of(marshaling),
        salt_length=salt_length_of(salt_length),
        function=hash_of(hash_algorithm),
        scheme=signature_algorithm or PSS,
        is_prehashed=is_prehashed,
    )
    if options.function is None and kind is not TransitType.ED25519 and not (is_prehashed and options.scheme == PKCS1):
        raise InvalidInputError("hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
    return options


def marshaling_of(name: str) -> Marshaling:
    """Return a form of signatures.

    Raises:
        InvalidInputError: there is none of that name.
    """
    try:
        return Marshaling(name)
    except ValueError:
        raise InvalidInputError(f'invalid marshaling type "{name}"') from None


def salt_length_of(text: str) -> int:
    """Return a salt's length: ``auto``, ``hash`` or a number.

    Raises:
        InvalidInputError: it is none of them, or negative.
    """
    known = _SALTS.get(text.lower())
    if known is not None:
        return known
    if not _NUMBER.fullmatch(text):
        raise InvalidInputError(f"salt length neither 'auto', 'hash', nor an int: {text}")
    length = int(text)
    if length < SALT_OF_HASH:
        raise InvalidInputError(f"salt length is invalid: {length}")
    return length
