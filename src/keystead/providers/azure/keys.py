"""Keys as Azure describes them: state, what they may do, and their public half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import InvalidInputError, KeyStateError, ProviderConnectionError
from keystead.model import KeyDescription, KeyPurpose, KeyReference, KeyState, PublicKey, SignatureAlgorithm
from keystead.providers.azure.config import AzureKeyId

if TYPE_CHECKING:
    from azure.keyvault.keys import JsonWebKey, KeyVaultKey

PROVIDER_NAME: Final = "azure"

_CURVES: Final[Mapping[str, SignatureAlgorithm]] = {
    "P-256": SignatureAlgorithm.ECDSA_SHA_256,
    "P-384": SignatureAlgorithm.ECDSA_SHA_384,
    "P-521": SignatureAlgorithm.ECDSA_SHA_512,
}
_RSA: Final = tuple(one for one in SignatureAlgorithm if one.value.startswith("RSA"))
_MACS: Final = tuple(one for one in SignatureAlgorithm if one.is_mac)
_SECRET_OPERATIONS: Final = frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey"})

THEIR_NAMES: Final[Mapping[SignatureAlgorithm, str]] = {
    SignatureAlgorithm.ECDSA_SHA_256: "ES256",
    SignatureAlgorithm.ECDSA_SHA_384: "ES384",
    SignatureAlgorithm.ECDSA_SHA_512: "ES512",
    SignatureAlgorithm.RSA_PSS_SHA_256: "PS256",
    SignatureAlgorithm.RSA_PSS_SHA_384: "PS384",
    SignatureAlgorithm.RSA_PSS_SHA_512: "PS512",
    SignatureAlgorithm.RSA_PKCS1_SHA_256: "RS256",
    SignatureAlgorithm.RSA_PKCS1_SHA_384: "RS384",
    SignatureAlgorithm.RSA_PKCS1_SHA_512: "RS512",
    SignatureAlgorithm.HMAC_SHA_256: "HS256",
    SignatureAlgorithm.HMAC_SHA_384: "HS384",
    SignatureAlgorithm.HMAC_SHA_512: "HS512",
}


@dataclass(frozen=True, slots=True)
class FoundKey:
    """One version of a key, as the service described it at ``read_at`` (monotonic seconds).

    ``family`` is ``RSA``, ``EC`` or ``oct``, whether an HSM holds it or not. ``sdk_key`` is what the SDK works with.
    """

    id: AzureKeyId
    family: str
    curve: str
    bits: int
    operations: frozenset[str]
    is_enabled: bool
    not_before: datetime | None
    expires_at: datetime | None
    created_at: datetime | None
    der: bytes | None
    sdk_key: KeyVaultKey
    read_at: float

    @property
    def algorithms(self) -> tuple[SignatureAlgorithm, ...]:
        """What it signs or makes MACs with, the default first."""
        return self.algorithms_of_its_type if "sign" in self.operations else ()

    @property
    def algorithms_of_its_type(self) -> tuple[SignatureAlgorithm, ...]:
        """What it may have signed with: one that is retired may do nothing more than verify."""
        if self.family == "EC":
            return (_CURVES[self.curve],) if self.curve in _CURVES else ()
        return _RSA if self.family == "RSA" else _MACS

    @property
    def purpose(self) -> KeyPurpose:
        """What it is for: a key that encrypts or wraps is for that, whatever else it may do."""
        if self.operations & _SECRET_OPERATIONS:
            return KeyPurpose.ENCRYPT_DECRYPT
        return KeyPurpose.MAC if self.family == "oct" else KeyPurpose.SIGN_VERIFY

    def require_usable(self, operation: str, now: datetime) -> None:
        """Return if the key may do ``operation`` now, as far as that is known here.

        Raises:
            KeyStateError: it is disabled, not valid yet, or expired.
            InvalidInputError: it was made for something else.
        """
        if not self.is_enabled:
            raise KeyStateError(f"the key {self.id} is disabled")
        if self.not_before is not None and now < self.not_before:
            raise KeyStateError(f"the key {self.id} is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC")
        if self.expires_at is not None and now >= self.expires_at:
            raise KeyStateError(f"the key {self.id} expired on {self.expires_at:%Y-%m-%d}; rotate it")
        if operation not in self.operations:
            raise InvalidInputError(f"the key {self.id} was not made for {operation}; its key_ops say what it may do")

    def state(self, now: datetime) -> KeyState:
        """Return the state; outside its time of validity a key protects nothing new, which is called disabled."""
        is_early = self.not_before is not None and now < self.not_before
        is_late = self.expires_at is not None and now >= self.expires_at
        return KeyState.DISABLED if is_early or is_late or not self.is_enabled else KeyState.ENABLED

    def reference(self, typed: str, purpose: KeyPurpose | None = None) -> KeyReference:
        """Return what answers name the key by; ``typed`` is what it was asked for by."""
        return KeyReference(
            provider=PROVIDER_NAME,
            key_id=self.id.base,
            key_alias=None if typed == self.id.base else typed,
            purpose=purpose or self.purpose,
            key_version=self.id.version,
        )

    def description(self, typed: str, state: KeyState) -> KeyDescription:
        """Return what ``describe`` answers."""
        return KeyDescription(
            key_reference=replace(self.reference(typed), created_at=self.created_at),
            state=state,
            created_at=self.created_at,
            current_version=self.id.version,
            algorithms=self.algorithms,
        )

    def public_key(self, typed: str) -> PublicKey:
        """Return the public half.

        Raises:
            InvalidInputError: there is none: the key is symmetric.
        """
        if self.der is None:
            raise InvalidInputError(f"the key {self.id} is symmetric and has no public half")
        return PublicKey(self.der, self.reference(typed, KeyPurpose.SIGN_VERIFY), self.algorithms_of_its_type)


def read_key(asked: AzureKeyId, theirs: KeyVaultKey, read_at: float) -> FoundKey:
    """Return a key of the SDK's as ours. Its host is the one that was asked, whatever the answer says.

    Raises:
        ProviderConnectionError: the answer is not of a key that this release knows, or of another one.
    """
    try:
        return _read(asked, theirs, read_at)
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise ProviderConnectionError(f"{asked.host} answered with a key that cannot be read")


def _read(asked: AzureKeyId, theirs: KeyVaultKey, read_at: float) -> FoundKey:
    from azure.keyvault.keys import KeyVaultKey

    jwk, properties = theirs.key, theirs.properties
    family = str(getattr(theirs.key_type, "value", theirs.key_type) or "").removesuffix("-HSM")
    if theirs.name.lower() != asked.name.lower() or not properties.version or family not in {"RSA", "EC", "oct"}:
        raise ProviderConnectionError(f"{asked.host} answered with another key, or one of an unknown type")
    key_id = AzureKeyId(asked.host, theirs.name, properties.version)
    operations = frozenset(str(getattr(one, "value", one)) for one in theirs.key_operations or ())
    public = {} if family == "oct" else _public_members(jwk)
    # Without key_ops the SDK computes nothing here: for a symmetric key whose bytes it does not have it would otherwise
    # make up a random one, and wrap under that.
    allowed = [] if family == "oct" else sorted(operations)
    return FoundKey(
        id=key_id,
        family=family,
        curve=str(getattr(public.get("crv"), "value", public.get("crv")) or ""),
        bits=int.from_bytes(public.get("n", b""), "big").bit_length(),
        operations=operations,
        is_enabled=properties.enabled is not False,
        not_before=_aware(properties.not_before),
        expires_at=_aware(properties.expires_on),
        created_at=_aware(properties.created_on),
        der=_der(family, public),
        sdk_key=KeyVaultKey(
            str(key_id), jwk={"kid": str(key_id), "kty": theirs.key_type, "key_ops": allowed, **public}
        ),
        read_at=read_at,
    )


def _public_members(jwk: JsonWebKey) -> dict[str, Any]:
    return {name: value for name in ("n", "e", "crv", "x", "y") if (value := getattr(jwk, name, None)) is not None}


def _der(family: str, public: Mapping[str, Any]) -> bytes | None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    if family == "oct":
        return None
    if family == "RSA":
        key = rsa.RSAPublicNumbers(_number(public["e"]), _number(public["n"])).public_key()
    else:
        curves: Mapping[str, ec.EllipticCurve] = {
            "P-256": ec.SECP256R1(),
            "P-384": ec.SECP384R1(),
            "P-521": ec.SECP521R1(),
            "P-256K": ec.SECP256K1(),
        }
        curve = curves[str(getattr(public["crv"], "value", public["crv"]))]
        key = ec.EllipticCurvePublicNumbers(_number(public["x"]), _number(public["y"]), curve).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
