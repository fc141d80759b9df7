"""Transit's MACs and signatures, as a thread makes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KMSError,
    ProviderConnectionError,
)
from keystead.model import SignatureAlgorithm
from keystead.ports import Clock
from keystead.providers.vault.cipher import batch_results, has_results, is_of_before, item_error
from keystead.providers.vault.client import VaultClient
from keystead.providers.vault.errors import Answer, error_of, reason_of
from keystead.providers.vault.forms import encode, join, parse
from keystead.providers.vault.keys import MACS, SIGNING, Key, KeyInfo

Item: TypeAlias = Mapping[str, str]
"""What a batch holds of one message."""

INVALID: Final = "the MAC is not of these bytes under this key"
_MAC_SIZES: Final = {MACS[0]: 32, MACS[1]: 48, MACS[2]: 64}


class Made(NamedTuple):
    """The bytes of a MAC or signature, and the version that made them."""

    value: bytes
    version: int


class Signer:
    """Makes the requests of a provider's MACs and signatures; every method blocks."""

    def __init__(self, client: VaultClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    def mac(self, key: Key, message: bytes, algorithm: SignatureAlgorithm) -> Made:
        """Return the MAC of a message."""
        item = {"input": encode(message)}
        return _made(self._ask(key, "hmac", lambda: {**item, **self.mac_fields(key, algorithm)}).data, "hmac")

    def macs(self, key: Key, items: Sequence[Item], algorithm: SignatureAlgorithm) -> list[Made | KMSError]:
        """Return the MACs of items, in one request."""
        return self._many(key, "hmac", lambda: {"batch_input": items, **self.mac_fields(key, algorithm)}, len(items))

    def verify_mac(self, key: Key, message: bytes, mac: bytes, version: int, algorithm: SignatureAlgorithm) -> None:
        """Return if the server finds ``mac`` to be that of ``message``.

        Raises:
            InvalidSignatureError: it does not.
            KeyNotFoundError, KeyStateError: there is no such key or version, or it is not allowed any more.
        """
        if len(mac) != _MAC_SIZES[algorithm]:
            raise InvalidSignatureError(INVALID)
        body = {"input": encode(message), "hmac": join(version, mac), "hash_algorithm": _hash(algorithm)}
        valid = self._client.do("verify", key.path("verify"), body).data.get("valid")
        if valid is not True:
            if valid is False:
                raise InvalidSignatureError(INVALID)
            raise ProviderConnectionError("the Vault server's answer does not say whether the MAC is valid")

    def mac_fields(self, key: Key, algorithm: SignatureAlgorithm) -> dict[str, Any]:
        """Return what a request for MACs holds besides the messages."""
        version = key.version(self._clock)
        return {"algorithm": _hash(algorithm), **({} if version is None else {"key_version": version})}

    def sign(self, key: Key, message: bytes, algorithm: SignatureAlgorithm | None) -> tuple[Made, SignatureAlgorithm]:
        """Return the signature of a message, and what it was made with."""
        chosen = self.algorithm_of(key, algorithm)
        item = {"input": signed_input(message, chosen)}
        answer = self._ask(key, "sign", lambda: {**item, **self.sign_fields(key, chosen)})
        return _made(answer.data, "signature"), chosen

    def signatures(self, key: Key, items: Sequence[Item], algorithm: SignatureAlgorithm) -> list[Made | KMSError]:
        """Return the signatures of items, in one request."""
        return self._many(key, "sign", lambda: {"batch_input": items, **self.sign_fields(key, algorithm)}, len(items))

    def sign_fields(self, key: Key, algorithm: SignatureAlgorithm) -> dict[str, Any]:
        """Return what a request for signatures holds besides the messages.

        Messages are hashed here, so that their length does not matter. A PSS salt is as long as the hash, which is
        what FIPS 186-5 allows at most and what a verifier expects who is told nothing; ECDSA comes in DER.
        """
        version = key.version(self._clock)
        fields: dict[str, Any] = {} if version is None else {"key_version": version}
        if algorithm.hash_name is None:
            return fields
        fields |= {"prehashed": True, "hash_algorithm": _hash(algorithm)}
        if algorithm.value.startswith("RSA-PSS"):
            return fields | {"signature_algorithm": "pss", "salt_length": "hash"}
        if algorithm.value.startswith("RSA-PKCS1"):
            return fields | {"signature_algorithm": "pkcs1v15"}
        return fields

    def algorithm_of(self, key: Key, algorithm: SignatureAlgorithm | None) -> SignatureAlgorithm:
        """Return what a key is to sign with.

        Raises:
            InvalidInputError: it does not sign so, or not at all.
        """
        known = signing_algorithms(key, key.info(self._client, self._clock))
        chosen = known[0] if algorithm is None else algorithm
        if chosen not in known:
            raise InvalidInputError(
                f"{key.path('keys')} signs with {', '.join(known)}, not with {chosen}; algorithm=None is {known[0]}"
            )
        return chosen

    def public_key(self, key: Key, version: str | None) -> tuple[bytes, int, datetime | None, KeyInfo]:
        """Return the public key of a version in DER, the version, when it was made, and the key.

        Raises:
            KeyNotFoundError: no such version, or one below the key's min_decryption_version.
        """
        info = key.info(self._client, self._clock)
        signing_algorithms(key, info)
        number = _number(version) if version is not None else key.current(info)
        if number not in info.public:
            info = key.info(self._client, self._clock, fresh=True)
        text = info.public.get(number)
        if text is None:
            raise KeyNotFoundError(f"{key.path('keys')}: the key has no version {number}, or does not use it any more")
        return _der(text), number, info.created.get(number), info

    def _ask(self, key: Key, verb: str, body: Callable[[], Mapping[str, Any]]) -> Answer:
        """Ask, and once more where the version that is asked for by number is forbidden since somebody rotated."""
        answer = self._client.call(key.path(verb), body())
        if is_of_before(answer) and key.version(self._clock) is not None:
            key.info(self._client, self._clock, fresh=True)
            answer = self._client.call(key.path(verb), body())
        if not has_results(answer):
            raise error_of(reason_of(answer), verb, key.path(verb), answer=answer)
        return answer

    def _many(self, key: Key, verb: str, body: Callable[[], Mapping[str, Any]], count: int) -> list[Made | KMSError]:
        answer = self._ask(key, verb, body)
        name = "hmac" if verb == "hmac" else "signature"
        results = batch_results(answer, count)
        return [item_error(result, key.path(verb), verb) or _made(result, name) for result in results]


def mac_items(messages: Sequence[bytes]) -> list[Item]:
    """Return the items of a batch of MACs."""
    return [{"input": encode(message)} for message in messages]


def sign_items(messages: Sequence[bytes], algorithm: SignatureAlgorithm) -> list[Item]:
    """Return the items of a batch of signatures."""
    return [{"input": signed_input(message, algorithm)} for message in messages]


def signed_input(message: bytes, algorithm: SignatureAlgorithm) -> str:
    """Return what is sent of a message that is to be signed: its hash, or all of it for Ed25519."""
    name = algorithm.hash_name
    return encode(message if name is None else hashlib.new(name, message).digest())


def mac_algorithm(algorithm: SignatureAlgorithm | None) -> SignatureAlgorithm:
    """Return what a MAC is to be made with.

    Raises:
        InvalidInputError: it is a signature's.
    """
    chosen = MACS[0] if algorithm is None else algorithm
    if chosen not in MACS:
        raise InvalidInputError(f"{chosen} makes signatures: use sign(), with a key that signs")
    return chosen


def signing_algorithms(key: Key, info: KeyInfo) -> tuple[SignatureAlgorithm, ...]:
    """Return what a key signs with.

    Raises:
        InvalidInputError: it signs with nothing, or needs a context for each signature.
    """
    known = SIGNING.get(info.type)
    if known is None:
        raise InvalidInputError(
            f"{key.path('keys')} is of the type {info.type}, which signs nothing; use mac(), or a key of the type "
            "ed25519, ecdsa-p256 or rsa-3072"
        )
    if info.is_derived:
        raise InvalidInputError(
            f"{key.path('keys')} is derived: it has another public key for each context; sign with one that is not"
        )
    return known


def version_number(version: str | None) -> int:
    """Return a stored version as a number.

    Raises:
        KeyNotFoundError: it is none.
    """
    if version is None:
        raise KeyNotFoundError("the MAC does not say which version of its key made it")
    return _number(version)


def _number(version: str) -> int:
    if not version.isascii() or not version.isdecimal() or version.startswith("0") or len(version) > 10:
        raise KeyNotFoundError("a version of a Transit key is a number from 1")
    return int(version)


def _made(result: Mapping[str, Any], name: str) -> Made:
    text = result.get(name)
    form = parse(text) if isinstance(text, str) else None
    if form is None:
        raise ProviderConnectionError(f"the Vault server's answer has no {name} in it")
    return Made(form[1], form[0])


def _hash(algorithm: SignatureAlgorithm) -> str:
    return f"sha2-{algorithm.value[-3:]}"


def _der(text: str) -> bytes:
    """Return a public key as SubjectPublicKeyInfo; the server gives Ed25519 as 32 bytes in base64, others in PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        if text.startswith("-----"):
            return load_pem_public_key(text.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        raw = base64.b64decode(text, validate=True)
        return Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        raise ProviderConnectionError("the Vault server's answer has no public key that can be read") from None
