"""Sets of fake KEKs, and what somebody who holds one of the KEKs can make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keystead.model import EncryptedData, KeyReference
from keystead.providers.multi.format import Container, Content, Wrap, seal, with_commitment
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS

CONTEXT = {"keystead.store": "s", "keystead.version": "1"}
KEY_ID = "default"


@dataclass
class Keks:
    """Fake KMSs by the names they have as members, each with the key ``kek``."""

    names: tuple[str, ...] = ("a", "b", "c")
    services: dict[str, FakeKMS] = field(init=False)

    def __post_init__(self) -> None:
        self.services = {name: FakeKMS(keys=["kek"]) for name in self.names}

    def __getitem__(self, name: str) -> FakeKMS:
        return self.services[name]

    def all_together(self, *names: str, **options: Any) -> MultiKMSProvider:
        """Return a set of these, of all if none is named."""
        members = {name: self.services[name].provider() for name in names or self.names}
        options.setdefault("key_ids", dict.fromkeys(members, "kek"))
        return MultiKMSProvider(members, **{"pause_s": 0.02, "patience_s": 5.0, **options})

    def forget_calls(self) -> None:
        for service in self.services.values():
            service.calls.clear()

    def calls(self, operation: str) -> dict[str, int]:
        """Return how often each was asked for ``operation``, those that were not left out."""
        counted = {name: service.calls[operation] for name, service in self.services.items()}
        return {name: count for name, count in counted.items() if count}


def container_of(encrypted: EncryptedData) -> Container:
    return Container.parse(encrypted.ciphertext)


def wraps_of(encrypted: EncryptedData) -> list[str]:
    return [wrap.name for wrap in container_of(encrypted).wraps]


def rewritten(encrypted: EncryptedData, container: Container) -> EncryptedData:
    """Return ``encrypted`` with another container, the columns beside it changed as well."""
    reference = replace(encrypted.key_reference, key_id=container.key_id, key_version=container.key_version)
    return replace(encrypted, ciphertext=container.to_bytes(), key_reference=reference)


async def content_key(service: FakeKMS, name: str, encrypted: EncryptedData, context: Mapping[str, str]) -> bytes:
    """Return the content key, as the holder of one KEK gets it."""
    container = container_of(encrypted)
    wrap = container.by_name()[name]
    reference = KeyReference("fake", wrap.key_id, key_version=wrap.key_version)
    sealed = EncryptedData(wrap.wrapped_key, reference, wrap.algorithm, encrypted.encrypted_at)
    return await service.decrypt(sealed, context=with_commitment(context, container.commitment))


async def wrapped_by(service: FakeKMS, name: str, key: bytes, context: Mapping[str, str], commitment: bytes) -> Wrap:
    """Return a wrap of any key, as the holder of one KEK makes it."""
    sealed = await service.encrypt(key, "kek", context=with_commitment(context, commitment))
    reference = sealed.key_reference
    return Wrap(name, reference.key_id, reference.key_version or "", sealed.algorithm, sealed.ciphertext)


def sealed_with(content: Content, wraps: Mapping[str, Wrap], context: Mapping[str, str]) -> Container:
    """Return a container as anybody who knows the content key can seal it."""
    return seal(content, KEY_ID, wraps.values(), context, nonce=bytes(12))


__all__ = [
    "CONTEXT",
    "KEY_ID",
    "Content",
    "Keks",
    "container_of",
    "content_key",
    "rewritten",
    "sealed_with",
    "wrapped_by",
    "wraps_of",
]
