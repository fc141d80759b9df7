"""AWS KMS: MACs by HMAC keys, signatures by asymmetric keys, and their public halves."""

from __future__ import annotations

import hashlib
from typing import Final, TypeVar

from keystead.crypto.signatures import INVALID
from keystead.errors import InvalidInputError, InvalidSignatureError, KeyNotFoundError
from keystead.model import KeyDescription, KeyPurpose, PublicKey, Signature, SignatureAlgorithm
from keystead.ports import Clock
from keystead.providers.aws.calls import LARGEST, AwsCalls
from keystead.providers.aws.clients import Answer
from keystead.providers.aws.config import AWSKMSConfig
from keystead.providers.aws.keys import (
    MAC_NAMES,
    SIGNING_NAMES,
    check_key_id,
    describe_metadata,
    is_alias,
    reference,
    require_same_key,
    signing_algorithms,
)
from keystead.providers.inputs import message_bytes

T = TypeVar("T")

_LARGEST_MAC: Final = 6144
_REMEMBERED: Final = 256


class AwsSigning(AwsCalls):
    """``ComputesMacs`` and ``SignsMessages``. What never changes of a key is remembered, unless an alias names it."""

    def __init__(self, config: AWSKMSConfig, clock: Clock) -> None:
        super().__init__(config, clock)
        self._algorithms: dict[str, tuple[SignatureAlgorithm, ...]] = {}
        self._public_keys: dict[str, PublicKey] = {}

    async def describe(self, key_id: str) -> KeyDescription:
        """Return identity, state, purpose, algorithms and creation date; the version is that of the key material.

        States: what AWS calls Creating, Disabled, PendingImport and Unavailable is DISABLED here, PendingDeletion and
        PendingReplicaDeletion are PENDING_DELETION, Enabled and Updating are ENABLED. A deleted key is not found.

        Raises:
            KeyNotFoundError: there is no such key or alias in this account and Region.
            InvalidInputError: the key is for key agreement or encapsulation.
        """
        answer = await self._ask("describe_key", ("KeyMetadata",), KeyId=check_key_id(key_id))
        metadata = answer["KeyMetadata"]
        require_same_key(key_id, metadata.get("Arn"))
        return describe_metadata(metadata, key_id)

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the HMAC of ``message``, 1 to 4096 bytes, by an HMAC key.

        Raises:
            InvalidInputError: another length, an algorithm that is no MAC, or a key that makes none.
            SigningError: AWS made no MAC.
        """
        content = _sized(message)
        check_key_id(key_id)
        chosen = algorithm or await self._default(key_id, KeyPurpose.MAC)
        answer = await self._ask_key(
            "generate_mac", ("Mac",), KeyId=key_id, Message=content, MacAlgorithm=_mac_name(chosen)
        )
        named = reference(answer["KeyId"], key_id, purpose=KeyPurpose.MAC)
        return Signature(bytes(answer["Mac"]), named, chosen)

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message``; asks the key that ``mac`` names.

        Raises:
            InvalidSignatureError: it is not.
            InvalidInputError: a message that no MAC can be of, an algorithm that is no MAC, or a key that makes none.
        """
        content = _sized(message)
        key_id, name = check_key_id(mac.key_reference.key_id), _mac_name(mac.algorithm)
        if not 1 <= len(mac.value) <= _LARGEST_MAC:
            raise InvalidSignatureError(INVALID)
        answer = await self._ask_key("verify_mac", (), KeyId=key_id, Message=content, MacAlgorithm=name, Mac=mac.value)
        if answer.get("MacValid") is not True:
            raise InvalidSignatureError(INVALID)

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message``: of any length, but with Ed25519 of 1 to 4096 bytes.

        A message AWS does not take whole is hashed here, which makes the same signature. Without ``algorithm`` an RSA
        key signs by PSS with SHA-256. An alias and no ``algorithm`` cost a second request.

        Raises:
            InvalidInputError: a message too long for Ed25519, an algorithm that is not the key's, or a key that does
                not sign.
            SigningError: AWS made no signature.
        """
        content = message_bytes(message)
        check_key_id(key_id)
        chosen = algorithm or await self._default(key_id, KeyPurpose.SIGN_VERIFY)
        if chosen not in SIGNING_NAMES:
            raise InvalidInputError(f"{chosen} is made by an HMAC key and `mac`, not by `sign`")
        answer = await self._signed(content, key_id, chosen)
        named = reference(answer["KeyId"], key_id, purpose=KeyPurpose.SIGN_VERIFY)
        return Signature(bytes(answer["Signature"]), named, chosen)

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public half of an asymmetric signing key; it has one for life, and no versions.

        Raises:
            KeyNotFoundError: no such key, or a ``version`` is asked for.
            InvalidInputError: the key is symmetric, or does not sign.
        """
        check_key_id(key_id)
        if version is not None:
            raise KeyNotFoundError("asymmetric keys of AWS KMS have no versions: a new key is another key")
        found = self._public_keys.get(key_id)
        if found is None:
            found = await self._fetched(key_id)
            if not is_alias(key_id):
                _remember(self._public_keys, key_id, found)
        return found

    async def _signed(self, content: bytes, key_id: str, algorithm: SignatureAlgorithm) -> Answer:
        kind, hash_name = "RAW", algorithm.hash_name
        if hash_name is None:
            content = _sized(content)
        elif not 1 <= len(content) <= LARGEST:
            kind, name, whole = "DIGEST", hash_name, content
            content = await self._workers.run(lambda: hashlib.new(name, whole).digest())
        return await self._ask_key(
            "sign",
            ("Signature",),
            KeyId=key_id,
            Message=content,
            MessageType=kind,
            SigningAlgorithm=SIGNING_NAMES[algorithm],
        )

    async def _fetched(self, key_id: str) -> PublicKey:
        answer = await self._ask_key("get_public_key", ("PublicKey",), KeyId=key_id)
        algorithms = signing_algorithms(answer.get("SigningAlgorithms", []))
        if answer.get("KeyUsage") != "SIGN_VERIFY" or not algorithms:
            raise InvalidInputError("the key does not sign, or by algorithms that Keystead does not verify only")
        named = reference(answer["KeyId"], key_id, purpose=KeyPurpose.SIGN_VERIFY)
        return PublicKey(bytes(answer["PublicKey"]), named, algorithms)

    async def _default(self, key_id: str, purpose: KeyPurpose) -> SignatureAlgorithm:
        algorithms = self._algorithms.get(key_id)
        if algorithms is None:
            description = await self.describe(key_id)
            algorithms = description.algorithms
            if not is_alias(key_id):
                _remember(self._algorithms, key_id, algorithms)
        usable = [each for each in algorithms if each.is_mac == (purpose is KeyPurpose.MAC)]
        if not usable:
            raise InvalidInputError(
                "the key makes no MACs: it needs the key spec HMAC_256, HMAC_384 or HMAC_512"
                if purpose is KeyPurpose.MAC
                else "the key signs by no algorithm of Keystead's: it needs an RSA, a NIST or secp256k1 ECC, or an "
                "Ed25519 key spec with the usage SIGN_VERIFY"
            )
        return usable[0]


def _sized(message: object) -> bytes:
    content = message_bytes(message)
    if not 1 <= len(content) <= LARGEST:
        raise InvalidInputError(
            f"AWS KMS takes 1 to {LARGEST} bytes here; make the MAC or Ed25519 signature of a SHA-256 of the message "
            "instead, on both sides"
        )
    return content


def _mac_name(algorithm: SignatureAlgorithm) -> str:
    if algorithm not in MAC_NAMES:
        raise InvalidInputError(f"{algorithm} is no MAC; an asymmetric key makes it, by `sign`")
    return MAC_NAMES[algorithm]


def _remember(memory: dict[str, T], key_id: str, value: T) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key_id] = value
