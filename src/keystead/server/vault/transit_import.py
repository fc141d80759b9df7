"""``/v1/transit`` where key material comes in, and where it is asked for and does not leave."""

from __future__ import annotations

from typing import Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.server.vault.answers import NOTHING, VaultAnswer
from keystead.server.vault.fields import Fields
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.transit.administration import NewTransitKey
from keystead.transit.importing import require_hash
from keystead.transit.imports import Given
from keystead.transit.kinds import type_of

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
    period, name, given = fields.seconds("auto_rotate_period"), fields.text("type", "aes256-gcm96"), _given(fields)
    try:
        kind = type_of(name)
    except InvalidInputError:
        raise InvalidInputError(f"unknown key type: {name}") from None
    wanted = NewTransitKey(
        kind,
        derived=fields.flag("derived"),
        exportable=fields.flag("exportable"),
        allow_plaintext_backup=fields.flag("allow_plaintext_backup"),
        auto_rotate_s=period,
        allow_rotation=fields.flag("allow_rotation"),
    )
    await engine.imports.new_key(request.tenant, request.name, wanted, given)
    return NOTHING


async def bring_in_version(request: VaultRequest) -> VaultAnswer:
    """Add a version made of material from outside, or the private half that the latest version lacks."""
    fields, engine = Fields(request.body), request.service.transit
    missing = f"no key found with name {request.name}; to import a new key, use the import/ endpoint"
    key = await engine.keys.open(request.tenant, request.name, missing=missing)
    await engine.imports.new_version(key, _given(fields))
    return NOTHING


async def export(request: VaultRequest) -> VaultAnswer:
    """Refuse to give a key."""
    raise InvalidInputError(_EXPORTED.format("export"))


async def backup(request: VaultRequest) -> VaultAnswer:
    """Refuse to give or take a key in clear."""
    raise InvalidInputError(_EXPORTED.format("backup of a key in clear"))


def _given(fields: Fields) -> Given:
    algorithm = require_hash(fields.text("hash_function", "SHA256"))
    ciphertext = fields.text("ciphertext") if fields.names("ciphertext") else None
    return Given(ciphertext, fields.text("public_key"), algorithm)


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
