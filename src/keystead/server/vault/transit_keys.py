"""``/v1/transit/keys``: making, reading, changing and ending keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.lifecycle.key_pages import all_keys
from keystead.model import KeyRecord, TransitType
from keystead.ports import TransitKeyRecord
from keystead.server.vault.answers import NOTHING, VaultAnswer, VaultRefusalError
from keystead.server.vault.fields import Fields
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.transit.administration import KeyChanges, NewTransitKey, require_period
from keystead.transit.kinds import require_derived, require_size, type_of
from keystead.transit.opened import OpenKey
from keystead.transit.public_keys import public_text

_CREATED: Final = frozenset(
    {
        "type",
        "derived",
        "convergent_encryption",
        "exportable",
        "allow_plaintext_backup",
        "context",
        "auto_rotate_period",
        "key_size",
    }
)
_CONFIGURED: Final = frozenset(
    {
        "min_decryption_version",
        "min_encryption_version",
        "deletion_allowed",
        "exportable",
        "allow_plaintext_backup",
        "auto_rotate_period",
    }
)
_CURVES: Final = {
    TransitType.ECDSA_P256: "P-256",
    TransitType.ECDSA_P384: "P-384",
    TransitType.ECDSA_P521: "P-521",
}
FIRST_IS_ONE: Final = (
    "since Vault 0.3 (prior to the OpenBao fork), transit key numbering starts at 1; forcing minimum to 1"
)


async def create(request: VaultRequest) -> VaultAnswer:
    """Make a key, unless there is one of that name."""
    fields = Fields(request.body)
    period, convergent, derived = (
        fields.seconds("auto_rotate_period"),
        fields.flag("convergent_encryption"),
        fields.flag("derived"),
    )
    exportable, backup, size = (
        fields.flag("exportable"),
        fields.flag("allow_plaintext_backup"),
        fields.number("key_size"),
    )
    require_period(period)
    require_derived(derived=derived, convergent=convergent)
    kind = type_of(fields.text("type", TransitType.AES_256.value))
    require_size(kind, size)
    wanted = NewTransitKey(
        type=kind,
        derived=derived,
        convergent=convergent,
        exportable=exportable,
        allow_plaintext_backup=backup,
        auto_rotate_s=period,
        key_size=size,
    )
    key = await request.service.transit.administration.create(request.tenant, request.name, wanted)
    return VaultAnswer(await told(request, key))


async def create_nameless(request: VaultRequest) -> VaultAnswer:
    """Refuse to make a key without a name."""
    raise InvalidInputError("cannot write to a path ending in '/'")


async def read(request: VaultRequest) -> VaultAnswer:
    """Tell a key: never what is secret of it."""
    key = await request.service.transit.keys.find(request.tenant, request.name)
    if key is None:
        raise VaultRefusalError(404)
    context = _context_of(request)
    return VaultAnswer(await told(request, key, context))


async def list_keys(request: VaultRequest) -> VaultAnswer:
    """List the names of a tenant's keys."""
    fields = Fields(request.query)
    most, after, names = fields.number("limit"), fields.text("after"), list[str]()
    async with request.service.reading() as work:
        while page := await work.transit_keys(request.tenant, after=names[-1] if names else after):
            names += [record.name for record in page]
            if 0 < most <= len(names):
                break
    if not names:
        raise VaultRefusalError(404)
    return VaultAnswer({"keys": names[:most] if most > 0 else names})


async def configure(request: VaultRequest) -> VaultAnswer:
    """Change what a key allows."""
    fields = Fields(request.body)
    changes = KeyChanges(
        min_decryption=fields.number("min_decryption_version") if fields.names("min_decryption_version") else None,
        min_encryption=fields.number("min_encryption_version") if fields.names("min_encryption_version") else None,
        deletion_allowed=fields.flag("deletion_allowed") if fields.names("deletion_allowed") else None,
        exportable=fields.flag("exportable"),
        allow_plaintext_backup=fields.flag("allow_plaintext_backup"),
        auto_rotate_s=fields.seconds("auto_rotate_period") if fields.names("auto_rotate_period") else None,
    )
    key = await request.service.transit.administration.configure(request.tenant, request.name, changes)
    return VaultAnswer(await told(request, key), warnings=[FIRST_IS_ONE] if changes.min_decryption == 0 else [])


async def rotate(request: VaultRequest) -> VaultAnswer:
    """Add a version."""
    return VaultAnswer(
        await told(request, await request.service.transit.administration.rotate(request.tenant, request.name))
    )


async def trim(request: VaultRequest) -> VaultAnswer:
    """Destroy old versions."""
    fields = Fields(request.body)
    oldest = fields.number("min_available_version")
    administration = request.service.transit.administration
    if not fields.names("min_available_version"):
        await request.service.transit.keys.open(request.tenant, request.name, missing="invalid key name")
        raise InvalidInputError("missing min_available_version")
    return VaultAnswer(await told(request, await administration.trim(request.tenant, request.name, oldest)))


async def soft_delete(request: VaultRequest) -> VaultAnswer:
    """Take a key out of use."""
    return await _soft_deleted(request, deleted=True, warning="key was already marked as soft deleted")


