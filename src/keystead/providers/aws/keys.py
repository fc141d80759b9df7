"""The names of AWS KMS and ours: key ids, ARNs and Regions, states, purposes, algorithms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from keystead.errors import ConfigurationError, InvalidInputError, ProviderConnectionError
from keystead.model import KeyDescription, KeyPurpose, KeyReference, KeyState, SignatureAlgorithm

PROVIDER: Final = "aws"
ALGORITHM: Final = "SYMMETRIC_DEFAULT"

SIGNING_NAMES: Final[Mapping[SignatureAlgorithm, str]] = {
    SignatureAlgorithm.ED25519: "ED25519_SHA_512",
    SignatureAlgorithm.ECDSA_SHA_256: "ECDSA_SHA_256",
    SignatureAlgorithm.ECDSA_SHA_384: "ECDSA_SHA_384",
    SignatureAlgorithm.ECDSA_SHA_512: "ECDSA_SHA_512",
    SignatureAlgorithm.RSA_PSS_SHA_256: "RSASSA_PSS_SHA_256",
    SignatureAlgorithm.RSA_PSS_SHA_384: "RSASSA_PSS_SHA_384",
    SignatureAlgorithm.RSA_PSS_SHA_512: "RSASSA_PSS_SHA_512",
    SignatureAlgorithm.RSA_PKCS1_SHA_256: "RSASSA_PKCS1_V1_5_SHA_256",
    SignatureAlgorithm.RSA_PKCS1_SHA_384: "RSASSA_PKCS1_V1_5_SHA_384",
    SignatureAlgorithm.RSA_PKCS1_SHA_512: "RSASSA_PKCS1_V1_5_SHA_512",
}
"""In order of preference: a key's first is its default. Ed25519ph, SM2 and ML-DSA are not among ours."""
MAC_NAMES: Final[Mapping[SignatureAlgorithm, str]] = {
    SignatureAlgorithm.HMAC_SHA_256: "HMAC_SHA_256",
    SignatureAlgorithm.HMAC_SHA_384: "HMAC_SHA_384",
    SignatureAlgorithm.HMAC_SHA_512: "HMAC_SHA_512",
}

_PURPOSES: Final = {
    "ENCRYPT_DECRYPT": KeyPurpose.ENCRYPT_DECRYPT,
    "SIGN_VERIFY": KeyPurpose.SIGN_VERIFY,
    "GENERATE_VERIFY_MAC": KeyPurpose.MAC,
}
_STATES: Final = {
    "Enabled": KeyState.ENABLED,
    "Updating": KeyState.ENABLED,  # a multi-Region key whose primary is changing; it can be used meanwhile
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingReplicaDeletion": KeyState.PENDING_DELETION,
}
"""Every other state (Creating, Disabled, PendingImport, Unavailable) does nothing, and may come back."""

_KEY_ID: Final = re.compile(r"[!-~]{1,2048}\Z")
_ARN: Final = re.compile(r"arn:(aws[a-z-]*):kms:([a-z0-9-]+):(\d{12}):(key|alias)/([!-~]+)\Z")


@dataclass(frozen=True, slots=True)
class Arn:
    """The ARN of a key or an alias, in parts."""

    partition: str
    region: str
    account: str
    kind: str
    name: str

    @classmethod
    def find(cls, key_id: str) -> Arn | None:
        """Return the parts of ``key_id``, or None where it is no ARN of KMS."""
        match = _ARN.match(key_id)
        return cls(*match.groups()) if match else None

    @property
    def is_multi_region(self) -> bool:
        """Whether the key may have replicas, with the same id and key material, in other Regions."""
        return self.kind == "key" and self.name.startswith("mrk-")

    def in_region(self, region: str) -> str:
        """Return the ARN of the replica in ``region``."""
        return f"arn:{self.partition}:kms:{region}:{self.account}:{self.kind}/{self.name}"


def check_key_id(key_id: str) -> str:
    """Return ``key_id``.

    Raises:
        InvalidInputError: it can be no key id, alias or ARN.
    """
    if not isinstance(key_id, str) or not _KEY_ID.match(key_id):
        raise InvalidInputError("a key of AWS KMS is named by its key id, by alias/<name>, or by an ARN of either")
    return key_id


