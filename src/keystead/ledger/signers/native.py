"""Keys of a KMS that sign, or make MACs, and never leave it. Spec: docs/spec/signatures-v1.md, sections 3 and 5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias, cast

from keystead.crypto.merkle import inclusion_proof, leaf_hash, root_of
from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    PartialBatchError,
)
from keystead.ledger.signers.format import (
    INVALID,
    TreeItem,
    levels_of,
    parse_vault_text,
    statement,
    tree_statement,
    vault_text,
)
from keystead.ledger.signers.keys import Described, NamedKey, ServedKeys
from keystead.ledger.signers.settings import KeyAudit, NamedSignature, SignerSettings
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm
from keystead.ports import (
    ComputesMacBatches,
    ComputesMacs,
    KmsProvider,
    ListsKeyVersions,
    SignsBatches,
    SignsMessages,
)

MAX_OLDER: Final = 32
"""Versions before the newest that are tried for a signature whose id does not name one."""
_REMEMBERED: Final = 256

Version: TypeAlias = tuple[str, str | None]
"""What the KMS is asked by: key id and version."""


class SignatureForm(Protocol):
    """How the signature of a KMS is written down."""

    def render(self, signature: Signature) -> bytes:
        """Return its bytes."""

    def parse(self, signature: bytes) -> tuple[bytes, str | None]:
        """Return the value and, where the form tells it, the version; ``InvalidSignatureError`` for another form."""


class RawForm:
    """The service's bytes as they are."""

    def render(self, signature: Signature) -> bytes:
        """Return the value."""
        return signature.value

    def parse(self, signature: bytes) -> tuple[bytes, str | None]:
        """Return the value; the version is told by the key id."""
        return signature, None


class VaultForm:
    """A Vault server's ``vault:vN:...``."""

    def render(self, signature: Signature) -> bytes:
        """Return the text in ASCII."""
        return vault_text(signature.value, signature.key_reference.key_version or "")

    def parse(self, signature: bytes) -> tuple[bytes, str | None]:
        """Return value and version."""
        return parse_vault_text(signature)


@dataclass(frozen=True, slots=True)
class NativeKind:
    """Whether a key signs or makes MACs, and with what; None is the key's own choice."""

    is_mac: bool
    algorithm: SignatureAlgorithm | None = None