async def soft_restore(request: VaultRequest) -> VaultAnswer:
    """Take a soft-deleted key into use again."""
    return await _soft_deleted(request, deleted=False, warning="key was already restored")


async def delete(request: VaultRequest) -> VaultAnswer:
    """Destroy a key for good."""
    await request.service.transit.administration.delete(request.tenant, request.name)
    return NOTHING


async def read_settings(request: VaultRequest) -> VaultAnswer:
    """Tell whether encrypting makes keys."""
    async with request.service.reading() as work:
        return VaultAnswer({"disable_upsert": await work.is_upsert_disabled(request.tenant)})


async def change_settings(request: VaultRequest) -> VaultAnswer:
    """Set whether encrypting makes keys."""
    disabled = Fields(request.body).flag("disable_upsert")
    await request.service.transit.administration.disable_upsert(request.tenant, disabled)
    return VaultAnswer({"disable_upsert": disabled})


async def told(request: VaultRequest, key: OpenKey, context: bytes = b"") -> dict[str, Any]:
    """Return what is told of a key."""
    async with request.service.reading() as work:
        rows = await all_keys(work, keyring=key.record.keyring)
    return described(key, {row.version: row for row in rows}, context)


def described(key: OpenKey, rows: Mapping[int, KeyRecord], context: bytes = b"") -> dict[str, Any]:
    """Return a key as Vault tells one, with the rows of its versions."""
    record, kind = key.record, key.record.type
    data: dict[str, Any] = {
        "name": record.name,
        "type": kind.value,
        "derived": record.derived,
        "exportable": record.exportable,
        "allow_plaintext_backup": record.allow_plaintext_backup,
        "deletion_allowed": record.deletion_allowed,
        "min_available_version": record.min_available,
        "min_decryption_version": record.min_decryption,
        "min_encryption_version": record.min_encryption,
        "latest_version": key.latest,
        "supports_encryption": kind.encrypts,
        "supports_decryption": kind.encrypts,
        "supports_signing": kind.signs,
        "supports_derivation": kind.derives,
        "auto_rotate_period": record.auto_rotate_s,
        "imported_key": record.imported,
        "soft_deleted": record.soft_deleted,
    }
    if record.imported:
        data["imported_key_allow_rotation"] = record.allow_rotation
    if record.derived:
        data |= _derivation(record)
    if kind is TransitType.HMAC:
        return data | {"key_size": record.key_size}
    shown = {number: rows[number] for number in sorted(key.versions) if number >= record.min_decryption}
    data["keys"] = {str(number): _version(key, row, context) for number, row in shown.items()}
    return data


def _derivation(record: TransitKeyRecord) -> dict[str, Any]:
    told: dict[str, Any] = {"kdf": "hkdf_sha256", "convergent_encryption": record.convergent}
    if record.imported:
        told |= {"kdf": "hmac-sha256-counter", "kdf_mode": "hmac-sha256-counter"}
    if record.convergent:
        told["convergent_encryption_version"] = -1
    return told


def _version(key: OpenKey, row: KeyRecord, context: bytes) -> Any:
    kind = key.record.type
    if kind.is_symmetric:
        return int(row.created_at.timestamp())
    return {
        "name": _CURVES.get(kind, kind.value),
        "public_key": public_text(key, key.versions[row.version], context),
        "creation_time": row.created,
        "certificate_chain": "",
    }


def _context_of(request: VaultRequest) -> bytes:
    try:
        return Fields(request.query).base64("context")
    except InvalidInputError:
        raise InvalidInputError("failed to base64-decode context") from None


async def _soft_deleted(request: VaultRequest, *, deleted: bool, warning: str) -> VaultAnswer:
    if await request.service.transit.keys.find(request.tenant, request.name) is None:
        return NOTHING
    administration = request.service.transit.administration
    changed = await administration.soft_delete(request.tenant, request.name, deleted=deleted)
    key = await request.service.transit.keys.open(request.tenant, request.name)
    return VaultAnswer(await told(request, key), warnings=[] if changed else [warning])


PATHS: Final = (
    VaultPath("/transit/keys", list=Way(list_keys, Op.LIST)),
    VaultPath("/transit/keys/", list=Way(list_keys, Op.LIST), write=Way(create_nameless)),
    VaultPath(
        "/transit/keys/{name:transit}",
        read=Way(read, Op.READ),
        write=Way(create, Op.CREATE, _CREATED),
        delete=Way(delete, Op.DELETE),
    ),
    VaultPath("/transit/keys/{name:transit}/config", write=Way(configure, Op.CONFIG, _CONFIGURED)),
    VaultPath("/transit/keys/{name:transit}/rotate", write=Way(rotate, Op.ROTATE, frozenset())),
    VaultPath("/transit/keys/{name:transit}/trim", write=Way(trim, Op.TRIM, frozenset({"min_available_version"}))),
    VaultPath("/transit/keys/{name:transit}/soft-delete", delete=Way(soft_delete, Op.DELETE)),
    VaultPath("/transit/keys/{name:transit}/soft-delete-restore", write=Way(soft_restore, Op.DELETE)),
    VaultPath("/transit/config/keys", read=Way(read_settings, Op.LIST), write=Way(change_settings, Op.CONFIG)),
)
