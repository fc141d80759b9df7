"""Time, randomness, and one KMS: three members make a provider, and everything else is a capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from keystead.errors import KMSError
from keystead.model import (
    DataKeyPair,
    EncryptedData,
    KeyDescription,
    KeyReference,
    PublicKey,
    RotationPolicy,
    Signature,
    SignatureAlgorithm,
    WrapState,
)


class Clock(Protocol):
    """Wall and monotonic time, and waiting; injected so that tests own it."""

    def now(self) -> datetime:
        """Return the wall time, aware UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""


class Random(Protocol):
    """A source of random bytes with the signature of ``os.urandom``."""

    def __call__(self, size: int, /) -> bytes:
        """Return ``size`` random bytes."""


@runtime_checkable
class KmsProvider(Protocol):
    """One KMS. Raises only errors of ``keystead.errors``; ``guard`` puts deadline and retry around it."""

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``local``, ``vault``, ``aws``..."""

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt ``plaintext`` under ``key_id``, binding ``context``."""

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``."""


@runtime_checkable
class GeneratesDataKeys(Protocol):
    """The service draws and wraps a data key in one call."""

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Return a new data key in clear and wrapped; ``key_spec`` is AES_128 or AES_256."""


@runtime_checkable
class DescribesKeys(Protocol):
    """The service tells identity, state and version of a key."""

    async def describe(self, key_id: str) -> KeyDescription:
        """Return what the service says of ``key_id``; ``KeyNotFoundError`` when absent."""


@runtime_checkable
class RotatesKeys(Protocol):
    """The service makes a new version of a key now. Not idempotent: ``describe`` decides after an unclear failure."""

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Make a new KEK version and return it."""


@runtime_checkable
class RetiresKeyVersions(Protocol):
    """The service removes an old version of its KEK for ever."""

    async def retire_version(self, version: int) -> None:
        """Remove ``version``; nothing may be encrypted under it any more."""


@runtime_checkable
class RewrapsCiphertexts(Protocol):
    """The service moves a ciphertext to its newest key version without showing the plaintext."""

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under the newest version."""


@runtime_checkable
class KeepsWraps(Protocol):
    """Ciphertexts hold one key wrapped under several KEKs, any one of which opens it."""

    def missing_wraps(self, encrypted: EncryptedData) -> list[str]:
        """Return the names of the KEKs whose wrap is missing; asks none of them."""

    async def check_wraps(
        self,
        encrypted: EncryptedData,
        key_id: str | None = None,
        *,
        context: Mapping[str, str] | None = None,
        opens: bool = False,
    ) -> Mapping[str, WrapState]:
        """Return how each KEK's wrap stands, by the KEK's name.

        ``key_id`` is the key that it should be under, None the one that was asked for; ``opens`` has every wrap opened.

        Raises:
            DecryptionError: it is no such ciphertext.
        """

    async def mend_wraps(
        self, encrypted: EncryptedData, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Return the same plaintext wrapped by every KEK's newest version of ``key_id``, as far as the KEKs answer."""


@runtime_checkable
class ReportsRotationPolicy(Protocol):
    """The service tells its own rotation schedule of a key."""

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return the KEK's policy as the service reports it."""


@runtime_checkable
class EncryptsBatches(Protocol):
    """The service takes several plaintexts in one call."""

    async def encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        """Encrypt each plaintext; order kept."""


@runtime_checkable
class ReadsForeignData(Protocol):
    """The provider opens what another system encrypted under the same key; it never writes that form."""

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        """Return the plaintext of data written by FraiseQL, bound to the context as it was stored."""


@runtime_checkable
class OpensTransitTexts(Protocol):
    """The provider opens ``vault:vN:`` texts that an application had encrypted by itself; it never writes that way."""

    async def decrypt_texts(
        self, texts: Sequence[str], key_id: str, *, context: bytes = b"", associated_data: bytes = b""
    ) -> list[bytes | KMSError]:
        """Return for each text its plaintext or the error that is its own; order kept, in as few requests as can be."""


@runtime_checkable
class Closes(Protocol):
    """The provider holds something that must be given back."""

    async def aclose(self) -> None:
        """Release connections and wipe what can be wiped; idempotent."""


@runtime_checkable
class ComputesMacs(Protocol):
    """The service makes and checks MACs under keys that never leave it."""

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the MAC of ``message``; ``algorithm`` None is the key's own."""

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message`` under the key it names, else raise ``InvalidSignatureError``."""


@runtime_checkable
class ComputesMacBatches(Protocol):
    """The service makes many MACs in few calls."""

    async def mac_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the MAC of each message; order kept; all or an error."""


@runtime_checkable
class SignsMessages(Protocol):
    """The service signs with private keys that never leave it. Signatures are checked here, by the public key."""

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message``, of any length; ``algorithm`` None is the key's default."""

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public key of a version, of the newest usable one where ``version`` is None."""


@runtime_checkable
class SignsBatches(Protocol):
    """The service signs many messages in few calls."""

    async def sign_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the signature of each message; order kept; all or an error."""


@runtime_checkable
class ListsKeyVersions(Protocol):
    """The service lists the versions of a key, where their names do not follow from each other."""

    async def key_versions(self, key_id: str) -> list[str]:
        """Return the versions of ``key_id``, in any state; the newest first, as far as the service tells."""


@runtime_checkable
class ChecksPermissions(Protocol):
    """The service tells, without doing anything, what these credentials may do with a key."""

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return for operations by their names here (``encrypt``, ``mac``...) whether they are allowed.

        ``context`` is what they would be done under, for services whose policies have conditions on it.
        """


@runtime_checkable
class TellsTime(Protocol):
    """The service's clock can be read."""

    async def service_time(self) -> datetime:
        """Return the service's time, aware UTC."""


@runtime_checkable
class TellsExtractability(Protocol):
    """Whether a key can leave the service is known."""

    async def is_extractable(self, key_id: str) -> bool:
        """Return whether the key's bytes can be had by somebody with the right permissions, or already are outside."""
