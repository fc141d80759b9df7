"""Checkpoints signed by a key that never leaves its KMS: who takes the host cannot sign what was not, or sign it again.

    signer = KmsCheckpointSigner.open("awskms:///alias/audit", name="example.org/app/audit")
    log = SealedFile("app.log", stream="example.org/app/audit", kms="awskms:///alias/logs", signer=signer)

Each version of the key is a key of its own to readers. Ed25519 and ECDSA with SHA-256 can be checked by whatever reads
signed notes; others by Keystead; MACs only by who may ask the KMS.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar, cast

from keystead.config import is_production
from keystead.errors import ConfigurationError, KeyNotFoundError, KeyStateError, SigningError
from keystead.ledger.signers.format import statement
from keystead.ledger.tlog.note import NoteKey, NoteKeyType, NoteSignature, require_name
from keystead.ledger.tlog.note_kms import KmsNoteKey
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm
from keystead.ports import Closes, ComputesMacs, DescribesKeys, KmsProvider, ListsKeyVersions, SignsMessages
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime.loop import background_loop

T = TypeVar("T")

MOST_VERSIONS: Final = 64
_ED25519_SIZE: Final = 32


class KmsCheckpointSigner:
    """Signs checkpoints by a KMS key that signs, or makes MACs; the key's own type decides. Every method blocks.

    Args:
        provider: a KMS, with a guard around it.
        key_id: the key, as the provider names it.
        name: of the key in signed notes; the log's stream, or an address of its owner.
        algorithm: where the key signs by several; its default unless given.
        uri: what the provider was opened by, for the policy of readers.
        owns_provider: whether ``close`` closes the provider, too.
    """

    is_remote = True

    def __init__(
        self,
        provider: KmsProvider,
        key_id: str,
        name: str,
        *,
        algorithm: SignatureAlgorithm | None = None,
        uri: str | None = None,
        owns_provider: bool = False,
    ) -> None:
        require_name(name)
        if not key_id:
            raise ConfigurationError("a signer of checkpoints needs the id of a key")
        self._provider = provider
        self._key_id = key_id
        self._name = name
        self._algorithm = algorithm
        self._owns_provider = owns_provider
        self.uri = uri
        self._makes_macs: bool | None = None if algorithm is None else algorithm.is_mac
        self._known: dict[tuple[str, str | None], NoteKey] = {}

    def __repr__(self) -> str:
        return f"KmsCheckpointSigner({self._name!r}, {self._provider.provider_name}:{self._key_id})"

    @classmethod
    def open(
        cls, kms: str, name: str, *, key_id: str | None = None, algorithm: SignatureAlgorithm | None = None
    ) -> Self:
        """Return a signer over the KMS that a URI names; ``key_id`` where the URI names no key.

        Raises:
            ConfigurationError: as ``open_provider``, or there is no key.
        """
        opened = open_provider(kms, ProviderSettings(production=is_production()))
        guarded = GuardedProvider(opened.provider, opened.name)
        return cls(
            guarded, key_id or opened.default_key_id or "", name, algorithm=algorithm, uri=kms, owns_provider=True
        )

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """The keys that readers trust: a MAC's version, or every version's that has a public key, the newest first.

        Raises:
            ConfigurationError: the key neither signs nor makes MACs.
            KMSError: the KMS does not tell.
        """
        return self._wait(self._keys())

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text`` by the newest version.

        Raises:
            ConfigurationError: the key neither signs nor makes MACs.
            SigningError: what the KMS answered does not verify.
            KMSError: the KMS does not sign.
        """
        return self._wait(self._sign(text))

    def close(self) -> None:
        """Close the provider, if it is this object's own."""
        if self._owns_provider and isinstance(self._provider, Closes):
            self._wait(self._provider.aclose())

    async def _sign(self, text: str) -> NoteSignature:
        message = statement(text.encode())
        if await self._is_mac():
            signed = await cast(ComputesMacs, self._provider).mac(message, self._key_id, algorithm=self._algorithm)
            key = self._mac_key(signed)
            return NoteSignature(key.name, key.key_id, signed.value)
        signed = await cast(SignsMessages, self._provider).sign(message, self._key_id, algorithm=self._algorithm)
        key = await self._key_of(signed.key_reference, signed.algorithm)
        try:
            key.verify(text, signed.value)
        except Exception:
            verifies = False
        else:
            verifies = True
        if not verifies:
            raise SigningError(f"the signature that {self._provider.provider_name} answered with does not verify")
        return NoteSignature(key.name, key.key_id, signed.value)

    async def _keys(self) -> tuple[NoteKey, ...]:
        if await self._is_mac():
            # Which version makes MACs is told by a MAC alone, with every service.
            probe = statement(f"{self._name}\nwhich version makes MACs\n".encode())
            mac = await cast(ComputesMacs, self._provider).mac(probe, self._key_id, algorithm=self._algorithm)
            return (self._mac_key(mac),)
        newest = await self._public_key(None)
        found = [self._note_key(newest)]
        for version in await self._older(newest.key_reference):
            try:
                found.append(self._note_key(await self._public_key(version)))
            except (KeyNotFoundError, KeyStateError):
                continue  # destroyed; what it signed can be checked by a policy that was saved before
        return tuple(dict.fromkeys(found))

    async def _older(self, newest: KeyReference) -> list[str]:
        version = newest.key_version
        if version is None:
            return []
        if isinstance(self._provider, ListsKeyVersions):
            listed = await self._provider.key_versions(self._key_id)
            return [each for each in listed if each != version][:MOST_VERSIONS]
        if version.isascii() and version.isdecimal():
            return [str(each) for each in range(int(version) - 1, max(0, int(version) - 1 - MOST_VERSIONS), -1)]
        return []

    async def _key_of(self, reference: KeyReference, algorithm: SignatureAlgorithm) -> NoteKey:
        known = self._known.get((reference.key_id, reference.key_version))
        return known or self._note_key(await self._public_key(reference.key_version), algorithm)

    async def _public_key(self, version: str | None) -> PublicKey:
        return await cast(SignsMessages, self._provider).public_key(self._key_id, version=version)

    def _note_key(self, public_key: PublicKey, algorithm: SignatureAlgorithm | None = None) -> NoteKey:
        algorithm = algorithm or self._algorithm or public_key.algorithms[0]
        if algorithm is SignatureAlgorithm.ED25519:
            # SubjectPublicKeyInfo of Ed25519 ends in the key (RFC 8410).
            key = NoteKey.of(self._name, NoteKeyType.ED25519, public_key.der[-_ED25519_SIZE:])
        elif algorithm is SignatureAlgorithm.ECDSA_SHA_256:
            key = NoteKey.of(self._name, NoteKeyType.ECDSA, public_key.der)
        else:
            key = NoteKey.of(self._name, NoteKeyType.KMS, KmsNoteKey(algorithm, public_key.der).render())
        self._known[public_key.key_reference.key_id, public_key.key_reference.key_version] = key
        return key

    def _mac_key(self, mac: Signature) -> NoteKey:
        return NoteKey.of(self._name, NoteKeyType.KMS, KmsNoteKey(mac.algorithm, reference=mac.key_reference).render())

    async def _is_mac(self) -> bool:
        """Whether the key makes MACs; asked once."""
        if self._makes_macs is None:
            if not isinstance(self._provider, DescribesKeys):
                raise ConfigurationError(
                    f"{self._provider.provider_name} does not tell what its keys do: name algorithm="
                )
            description = await self._provider.describe(self._key_id)
            purpose = description.key_reference.purpose
            if purpose is KeyPurpose.ENCRYPT_DECRYPT:
                raise ConfigurationError(f"the key {self._key_id!r} encrypts; checkpoints take one that signs")
            self._makes_macs = purpose is KeyPurpose.MAC
        wanted = ComputesMacs if self._makes_macs else SignsMessages
        if not isinstance(self._provider, wanted):
            raise ConfigurationError(f"{self._provider.provider_name} has no keys that sign checkpoints so")
        return self._makes_macs

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return background_loop.run(work)
