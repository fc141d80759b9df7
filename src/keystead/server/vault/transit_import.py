"""``/v1/transit`` where key material comes in, and where it is asked for and does not leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.lifecycle.creation import NewKey
from keystead.runtime.off_loop import in_thread
from keystead.server.vault.answers import NOTHING, VaultAnswer
from keystead.server.vault.fields import Fields
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.transit.administration import NewTransitKey
from keystead.transit.importing import material_of, public_material, require_hash, require_public_kind, unwrapped
from keystead.transit.kinds import type_of
from keystead.transit.opened import OpenKey

_EXPORTED: Final = (
    "keys do not leave this service, and there is no {}: what holds a key in clear holds all that it encrypted. Back "
    "the store up with `keystead store export`, whose keys are wrapped; bring material from outside in with import"
)
_IMPORTED: Final = frozenset(
    {
        "type",
        "hash_function",
        "ciphertext",
        "public_key",
        "allow_rotation",
        "derived",
        "exportable",
        "allow_plaintext_backup",
        "auto_rotate_period",
        "context",
        "convergent_encryption",
    }
)
_VERSION: Final = frozenset({"ciphertext", "hash_function", "public_key", "version"})


async def wrapping_key(request: VaultRequest) -> VaultAnswer:
    """Tell the public key that material is wrapped by."""
    return VaultAnswer({"public_key": await request.service.transit.imports.wrapping_key()})


async def bring_in(request: VaultRequest) -> VaultAnswer:
    """Make a key of material from outside."""
    fields, engine = Fields(request.body), request.service.transit
    if fields.names("convergent_encryption"):
        raise InvalidInputError("import cannot be used on keys with convergent encryption enabled")
    period, allow_rotation = fields.seconds("auto_rotate_period"), fields.flag("allow_rotation")
    if period and not allow_rotation:
        raise InvalidInputError("allow_rotation must be set to true if auto-rotation is enabled")
    name, algorithm = fields.text("type", "aes256-gcm96"), require_hash(fields.text("hash_function", "SHA256"))
    try:
        kind = type_of(name)
    except InvalidInputError:
        raise InvalidInputError(f"unknown key type: {name}") from None
    await engine.administration.require_no_key(request.tenant, request.name)
    if fields.names("ciphertext"):
        ring = await engine.imports.wrapping_ring()
        data = await in_thread(unwrapped, ring, fields.text("ciphertext"), algorithm)
        key_size = len(data) if kind.value == "hmac" else 0
        material = await in_thread(_told, material_of, kind, data, engine.keys.random)
    else:
        require_public_kind(kind)
        key_size = 0
        material = _told(public_material, kind, fields.text("public_key"), engine.keys.random)
    wanted = NewTransitKey(
        kind,
        derived=fields.flag("derived"),
        exportable=fields.flag("exportable"),
        allow_plaintext_backup=fields.flag("allow_plaintext_backup"),
        auto_rotate_s=period,
        key_size=key_size,
        imported=True,
        allow_rotation=allow_rotation,
    )
    await engine.administration.create(request.tenant, request.name, wanted, material=material)
    return NOTHING


async def bring_in_version(request: VaultRequest) -> VaultAnswer:
    """Add a version made of material from outside, or the private half that the latest version lacks."""
    fields, engine = Fields(request.body), request.service.transit
    missing = f"no key found with name {request.name}; to import a new key, use the import/ endpoint"
    key = await engine.keys.open(request.tenant, request.name, missing=missing)
    engine.administration.require_imported(key.record)
    algorithm, kind = require_hash(fields.text("hash_function", "SHA256")), key.record.type
    if not fields.names("ciphertext"):
        material = public_material(kind, fields.text("public_key"), engine.keys.random)
        await engine.administration.add_version(request.tenant, request.name, material)
        return NOTHING
    ring = await engine.imports.wrapping_ring()
    data = await in_thread(unwrapped, ring, fields.text("ciphertext"), algorithm)
    if _lacks_private(key):
        await engine.administration.complete(request.tenant, request.name, key.latest, data)
        return NOTHING
    material = await in_thread(material_of, kind, data, engine.keys.random)
    await engine.administration.add_version(request.tenant, request.name, material)
    return NOTHING


async def export(request: VaultRequest) -> VaultAnswer:
    """Refuse to give a key."""
    raise InvalidInputError(_EXPORTED.format("export"))


async def backup(request: VaultRequest) -> VaultAnswer:
    """Refuse to give or take a key in clear."""
    raise InvalidInputError(_EXPORTED.format("backup of a key in clear"))


def _told(make: Callable[..., NewKey], *given: object) -> NewKey:
    """Say that it was an import that failed."""
    try:
        return make(*given)
    except InvalidInputError as exc:
        raise InvalidInputError(f"error importing key: {exc}") from None


def _lacks_private(key: OpenKey) -> bool:
    return key.record.type.is_pair and key.pair(key.versions[key.latest]).private is None


_REFUSED: Final = Way(export, Op.READ)
_NOT_BACKED_UP: Final = Way(backup, Op.READ)

PATHS: Final = (
    VaultPath("/transit/wrapping_key", read=Way(wrapping_key, Op.IMPORT)),
    VaultPath("/transit/keys/{name:transit}/import", write=Way(bring_in, Op.IMPORT, _IMPORTED)),
    VaultPath("/transit/keys/{name:transit}/import_version", write=Way(bring_in_version, Op.IMPORT, _VERSION)),
    VaultPath("/transit/export/{kind}/{name:transit}", read=_REFUSED),
    VaultPath("/transit/export/{kind}/{name:transit}/{version}", read=_REFUSED),
    VaultPath("/transit/byok-export/{destination:transit}/{name:transit}", read=_REFUSED),
    VaultPath("/transit/byok-export/{destination:transit}/{name:transit}/{version}", read=_REFUSED),
    VaultPath("/transit/backup/{name:transit}", read=_NOT_BACKED_UP),
    VaultPath("/transit/restore", write=Way(backup, None)),
    VaultPath("/transit/restore/{name:transit}", write=Way(backup, Op.IMPORT)),
)
