"""What a KMS answers: references, encrypted data, data key pairs."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.model.algorithms import SignatureAlgorithm
from keystead.model.secret import SecretBytes

MAGIC: Final = 0xAF
FORMAT_VERSION: Final = 1
TEXT_PREFIX: Final = "ks2."
T = TypeVar("T")


class KeyPurpose(StrEnum):
    """What a KMS key may do."""

    ENCRYPT_DECRYPT = "encrypt_decrypt"
    SIGN_VERIFY = "sign_verify"
    MAC = "mac"


class KeyState(StrEnum):
    """State of a KMS key, as ``describe`` reports it (a data key's is ``DataKeyState``)."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    PENDING_DELETION = "pending_deletion"
    DESTROYED = "destroyed"


class WrapState(StrEnum):
    """How one KEK's wrap stands, in a ciphertext whose key several KEKs wrap."""

    CURRENT = "current"
    STALE = "stale"
    """Made by an older version, or by another key than the one that is configured now."""
    MISSING = "missing"
    UNCONFIGURED = "unconfigured"
    """Of a KEK that is no longer one of the set."""
    UNREACHABLE = "unreachable"
    """Its KEK does not answer, or does not allow it."""
    REFUSED = "refused"
    """Its KEK does not open it, or opens it to another key than the others."""

    @property
    def is_mended_by_rewrap(self) -> bool:
        """Whether wrapping again would change it for the better."""
        return self in (WrapState.STALE, WrapState.MISSING, WrapState.UNCONFIGURED)


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Names a key inside a provider instance. ``key_id`` is the identity the service answered with.

    Raises:
        InvalidInputError: ``created_at`` has no time zone.
    """

    provider: str
    key_id: str
    key_alias: str | None = None
    purpose: KeyPurpose = KeyPurpose.ENCRYPT_DECRYPT
    created_at: datetime | None = None
    key_version: str | None = None

    def __post_init__(self) -> None:
        _require_aware("created_at", self.created_at)

    @property
    def qualified_id(self) -> str:
        """``provider:key_id``. Split it at the first colon only: key ids may hold colons."""
        return f"{self.provider}:{self.key_id}"


class _Answer(Protocol):
    """What a KMS answered about a key: a dataclass of this package, frozen and with slots."""

    @property
    def key_reference(self) -> KeyReference: ...


A = TypeVar("A", bound=_Answer)


def under(answer: A, provider: str) -> A:
    """Return the same answer with its key under another provider's name; nothing in it is checked again."""
    return _with(answer, "key_reference", _with(answer.key_reference, "provider", provider))


def _with(record: T, name: str, value: object) -> T:
    """Return ``record`` with another value, as ``dataclasses.replace`` does in several times the time."""
    twin: T = object.__new__(type(record))
    for slot in record.__slots__:  # type: ignore[attr-defined]  # all of them have slots
        object.__setattr__(twin, slot, getattr(record, slot))
    object.__setattr__(twin, name, value)
    return twin


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What a service says of a key: identity as answered, purpose (in the reference), state, times, current version.

    ``algorithms`` are those a signing or MAC key works with, the service's default first.
    """

    key_reference: KeyReference
    state: KeyState = KeyState.ENABLED
    created_at: datetime | None = None
    current_version: str | None = None
    algorithms: tuple[SignatureAlgorithm, ...] = ()


@dataclass(frozen=True, slots=True)
class EncryptedData:
    """One ciphertext of a KMS with what is needed to decrypt it. Immutable, hashable, comparable.

    Serial forms: ``to_dict`` (FraiseQL's keys plus ``version``), ``to_bytes`` (magic ``0xAF``) and
    ``str()`` (``ks2.`` + unpadded base64url of the bytes). Spec: docs/spec/encrypted-data-v1.md.

    Raises:
        InvalidInputError: ``encrypted_at`` has no time zone.
    """

    ciphertext: bytes
    key_reference: KeyReference
    algorithm: str
    encrypted_at: datetime
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_aware("encrypted_at", self.encrypted_at)
        object.__setattr__(self, "context", MappingProxyType(dict(self.context)))

    def __hash__(self) -> int:
        return hash((self.ciphertext, self.key_reference, self.algorithm, self.encrypted_at))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(),)

    def __str__(self) -> str:
        return TEXT_PREFIX + base64.urlsafe_b64encode(self.to_bytes()).rstrip(b"=").decode("ascii")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict: ciphertext in hex, times in ISO 8601."""
        ref = self.key_reference
        return {
            "version": FORMAT_VERSION,
            "ciphertext": self.ciphertext.hex(),
            "key_reference": {
                "provider": ref.provider,
                "key_id": ref.key_id,
                "purpose": ref.purpose.value,
                "key_alias": ref.key_alias,
                "key_version": ref.key_version,
                "created_at": ref.created_at.isoformat() if ref.created_at else None,
            },
            "algorithm": self.algorithm,
            "encrypted_at": self.encrypted_at.isoformat(),
            "context": dict(self.context),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncryptedData:
        """Read ``to_dict``'s form, FraiseQL's bare form, and the flat ``key_id = "provider:key_id"`` form.

        Raises:
            InvalidCiphertextError: a field is missing or malformed.
        """
        try:
            if data.get("version", FORMAT_VERSION) != FORMAT_VERSION:
                raise InvalidCiphertextError("this encrypted data is of a version newer than this release reads")
            if "key_reference" in data:
                ref = data["key_reference"]
                created = ref.get("created_at")
                reference = KeyReference(
                    provider=_text(ref["provider"]),
                    key_id=_text(ref["key_id"]),
                    key_alias=_optional_text(ref.get("key_alias")),
                    purpose=KeyPurpose(ref.get("purpose") or "encrypt_decrypt"),
                    created_at=_aware(created) if created else None,
                    key_version=_optional_text(ref.get("key_version")),
                )
            else:
                provider, colon, key_id = _text(data["key_id"]).partition(":")
                if not colon:
                    raise InvalidCiphertextError('the flat key_id must read "provider:key_id"')
                reference = KeyReference(provider=provider, key_id=key_id)
            context = data.get("context") or {}
            return cls(
                ciphertext=bytes.fromhex(_text(data["ciphertext"])),
                key_reference=reference,
                algorithm=_text(data["algorithm"]),
                encrypted_at=_aware(data["encrypted_at"]),
                context={_text(k): _text(v) for k, v in context.items()},
            )
        except InvalidCiphertextError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise InvalidCiphertextError(f"malformed encrypted data: {type(exc).__name__}") from None

    def to_bytes(self) -> bytes:
        """Return the binary form: magic, version, then length-prefixed fields in a fixed order.

        Raises:
            InvalidInputError: a text has a lone surrogate, which UTF-8 cannot encode.
        """
        ref = self.key_reference
        texts = [
            ref.provider,
            ref.key_id,
            ref.purpose.value,
            ref.key_alias or "",
            ref.key_version or "",
            ref.created_at.isoformat() if ref.created_at else "",
            self.algorithm,
            self.encrypted_at.isoformat(),
        ]
        try:
            fields = [self.ciphertext, *(text.encode() for text in texts)]
            pairs = sorted((key.encode(), value.encode()) for key, value in self.context.items())
        except UnicodeEncodeError:
            raise InvalidInputError("encrypted data has a lone surrogate, which UTF-8 cannot encode") from None
        for pair in pairs:
            fields += pair
        return bytes((MAGIC, FORMAT_VERSION)) + b"".join(struct.pack(">I", len(f)) + f for f in fields)

    @classmethod
    def from_bytes(cls, blob: bytes) -> EncryptedData:
        """Read ``to_bytes``'s form; what it would not write is refused, so that nothing has two spellings.

        Raises:
            InvalidCiphertextError: other magic or version, truncation, or another spelling of the same.
        """
        if blob[:2] != bytes((MAGIC, FORMAT_VERSION)):
            raise InvalidCiphertextError("not encrypted data of version 1 (it begins with 0xAF 0x01)")
        fields, at = [], 2
        while at < len(blob):
            if at + 4 > len(blob):
                raise InvalidCiphertextError("encrypted data is truncated")
            (length,) = struct.unpack_from(">I", blob, at)
            at += 4
            if at + length > len(blob):
                raise InvalidCiphertextError("encrypted data is truncated")
            fields.append(bytes(blob[at : at + length]))
            at += length
        if len(fields) < 9 or len(fields) % 2 == 0:
            raise InvalidCiphertextError("encrypted data is truncated")
        try:
            texts = [f.decode() for f in fields[1:]]
            provider, key_id, purpose, alias, version, created, algorithm, encrypted_at = texts[:8]
            pairs = texts[8:]
            parsed = cls(
                ciphertext=fields[0],
                key_reference=KeyReference(
                    provider=provider,
                    key_id=key_id,
                    key_alias=alias or None,
                    purpose=KeyPurpose(purpose),
                    created_at=datetime.fromisoformat(created) if created else None,
                    key_version=version or None,
                ),
                algorithm=algorithm,
                encrypted_at=datetime.fromisoformat(encrypted_at),
                context=dict(zip(pairs[::2], pairs[1::2], strict=True)),
            )
        except ValueError:
            raise InvalidCiphertextError("malformed encrypted data") from None
        if parsed.to_bytes() != blob:
            raise InvalidCiphertextError("malformed encrypted data")
        return parsed

    @classmethod
    def parse(cls, value: EncryptedData | Mapping[str, Any] | bytes | str) -> EncryptedData:
        """Return ``value`` as EncryptedData from any of its forms: itself, its dict, its bytes or its text."""
        if isinstance(value, EncryptedData):
            return value
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return cls.from_bytes(bytes(value))
        if isinstance(value, str) and value.startswith(TEXT_PREFIX):
            body = value[len(TEXT_PREFIX) :]
            try:
                raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            except ValueError:
                raise InvalidCiphertextError("malformed text form of encrypted data") from None
            parsed = cls.from_bytes(raw)
            if str(parsed) != value:
                raise InvalidCiphertextError("malformed text form of encrypted data")
            return parsed
        raise InvalidInputError("expected EncryptedData, its dict, its bytes or its ks2. text")


@dataclass(frozen=True, slots=True)
class DataKeyPair:
    """A data key in clear and wrapped. Keep ``encrypted_key``; let ``plaintext_key`` go out of scope."""

    plaintext_key: SecretBytes
    encrypted_key: EncryptedData
    key_reference: KeyReference

    def __post_init__(self) -> None:
        object.__setattr__(self, "plaintext_key", SecretBytes(self.plaintext_key))

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return ``nonce (12) || ciphertext || tag (16)`` under AES-GCM, without an envelope."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if isinstance(plaintext, str):
            raise InvalidInputError("encrypt takes bytes; encode text first with .encode()")
        nonce = os.urandom(12)
        return nonce + AESGCM(self.plaintext_key).encrypt(nonce, plaintext, None)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return what ``encrypt`` was given.

        Raises:
            DecryptionError: another key, or altered bytes.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self.plaintext_key).decrypt(ciphertext[:12], ciphertext[12:], None)
        except (InvalidTag, ValueError, TypeError):
            raise DecryptionError("decryption failed") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _require_aware(name: str, moment: datetime | None) -> None:
    if moment is not None and moment.utcoffset() is None:
        raise InvalidInputError(f"{name} has no time zone; give it one, as in datetime.now(UTC)")


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