def is_alias(key_id: str) -> bool:
    """Whether ``key_id`` may name another key tomorrow."""
    arn = Arn.find(key_id)
    return arn.kind == "alias" if arn else key_id.startswith("alias/")


def place(key_id: str, region: str | None, *, has_own_endpoint: bool) -> tuple[str, str | None]:
    """Return the key id to send and the Region to send it to, given the ``region`` that is configured.

    A key that is in one Region only is reached there. A multi-Region key is reached through its replica in the
    configured Region, whichever Region's ARN was recorded.

    Raises:
        ConfigurationError: the key is elsewhere, and the endpoint is not that Region's.
    """
    arn = Arn.find(key_id)
    if arn is None or region in (None, arn.region):
        return key_id, region if arn is None else arn.region
    if arn.is_multi_region and region is not None:
        return arn.in_region(region), region
    if has_own_endpoint:
        raise ConfigurationError(
            f"the key is in {arn.region}, and endpoint_url is one of {region}: give the key's Region a provider "
            "instance of its own"
        )
    return key_id, arn.region


def is_same_key(asked: str, answered: str) -> bool:
    """Whether the ARN ``answered`` can be of the key that ``asked`` names; replicas of a multi-Region key are one."""
    if is_alias(asked):
        return True
    arn, other = Arn.find(asked), Arn.find(answered)
    if other is None or arn is None:
        return other is not None and other.name == asked
    return asked == answered or (arn.is_multi_region and arn.in_region(other.region) == answered)


def require_same_key(asked: str, answered: object) -> None:
    """Raise unless ``answered`` can be of the key that ``asked`` names: by its ARN, or as emulators do by its bare id.

    Raises:
        ProviderConnectionError: it is another one's.
    """
    arn = Arn.find(asked)
    is_named = answered == asked or (arn is not None and answered == arn.name)
    if not is_named and not (isinstance(answered, str) and is_same_key(asked, answered)):
        raise ProviderConnectionError("the endpoint of AWS KMS answered for another key; is it AWS KMS?")


def reference(
    answered: str, asked: str, *, purpose: KeyPurpose = KeyPurpose.ENCRYPT_DECRYPT, version: str | None = None
) -> KeyReference:
    """Name the key as AWS answered it; what was asked for, if that differs, is the alias."""
    alias = None if asked == answered else asked
    return KeyReference(PROVIDER, answered, key_alias=alias, purpose=purpose, key_version=version)


def describe_metadata(metadata: Mapping[str, Any], asked: str) -> KeyDescription:
    """Return what ``DescribeKey`` says of a key.

    Raises:
        InvalidInputError: a key for something Keystead does not do.
    """
    usage = metadata.get("KeyUsage", "ENCRYPT_DECRYPT")
    if usage not in _PURPOSES:
        raise InvalidInputError(
            "the key is for key agreement or encapsulation; Keystead uses keys that encrypt, sign or make MACs"
        )
    created_at = metadata.get("CreationDate")
    created_at = created_at and created_at.astimezone(UTC)
    return KeyDescription(
        key_reference=KeyReference(
            PROVIDER,
            metadata["Arn"],
            key_alias=None if asked == metadata["Arn"] else asked,
            purpose=_PURPOSES[usage],
            created_at=created_at,
            key_version=metadata.get("CurrentKeyMaterialId"),
        ),
        state=_STATES.get(metadata.get("KeyState", ""), KeyState.DISABLED),
        created_at=created_at,
        current_version=metadata.get("CurrentKeyMaterialId"),
        algorithms=_algorithms(metadata),
    )


def signing_algorithms(names: list[str]) -> tuple[SignatureAlgorithm, ...]:
    """Return ours of AWS's names, the preferred one first."""
    return tuple(ours for ours, name in SIGNING_NAMES.items() if name in names)


def _algorithms(metadata: Mapping[str, Any]) -> tuple[SignatureAlgorithm, ...]:
    spec = metadata.get("KeySpec", "")
    if spec.startswith("HMAC_"):
        return tuple(ours for ours, name in MAC_NAMES.items() if name == spec.replace("HMAC_", "HMAC_SHA_"))
    return signing_algorithms(metadata.get("SigningAlgorithms", []))