class NativeSigner:
    """Has a KMS sign. Signatures are checked here, by public keys that are fetched once; MACs are by the KMS."""

    def __init__(
        self,
        provider: KmsProvider,
        served: ServedKeys,
        settings: SignerSettings,
        audit: KeyAudit,
        form: SignatureForm,
    ) -> None:
        self._provider = provider
        self._served = served
        self._settings = settings
        self._audit = audit
        self._form = form
        self._public_keys: dict[Version, PublicKey] = {}
        self._seen: dict[str, list[Version]] = {}

    def last(self, key_id: str) -> str | None:
        """Return the id of the version that signed last for a configured key."""
        seen = self._seen.get(key_id)
        return self._served.form.join(*seen[-1]) if seen else None

    async def sign(self, message: bytes, key_id: str, kind: NativeKind) -> NamedSignature:
        """Return the KMS's signature of ``message``.

        Raises:
            KMSError: what the KMS refuses.
        """
        return await self._sign(statement(message), key_id, kind, 1)

    async def sign_batch(self, messages: list[bytes], key_id: str, kind: NativeKind) -> list[NamedSignature]:
        """Return the signature of each message: by one call where the KMS takes batches, else as the settings say.

        Raises:
            PartialBatchError: with a call for each, some failed; otherwise as ``sign``.
        """
        if len(messages) < 2:
            return [await self.sign(message, key_id, kind) for message in messages]
        batch = self._batch_call(kind)
        if batch is not None:
            return await self._sign_together(messages, key_id, kind, batch)
        if self._settings.batch == "each":
            return await self._sign_each(messages, key_id, kind)
        return await self._sign_tree(messages, key_id, kind)

    async def verify(self, message: bytes, signature: bytes, named: NamedKey, kind: NativeKind) -> None:
        """Return if ``signature``, or an item of a batch, is of ``message`` under the key that was named.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError: the version is not there; or versions are left that were not tried.
            KMSError: it could not be checked.
        """
        item = TreeItem.find(signature)
        if item is None or not await self._is_item(item, message, named, kind):
            # What reads like an item may be a signature all the same: a KMS may begin it as it likes.
            await self._verify(statement(message), signature, named, kind)

    async def public_key(self, version: Version) -> PublicKey:
        """Return the public key of a version; it is fetched once.

        Raises:
            ConfigurationError: the provider gives none.
            KeyNotFoundError: there is no such version.
        """
        found = self._public_keys.get(version)
        if found is None:
            if not isinstance(self._provider, SignsMessages):
                raise ConfigurationError("the provider does not sign, and has no public keys")
            found = await self._provider.public_key(version[0], version=version[1])
            if len(self._public_keys) >= _REMEMBERED:
                self._public_keys.clear()
            reference = found.key_reference
            self._public_keys[reference.key_id, reference.key_version] = found
            if version[1] is not None:
                self._public_keys[version] = found
        return found

    async def _sign(self, content: bytes, key_id: str, kind: NativeKind, count: int) -> NamedSignature:
        provider = self._provider

        async def call(asked: str) -> list[Signature]:
            if kind.is_mac:
                return [await cast(ComputesMacs, provider).mac(content, asked, algorithm=kind.algorithm)]
            return [await cast(SignsMessages, provider).sign(content, asked, algorithm=kind.algorithm)]

        return (await self._by_pinned(key_id, call, None if count == 1 else count))[0]

    async def _by_pinned(
        self, key_id: str, call: Callable[[str], Awaitable[list[Signature]]], count: int | None
    ) -> list[NamedSignature]:
        """Have the version sign that ``current_key_id`` tells; if it may no more, the one that took its place."""
        described = await self._served.describe(key_id)
        try:
            return await self._by(described, key_id, call, count)
        except (KeyNotFoundError, KeyStateError):
            now = await self._served.describe(key_id, fresh=True)
            if now.identity == described.identity:
                raise
        return await self._by(now, key_id, call, count)

    async def _by(
        self, described: Described, key_id: str, call: Callable[[str], Awaitable[list[Signature]]], count: int | None
    ) -> list[NamedSignature]:
        asked = self._served.pin(key_id, described)
        made = await self._audit.told("key.sign", key_id, lambda: call(asked), _version_of, count=count)
        named = []
        for signature in made:
            reference = signature.key_reference
            # The key is called as it was described: not every answer names it in the same way.
            answered, version = described.identity or (reference.key_id, reference.key_version)
            by = answered, reference.key_version or version
            self._note(key_id, by)
            named.append(NamedSignature(self._form.render(signature), self._served.form.join(*by)))
        return named

    def _batch_call(self, kind: NativeKind) -> Callable[[Sequence[bytes], str], Awaitable[list[Signature]]] | None:
        provider, algorithm = self._provider, kind.algorithm
        if kind.is_mac and isinstance(provider, ComputesMacBatches):
            macs = provider.mac_batch
            return lambda contents, key_id: macs(contents, key_id, algorithm=algorithm)
        if not kind.is_mac and isinstance(provider, SignsBatches):
            signs = provider.sign_batch
            return lambda contents, key_id: signs(contents, key_id, algorithm=algorithm)
        return None

    async def _sign_together(
        self,
        messages: list[bytes],
        key_id: str,
        kind: NativeKind,
        batch: Callable[[Sequence[bytes], str], Awaitable[list[Signature]]],
    ) -> list[NamedSignature]:
        contents = [statement(message) for message in messages]
        return await self._by_pinned(key_id, lambda asked: batch(contents, asked), len(contents))

    async def _sign_tree(self, messages: list[bytes], key_id: str, kind: NativeKind) -> list[NamedSignature]:
        levels = levels_of([leaf_hash(bytes(message)) for message in messages])
        size = len(messages)
        signed = await self._sign(tree_statement(size, root_of(levels[0])), key_id, kind, size)
        proofs = (tuple(inclusion_proof(index, size, lambda level, at: levels[level][at])) for index in range(size))
        return [
            replace(signed, signature=TreeItem(index, size, proof, signed.signature).to_bytes())
            for index, proof in enumerate(proofs)
        ]

    async def _sign_each(self, messages: list[bytes], key_id: str, kind: NativeKind) -> list[NamedSignature]:
        turns = asyncio.Semaphore(self._settings.concurrency)

        async def one(message: bytes) -> NamedSignature | KMSError:
            async with turns:
                try:
                    return await self.sign(message, key_id, kind)
                except KMSError as exc:
                    return exc

        results = await asyncio.gather(*(one(message) for message in messages))
        failures = [result for result in results if isinstance(result, KMSError)]
        if not failures:
            return [result for result in results if isinstance(result, NamedSignature)]
        if len(failures) == len(results):
            raise failures[0]
        raise PartialBatchError(f"{len(failures)} of {len(results)} messages were not signed", results)

    async def _is_item(self, item: TreeItem, message: bytes, named: NamedKey, kind: NativeKind) -> bool:
        try:
            await self._verify(item.statement(message), item.signature, named, kind)
        except InvalidSignatureError:
            return False
        return True

    async def _verify(self, content: bytes, signature: bytes, named: NamedKey, kind: NativeKind) -> None:
        value, told = self._form.parse(signature)
        unknown: KMSError | None = None
        async for version in self._candidates(named, told):
            try:
                await self._verify_by(content, value, version, kind)
            except InvalidSignatureError:
                continue
            except (KeyNotFoundError, KeyStateError) as exc:
                unknown = exc  # it may be of this one, which nobody can say any more
            else:
                return
        raise unknown or InvalidSignatureError(INVALID)

    async def _verify_by(self, content: bytes, value: bytes, version: Version, kind: NativeKind) -> None:
        if kind.is_mac:
            reference = KeyReference("", version[0], purpose=KeyPurpose.MAC, key_version=version[1])
            mac = Signature(value, reference, kind.algorithm or SignatureAlgorithm.HMAC_SHA_256)
            await cast(ComputesMacs, self._provider).verify_mac(content, mac)
            return
        key = await self.public_key(version)
        if not key.algorithms:
            raise KeyStateError(f"the key {version[0]!r} signs by no algorithm that is known here")
        algorithm = kind.algorithm if kind.algorithm in key.algorithms else key.algorithms[0]
        verify_signature(key, content, value, algorithm=algorithm)

    async def _candidates(self, named: NamedKey, told: str | None) -> AsyncIterator[Version]:
        """Yield the versions that may have signed; ``told`` is the version that the signature itself tells.

        Raises:
            InvalidSignatureError: the signature tells another version than the one that was named.
            KeyNotFoundError: there are more versions than are tried.
        """
        if named.version is not None:
            key_id, meant = named.version
            if None not in (told, meant) and told != meant:
                raise InvalidSignatureError("the signature was made by another version than the one that was named")
            yield key_id, told or meant
        elif told is not None:
            yield named.key_id, told
        else:
            tried: set[Version] = set()
            async for version in self._versions(named.key_id):
                if version not in tried:
                    tried.add(version)
                    yield version

    async def _versions(self, key_id: str) -> AsyncIterator[Version]:
        """Yield the versions of a key: what is known here first, so that the KMS is asked last."""
        for version in reversed(self._seen.get(key_id, [])):
            yield version
        yield (await self._served.describe(key_id)).identity or (key_id, None)
        # Another process may have signed by a version that is newer than what is known here.
        current = (await self._served.describe(key_id, fresh=True)).identity
        if current is None:
            return
        yield current
        versions = await self._older(current)
        for version in versions[:MAX_OLDER]:
            yield version
        if len(versions) > MAX_OLDER:
            raise KeyNotFoundError(
                f"none of the newest {MAX_OLDER + 1} versions has signed this; name the version, as current_key_id does"
            )

    async def _older(self, current: Version) -> list[Version]:
        """Return the versions before the newest, at most one more than are tried."""
        key_id, newest = current
        if newest is None:
            return []
        if newest.isascii() and newest.isdecimal():
            number = int(newest)
            return [(key_id, str(each)) for each in range(number - 1, max(0, number - 2 - MAX_OLDER), -1)]
        if not isinstance(self._provider, ListsKeyVersions):
            raise KeyNotFoundError("the versions of this key cannot be told: name the one, as current_key_id does")
        listed = await self._provider.key_versions(key_id)
        others: list[Version] = [(key_id, each) for each in listed if each != newest]
        return others[: MAX_OLDER + 1]

    def _note(self, key_id: str, version: Version) -> None:
        self._served.note(key_id, version[0])
        seen = self._seen.setdefault(key_id, [])
        if not seen or seen[-1] != version:
            seen[:] = [*(each for each in seen if each != version), version][-_REMEMBERED:]


def _version_of(signatures: list[Signature]) -> str | None:
    return signatures[0].key_reference.key_version if signatures else None
