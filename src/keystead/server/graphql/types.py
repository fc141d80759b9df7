"""Types of the GraphQL schema. Names that documented clients use are theirs."""

from __future__ import annotations

from enum import Enum

import strawberry

from keystead.devices.pairs import ALGORITHMS, Algorithm
from keystead.devices.secrets import Reason, Verdict
from keystead.devices.statements import instant
from keystead.ports import ClientKeyRecord, PairKind, SecretKind


@strawberry.enum(name="PASSWORD_AUTH_TYPE", description="Which secret of a user is meant.")
class PasswordAuthType(Enum):
    """Which secret of a user is meant."""

    PASSCODE = "passcode"
    TRANSACTION_PIN = "transaction_pin"

    @property
    def kind(self) -> SecretKind:
        """The kind of secret."""
        return SecretKind(self.value)


strawberry.enum(Algorithm, name="ENCRYPTION_ALGORITHM", description="How it was encrypted.")
strawberry.enum(PairKind, name="KEY_KIND", description="What a key pair is.")
strawberry.enum(Reason, name="VERDICT_REASON", description="Why a verification came out so.")


@strawberry.input(description="A device, by the id that it gives itself.")
class ClientIdentityInput:
    """A device."""

    device_id: str
    app_version: str | None = None
    kind: PairKind | None = strawberry.field(
        default=None, description="RSA_2048 unless the service has another default."
    )


@strawberry.type(description="The public key that a device is to encrypt to.")
class EncryptionKeyOutput:
    """A public key."""

    public_key: str = strawberry.field(description="PEM, SubjectPublicKeyInfo.")
    key_id: str
    expires_at: str | None = strawberry.field(description="RFC 3339, in UTC, with milliseconds.")
    algorithm: Algorithm = strawberry.field(description="How to encrypt to it, where nothing is declared.")
    key_signature: str = strawberry.field(description="Of the service's own key; see /.well-known/keystead-keys.")

    @classmethod
    def of(cls, key: ClientKeyRecord, signature: str) -> EncryptionKeyOutput:
        """Return what is told of a key pair."""
        expires_at = None if key.expires_at is None else instant(key.expires_at)
        return cls(
            public_key=key.public_key,
            key_id=key.id,
            expires_at=expires_at,
            algorithm=ALGORITHMS[key.kind][0],
            key_signature=signature,
        )


@strawberry.type(description="A key pair of a device, without either half.")
class ClientKeyInfo:
    """A key pair as it is listed."""

    key_id: str
    device_id: str
    kind: PairKind
    created_at: str
    expires_at: str | None
    deprecated: bool = strawberry.field(description="Whether it is handed out no more.")
    is_erased: bool = strawberry.field(description="Whether its private half is gone.")
    app_version: str | None
    usage_count: float = strawberry.field(description="How often it has decrypted.")
    last_used: str | None

    @classmethod
    def of(cls, key: ClientKeyRecord) -> ClientKeyInfo:
        """Return what is told of a key pair."""
        return cls(
            key_id=key.id,
            device_id=key.device_id,
            kind=key.kind,
            created_at=key.created_at,
            expires_at=None if key.expires_at is None else instant(key.expires_at),
            deprecated=key.deprecated,
            is_erased=key.wrapped_private_key is None,
            app_version=key.app_version,
            usage_count=key.usage_count,
            last_used=None if key.last_used is None else instant(key.last_used),
        )


_PAYLOAD = "What is inside: 1, the secret alone, or 2, bound to operation, key and time."
_CURRENT = "The one that is replaced, encrypted to the same key by the same algorithm."


@strawberry.input(description="A passcode, encrypted to a device's key.")
class EncryptedVerifyPasscodeInput:
    """A passcode to verify."""

    encrypted_passcode: str
    key_id: str
    password_auth_type: PasswordAuthType | None = None
    algorithm: Algorithm | None = None
    payload_version: int = strawberry.field(default=1, description=_PAYLOAD)


@strawberry.input(description="A passcode, encrypted to a device's key.")
class EncryptedPasscodeInput(EncryptedVerifyPasscodeInput):
    """A passcode to set."""

    current_encrypted_passcode: str | None = strawberry.field(default=None, description=_CURRENT)


@strawberry.input(description="A transaction PIN, encrypted to a device's key: exactly one of the two names is given.")
class EncryptedVerifyTransactionPinInput:
    """A PIN to verify."""

    key_id: str
    encrypted_pin: str | None = None
    encrypted_passcode: str | None = None
    password_auth_type: PasswordAuthType | None = None
    algorithm: Algorithm | None = None
    payload_version: int = strawberry.field(default=1, description=_PAYLOAD)


@strawberry.input(description="A transaction PIN, encrypted to a device's key: exactly one of the two names is given.")
class EncryptedTransactionPinInput(EncryptedVerifyTransactionPinInput):
    """A PIN to set."""

    current_encrypted_pin: str | None = strawberry.field(default=None, description=_CURRENT)


@strawberry.input(description="A secret to verify, with a reason for an answer.")
class VerifySecretInput:
    """A secret to verify."""

    password_auth_type: PasswordAuthType
    encrypted_secret: str
    key_id: str
    algorithm: Algorithm | None = None
    payload_version: int = strawberry.field(default=1, description=_PAYLOAD)


@strawberry.type(description="How a verification came out.")
class SecretVerdict:
    """A verdict."""

    ok: bool
    reason: Reason
    retry_after: float | None = strawberry.field(description="Seconds until the next one is taken.")

    @classmethod
    def of(cls, verdict: Verdict) -> SecretVerdict:
        """Return a verdict as it is told."""
        return cls(ok=verdict.is_right, reason=verdict.reason, retry_after=verdict.retry_after_s)


@strawberry.input(description="Data that was encrypted to a device's key.")
class DecryptDataInput:
    """Data to decrypt."""

    encrypted_data: str
    key_id: str
    algorithm: Algorithm | None = None
    payload_version: int = strawberry.field(default=1, description=_PAYLOAD)


@strawberry.input(description="Something to encrypt as a client does, for development.")
class EncryptDataInput:
    """Data to encrypt."""

    data: str
    key_id: str
    algorithm: Algorithm | None = None
