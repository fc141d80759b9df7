"""The Go KMS's crypto service: named fields, batches, keyed hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from keystead.crypto.blind_index import exact_index_hex
from keystead.crypto.context import encode_context
from keystead.crypto.envelope import parse_header
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidAlgorithmError,
    InvalidInputError,
    KMSError,
)
from keystead.model import EncryptedField

if TYPE_CHECKING:
    from keystead.manager.manager import KeyManager

ALGORITHM: Final = "AES-256-GCM"
ALGORITHMS: Final = frozenset({ALGORITHM, "AES-GCM-256"})
"""The canonical name first, then the Go KMS's other spelling of it."""
T = TypeVar("T")


class BatchResult(Mapping[str, T]):
    """Results of a batch by name, in the order given. Reading a failed name raises its own error.

    ``errors`` maps each failed name to its error.
    """

    def __init__(self, values: dict[str, T], errors: dict[str, KMSError], names: list[str]) -> None:
        self._values = values
        self._names = names
        self.errors = errors

    def __getitem__(self, name: str) -> T:
        if name in self.errors:
            raise self.errors[name]
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self.errors

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class CryptoService:
    """Encrypts named fields under the default keyring. The name is authenticated with the value."""

    def __init__(self, manager: KeyManager) -> None:
        self._manager = manager

    async def encrypt_field(self, name: str, value: bytes) -> EncryptedField:
        """Encrypt ``value`` (bytes; empty allowed) under the name ``name``."""
        if isinstance(value, str):
            raise InvalidInputError("crypto_service.encrypt_field takes bytes: call .encode() on text")
        if value is None:
            raise InvalidInputError("a field's value is bytes, not None; leave empty columns alone")
        ring = self._manager.default.ring
        sealed = ring.seal(value, _field_context(name))
        return EncryptedField(sealed, ring.get(parse_header(sealed).key_id).version, ALGORITHM, name)

    async def decrypt_field(self, field: EncryptedField, name: str | None = None) -> bytes:
        """Return a field's value; ``name`` must be the sealed one when given.

        Raises:
            DecryptionError: wrong key, name or version, or altered bytes.
            InvalidAlgorithmError: an algorithm that is none of ours.
        """
        if field is None:
            raise InvalidInputError("encrypted field cannot be None")
        if not isinstance(field, EncryptedField):
            raise InvalidInputError(
                f"decrypt_field takes an EncryptedField, not {type(field).__name__}; a value of the older system has "
                "no authenticated name, so it is read by decrypt_legacy alone"
            )
        if field.algorithm not in ALGORITHMS:
            raise InvalidAlgorithmError(f"algorithm {field.algorithm!r} is not {ALGORITHM}")
        if name is not None and name != field.name:
            raise DecryptionError("decryption failed: wrong key, wrong context or altered bytes")
        ring = self._manager.default.ring
        try:
            plaintext = ring.open(field.value, _field_context(field.name))
        except DataKeyNotLoadedError as exc:
            session = await self._manager.session()
            await session.lifecycle.lookup.fetch(ring, exc.data_key_id)
            plaintext = ring.open(field.value, _field_context(field.name))
        if ring.get(parse_header(field.value).key_id).version != field.version:
            raise DecryptionError("decryption failed: wrong key, wrong context or altered bytes")
        return plaintext

    async def encrypt_batch(self, fields: Mapping[str, bytes], *, atomic: bool = False) -> BatchResult[EncryptedField]:
        """Encrypt several named values; ``atomic`` raises the first error instead of keeping it."""
        self._manager.require_session()
        values, errors = {}, {}
        for name, value in fields.items():
            try:
                values[name] = await self.encrypt_field(name, value)
            except KMSError as exc:
                if atomic:
                    raise
                errors[name] = exc
        return BatchResult(values, errors, list(fields))

    async def decrypt_batch(self, fields: Mapping[str, EncryptedField], *, atomic: bool = False) -> BatchResult[bytes]:
        """Decrypt several fields, each checked against the name it is given under."""
        self._manager.require_session()
        values, errors = {}, {}
        for name, field in fields.items():
            try:
                values[name] = await self.decrypt_field(field, name)
            except KMSError as exc:
                if atomic:
                    raise
                errors[name] = exc
        return BatchResult(values, errors, list(fields))

    def hash_field(self, value: bytes | str, *, name: str = "") -> str:
        """Return a keyed hash, 64 hex characters, equal for equal values of one ``name``; text is hashed as UTF-8.

        Survives data key rotation and restart; without the key it cannot be computed or guessed.
        """
        if value is None:
            raise InvalidInputError("None has no hash; leave the index column empty")
        try:
            data = value.encode() if isinstance(value, str) else bytes(memoryview(value))
        except UnicodeEncodeError:
            raise InvalidInputError("the text has a lone surrogate, which UTF-8 cannot encode") from None
        except (TypeError, ValueError):
            raise InvalidInputError(f"a value to hash is text or bytes, not {type(value).__name__}") from None
        return exact_index_hex(self._manager.require_session().index_key(), name, "", data)

    async def clear_cache(self) -> None:
        """Forget every version but the active one; a forgotten one is fetched again when it is needed."""
        self._manager.require_session()
        self._manager.default.ring.forget_older()


def _field_context(name: str) -> bytes:
    if not isinstance(name, str):
        raise InvalidInputError(f"a field's name is a str, not {type(name).__name__}")
    return encode_context({"keystead.field": name})
