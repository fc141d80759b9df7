"""Bringing key material in: the key pair that it is wrapped by on its way, and keys that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives import hashes

from keystead.crypto.keyring import Keyring
from keystead.errors import InvalidInputError
from keystead.lifecycle.creation import NewKey
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import TRANSIT_WRAPPING_KEYRING, KeyringPurpose, TransitType
from keystead.runtime.off_loop import in_thread
from keystead.transit.administration import Administration, NewTransitKey
from keystead.transit.importing import (
    WRAPPING_ALGORITHM,
    material_of,
    public_material,
    require_hash,
    require_public_kind,
    unwrapped,
    wrapping_key_text,
)
from keystead.transit.opened import OpenKey
from keystead.transit.room import Transit


@dataclass(frozen=True, slots=True)
class Given:
    """What is brought: the material, wrapped, or a public key alone.

    Attributes:
        ciphertext: the wrapped material in base64, see ``keystead.transit.importing``; None where there is none.
        public_key: in PEM.
        algorithm: the hash of OAEP.
    """

    ciphertext: str | None = field(default=None, repr=False)
    public_key: str = ""
    algorithm: hashes.HashAlgorithm = field(default_factory=lambda: require_hash("SHA256"))


class Imports:
    """See the module."""

    def __init__(self, keys: Transit, administration: Administration) -> None:
        self._keys = keys
        self._live: LiveKeyrings = keys.live
        self._administration = administration
        self._ring: Keyring | None = None

    async def wrapping_ring(self) -> Keyring:
        """Return the keyring of the pair; making it takes seconds, once for a store."""
        if self._ring is None:
            wanted = self._live.surroundings.new_keyring(
                TRANSIT_WRAPPING_KEYRING, KeyringPurpose.SIGN, WRAPPING_ALGORITHM
            )
            self._ring = await self._live.load(TRANSIT_WRAPPING_KEYRING, create=wanted)
        return self._ring

    async def wrapping_key(self) -> str:
        """Return the public half, in PEM."""
        return wrapping_key_text(await self.wrapping_ring())

    async def new_key(self, tenant: str, name: str, wanted: NewTransitKey, given: Given) -> OpenKey:
        """Make a key of what is brought; ``wanted`` says all but its size and that it was imported.

        Raises:
            InvalidInputError: there is a key of that name, or what is brought is no key of the type.
        """
        if wanted.auto_rotate_s and not wanted.allow_rotation:
            raise InvalidInputError("allow_rotation must be set to true if auto-rotation is enabled")
        await self._administration.require_no_key(tenant, name)
        key_size = 0
        if given.ciphertext is not None:
            data = await self._unwrapped(given)
            key_size = len(data) if wanted.type is TransitType.HMAC else 0
            material = await in_thread(_told, material_of, wanted.type, data, self._keys.random)
        else:
            require_public_kind(wanted.type)
            material = _told(public_material, wanted.type, given.public_key, self._keys.random)
        made = replace(wanted, key_size=key_size, imported=True)
        return await self._administration.create(tenant, name, made, material=material)

    async def new_version(self, key: OpenKey, given: Given) -> OpenKey:
        """Add a version made of what is brought, or the private half that the latest version lacks.

        Raises:
            InvalidInputError: a key that was made or rotated here, or what is brought is no key of its type.
        """
        record = key.record
        self._administration.require_imported(record)
        if given.ciphertext is None:
            material = public_material(record.type, given.public_key, self._keys.random)
            return await self._administration.add_version(record.tenant, record.name, material)
        data = await self._unwrapped(given)
        if record.type.is_pair and key.pair(key.versions[key.latest]).private is None:
            return await self._administration.complete(record.tenant, record.name, key.latest, data)
        material = await in_thread(material_of, record.type, data, self._keys.random)
        return await self._administration.add_version(record.tenant, record.name, material)

    async def _unwrapped(self, given: Given) -> bytes:
        return await in_thread(unwrapped, await self.wrapping_ring(), given.ciphertext or "", given.algorithm)


def _told(make: Callable[..., NewKey], *given: object) -> NewKey:
    """Say that it was an import that failed."""
    try:
        return make(*given)
    except InvalidInputError as exc:
        raise InvalidInputError(f"error importing key: {exc}") from None
