"""Keys of another Transit engine, made here alike; their material comes along where the engine gives it out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keystead.crypto.private_keys import SEED_SIZE, pkcs8
from keystead.errors import InvalidInputError
from keystead.lifecycle.creation import NewKey
from keystead.manager.manager import KeyManager
from keystead.manager.transit import TransitEngine, transit
from keystead.model import TransitType
from keystead.providers.vault.remote import RemoteTransit
from keystead.runtime.off_loop import in_thread
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.importing import material_of
from keystead.transit.kinds import type_of
from keystead.transit.opened import OpenKey


class Outcome(StrEnum):
    """What became of a key."""

    MADE = "made"
    BROUGHT = "brought"
    THERE = "there already"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Copied:
    """A key of the other engine.

    Attributes:
        reason: why it was refused; empty otherwise.
        versions: how many versions of its material are here.
        is_exportable: whether the other engine gives its material out.
    """

    name: str
    type: str
    outcome: Outcome
    reason: str = ""
    versions: int = 0
    is_exportable: bool = False


async def copy_keys(
    km: KeyManager,
    remote: RemoteTransit,
    names: Collection[str] = (),
    *,
    tenant: str = "",
    with_material: bool = False,
    dry_run: bool = False,
) -> list[Copied]:
    """Make keys like those of another engine: of the same name, type, derivation and period of rotation.

    Run it again as often as wanted: what is there stays, and material that is missing yet is added.

    Args:
        names: which; all of them if none is named.
        with_material: bring the versions of exportable keys, so that what they encrypted decrypts here.
        dry_run: tell what would be done, and change nothing.

    Raises:
        KMSError: the other engine cannot be read, or the store not be written. One key that cannot be made is told.
    """
    engine, found = await transit(km), []
    for name in sorted(set(names)) or await in_thread(remote.names):
        told = await in_thread(remote.describe, name)
        copier = _Copier(engine, remote, tenant, name, told, with_material=with_material)
        try:
            found.append(await copier.run(dry_run=dry_run))
        except InvalidInputError as exc:
            found.append(copier.told(Outcome.REFUSED, str(exc)))
    return found


class _Copier:
    """One key."""

    def __init__(
        self,
        engine: TransitEngine,
        remote: RemoteTransit,
        tenant: str,
        name: str,
        told: Mapping[str, Any],
        *,
        with_material: bool,
    ) -> None:
        self._engine = engine
        self._remote = remote
        self._tenant = tenant
        self._name = name
        self._told = told
        self._with_material = with_material

    async def run(self, *, dry_run: bool) -> Copied:
        """Make it, unless it is there.

        Raises:
            InvalidInputError: there can be none like it.
        """
        wanted = self._wanted()
        known = await self._engine.keys.find(self._tenant, self._name)
        if known is not None:
            self._require_alike(known, wanted)
        material = await self._material(wanted) if self._with_material else {}
        if known is not None and (not material or known.latest >= len(material)):
            return self.told(Outcome.THERE, versions=known.latest if known.record.imported else 0)
        outcome = Outcome.BROUGHT if material else Outcome.MADE
        if not dry_run:
            await (self._bring(wanted, material, known) if material else self._make(wanted))
        return self.told(outcome, versions=len(material))

    def told(self, outcome: Outcome, reason: str = "", *, versions: int = 0) -> Copied:
        """Return what is told of it."""
        is_exportable = self._told.get("exportable") is True
        return Copied(self._name, str(self._told.get("type")), outcome, reason, versions, is_exportable)

    def _wanted(self) -> NewTransitKey:
        told, period = self._told, self._told.get("auto_rotate_period")
        kind = type_of(str(told.get("type")))
        size = told.get("key_size")
        return NewTransitKey(
            kind,
            derived=told.get("derived") is True,
            convergent=told.get("convergent_encryption") is True,
            auto_rotate_s=int(period) if isinstance(period, int | float) else 0,
            key_size=int(size) if kind is TransitType.HMAC and isinstance(size, int) else 0,
        )

    def _require_alike(self, known: OpenKey, wanted: NewTransitKey) -> None:
        names = ("type", "derived", "convergent", "key_size")
        differ = [name for name in names if getattr(known.record, name) != getattr(wanted, name)]
        if differ:
            raise InvalidInputError(f"there is a key of that name here with another {', '.join(differ)}")
        if self._with_material and not known.record.imported:
            raise InvalidInputError("there is a key of that name here that was made here, and takes no material")

    async def _make(self, wanted: NewTransitKey) -> None:
        await self._engine.administration.create(self._tenant, self._name, wanted)

    async def _bring(self, wanted: NewTransitKey, material: Mapping[int, NewKey], known: OpenKey | None) -> None:
        administration, have = self._engine.administration, 0 if known is None else known.latest
        for version, key in material.items():
            if version == 1 and known is None:
                size = len(key.key) if wanted.type is TransitType.HMAC else 0
                made = NewTransitKey(
                    wanted.type,
                    auto_rotate_s=wanted.auto_rotate_s,
                    key_size=size,
                    imported=True,
                    allow_rotation=True,
                )
                await administration.create(self._tenant, self._name, made, material=key)
            elif version > have:
                await administration.add_version(self._tenant, self._name, key)
        changes = KeyChanges(self._version("min_decryption_version"), self._version("min_encryption_version"))
        await administration.configure(self._tenant, self._name, changes)

    def _version(self, name: str) -> int | None:
        found = self._told.get(name)
        return found if isinstance(found, int) else None

    async def _material(self, wanted: NewTransitKey) -> dict[int, NewKey]:
        if self._told.get("exportable") is not True:
            raise InvalidInputError("the other engine does not give its material out: the key is not exportable")
        if wanted.derived:
            raise InvalidInputError("a derived key derives otherwise here, and its material would decrypt nothing")
        kind = _kind_of_export(wanted.type)
        texts = await in_thread(self._remote.export, kind, self._name)
        if [*texts] != [*range(1, len(texts) + 1)]:
            raise InvalidInputError(
                "its first versions are not given out, and versions are counted from 1 here: set its "
                "min_decryption_version to 1 there while it is brought"
            )
        return {version: await in_thread(self._new_key, wanted.type, text) for version, text in texts.items()}

    def _new_key(self, kind: TransitType, text: str) -> NewKey:
        return material_of(kind, _raw(kind, text), self._engine.keys.random)


def _kind_of_export(kind: TransitType) -> str:
    if kind is TransitType.HMAC:
        return "hmac-key"
    return "encryption-key" if kind.encrypts else "signing-key"


def _raw(kind: TransitType, text: str) -> bytes:
    """Return exported material as it is brought in: bytes of a symmetric key, PKCS #8 in DER of a pair.

    Raises:
        InvalidInputError: it is no such material.
    """
    try:
        if kind.is_rsa or kind.is_ecdsa:
            private: Any = load_pem_private_key(text.encode("ascii"), None)
        elif kind is TransitType.ED25519:
            private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True)[:SEED_SIZE])
        else:
            return base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise InvalidInputError("the other engine gave material in a form that is not known") from None
    return pkcs8(private)
