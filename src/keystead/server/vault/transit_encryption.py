"""``/v1/transit`` where data is encrypted, decrypted and rewrapped, and data keys are drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import DecryptionError, InvalidInputError
from keystead.model import TransitType
from keystead.server.vault.answers import DENIED, VaultAnswer, VaultRefusalError, many
from keystead.server.vault.batches import (
    QuietRefusalError,
    Results,
    answered,
    batch_of,
    each,
    loose_batch_of,
    require_members,
)
from keystead.server.vault.computing import looking_twice
from keystead.server.vault.fields import Fields, decoded
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.transit import base64_text, encrypting
from keystead.transit.administration import NewTransitKey
from keystead.transit.opened import OpenKey
from keystead.transit.room import NOT_FOUND

_AAD: Final = "unable to get associated_data/additional_data from factory[0]: "
_NO_AEAD: Final = "'{}' provided for non-AEAD cipher suite {}"
_SAME_CONTEXT: Final = "context should be set either in all the request blocks or in none"
_NO_PLAINTEXT: Final = "missing plaintext to encrypt"
_NO_CIPHERTEXT: Final = "missing ciphertext to decrypt"
_TEXTS: Final = ("ciphertext", "context", "associated_data", "reference")
"""Members of an item that are text, and may be null."""
_ENCRYPTED: Final = frozenset(
    {
        "plaintext",
        "context",
        "key_version",
        "associated_data",
        "batch_input",
        "type",
        "convergent_encryption",
        "partial_failure_response_code",
    }
)
_DECRYPTED: Final = frozenset(
    {"ciphertext", "context", "associated_data", "batch_input", "partial_failure_response_code"}
)
_REWRAPPED: Final = frozenset({"ciphertext", "context", "key_version", "associated_data", "batch_input"})
_DATA_KEY: Final = frozenset({"context", "bits", "associated_data", "key_version"})
_UPSERTED: Final = frozenset({TransitType.AES_128, TransitType.AES_256, TransitType.CHACHA20})


async def encrypt(request: VaultRequest) -> VaultAnswer:
    """Encrypt one plaintext or many; under a name that is no key's, make the key first."""
    key = await request.service.transit.keys.find(request.tenant, request.name)
    right = Op.CREATE if key is None else Op.ENCRYPT
    if not request.caller.may_transit(right, request.name):
        raise VaultRefusalError(403, many(DENIED))
    fields = Fields(request.body, "")
    items = batch_of(fields)
    if items is None:
        if not fields.names("plaintext"):
            raise InvalidInputError(_NO_PLAINTEXT)
        if fields.raw("plaintext") is None:
            raise InvalidInputError("plaintext is null: an empty one is the empty string")
        item = {
            "plaintext": fields.text("plaintext"),
            "context": fields.text("context"),
            "associated_data": fields.text("associated_data"),
            "key_version": fields.number("key_version"),
        }
        usable = key or await _made(request, fields, has_context=bool(item["context"]))
        size = len(str(item["plaintext"]))
        ciphertext, version = await looking_twice(request, usable, size, lambda opened: _encrypted(opened, item, 0))
        await request.used(usable, Op.ENCRYPT)
        return VaultAnswer({"ciphertext": ciphertext, "key_version": version})
    plain = _texts_of(items, "plaintext")
    if plain is None:
        _require_items(items, needed={"plaintext": _NO_PLAINTEXT})
    has_context = plain is None and _with_context(items)
    fields.number("partial_failure_response_code")
    opened = key or await _made(request, fields, has_context=has_context)
    size = sum(map(len, plain)) if plain is not None else sum(len(item["plaintext"]) for item in items)
    results = await looking_twice(request, opened, size, lambda found: _encrypted_all(found, items, plain))
    await request.used(opened, Op.ENCRYPT, len(items))
    return answered(results, fields)


async def decrypt(request: VaultRequest) -> VaultAnswer:
    """Decrypt one ciphertext or many."""
    fields = Fields(request.body)
    items = batch_of(fields)
    if items is None:
        text = fields.text("ciphertext")
        if not text:
            raise InvalidInputError(_NO_CIPHERTEXT)
        item = {
            "ciphertext": text,
            "context": fields.text("context"),
            "associated_data": fields.text("associated_data"),
        }
        key = await _found(request)
        plaintext = await looking_twice(request, key, len(text), lambda opened: _decrypted(opened, item, 0))
        await request.used(key, Op.DECRYPT)
        return VaultAnswer({"plaintext": plaintext})
    plain = _texts_of(items, "ciphertext")
    if plain is None:
        _require_items(items, needed={"ciphertext": _NO_CIPHERTEXT})
        _with_context(items)
    key = await _found(request)
    size = sum(len(item["ciphertext"] or "") for item in items)
    results = await looking_twice(request, key, size, lambda opened: _decrypted_all(opened, items, plain))
    await request.used(key, Op.DECRYPT, len(items))
    return answered(results, fields)


async def rewrap(request: VaultRequest) -> VaultAnswer:
    """Bring one ciphertext or many under another version."""
    fields = Fields(request.body)
    items = loose_batch_of(fields, _TEXTS, ("key_version",))
    if items is None:
        item = {
            "ciphertext": fields.text("ciphertext"),
            "context": fields.text("context"),
            "associated_data": fields.text("associated_data"),
            "key_version": fields.number("key_version"),
        }
        if not item["ciphertext"]:
            raise InvalidInputError(_NO_CIPHERTEXT)
        key = await _found(request)
        size = len(str(item["ciphertext"]))
        ciphertext, version = await looking_twice(request, key, size, lambda opened: _rewrapped(opened, item, 0))
        await request.used(key, Op.REWRAP)
        return VaultAnswer({"ciphertext": ciphertext, "key_version": version})
    _with_context(items)
    key = await _found(request)

    def all_of(opened: OpenKey) -> Results:
        opened.require_usable()
        return each(items, lambda place, item: _pair(_rewrapped(opened, item, place)))

    size = sum(len(item.get("ciphertext") or "") for item in items)
    results = await looking_twice(request, key, size, all_of)
    await request.used(key, Op.REWRAP, len(items))
    return VaultAnswer({"batch_results": results})


async def data_key(request: VaultRequest) -> VaultAnswer:
    """Draw a data key, and tell it encrypted; in clear too, where the path asks for that."""
    fields, kind = Fields(request.body), request.params["kind"]
    bits = fields.number("bits", 256)
    if kind not in ("plaintext", "wrapped"):
        raise InvalidInputError("Invalid path, must be 'plaintext' or 'wrapped'")
    version, authenticated, told = (
        fields.number("key_version"),
        fields.text("associated_data"),
        fields.text("context"),
    )
    try:
        context = _context_of(told)
    except InvalidInputError:
        raise InvalidInputError("failed to base64-decode context") from None
    key = await _found(request)
    key.require_usable()
    encrypting.require_bits(bits)
    if authenticated and not key.record.type.is_symmetric:
        raise InvalidInputError(_NO_AEAD.format("associated_data", key.record.type))
    encrypting.require_encrypts(key, context, version)
    aad = _decoded_aad(authenticated)
    drawn, ciphertext, version = encrypting.data_key(key, bits, context=context, aad=aad, version=version)
    await request.used(key, Op.DATAKEY)
    data = {"ciphertext": ciphertext, "key_version": version}
    return VaultAnswer(data | {"plaintext": base64_text.encode(drawn)} if kind == "plaintext" else data)


async def _found(request: VaultRequest) -> OpenKey:
    return await request.service.transit.keys.open(request.tenant, request.name)


async def _made(request: VaultRequest, fields: Fields, *, has_context: bool) -> OpenKey:
    """Return a new key, as what is to be encrypted needs it."""
    async with request.service.reading() as work:
        if await work.is_upsert_disabled(request.tenant):
            raise InvalidInputError(NOT_FOUND)
    kind, convergent = fields.text("type", TransitType.AES_256.value), fields.flag("convergent_encryption")
    if convergent and not has_context:
        raise InvalidInputError("convergent encryption requires derivation to be enabled, so context is required")
    if kind in (TransitType.ECDSA_P256, TransitType.ECDSA_P384, TransitType.ECDSA_P521):
        raise InvalidInputError(f"key type {kind} not supported for this operation")
    if kind not in _UPSERTED:
        raise InvalidInputError(f"unknown key type {kind}")
    wanted = NewTransitKey(TransitType(kind), derived=has_context, convergent=convergent)
    return await request.service.transit.administration.create(request.tenant, request.name, wanted)


def _require_items(items: list[Mapping[str, Any]], *, needed: Mapping[str, str]) -> None:
    require_members(items, (*_TEXTS, "plaintext"), ("key_version",), needed=needed, nullable=_TEXTS)


def _with_context(items: list[Mapping[str, Any]]) -> bool:
    """Return whether items have a context: all of them, or none."""
    having = sum(bool(item.get("context")) for item in items)
    if having not in (0, len(items)):
        raise InvalidInputError(_SAME_CONTEXT)
    return bool(having)


def _context_of(text: str | None) -> bytes | None:
    return decoded(text) if text else None


def _require_aead(key: OpenKey, item: Mapping[str, Any], place: int) -> None:
    if item.get("associated_data") and not key.record.type.is_symmetric:
        raise QuietRefusalError(_NO_AEAD.format(f"[{place}].associated_data", key.record.type))


def _decoded_aad(text: str | None) -> bytes:
    return decoded(text, _AAD) if text else b""


def _encrypted(key: OpenKey, item: Mapping[str, Any], place: int) -> tuple[str, int]:
    key.require_usable()
    plaintext, context = decoded(item["plaintext"]), _context_of(item.get("context"))
    version = item.get("key_version") or 0
    _require_aead(key, item, place)
    encrypting.require_encrypts(key, context, version)
    aad = _decoded_aad(item.get("associated_data"))
    return encrypting.encrypt(key, plaintext, context=context, aad=aad, version=version)


def _texts_of(items: list[Mapping[str, Any]], name: str) -> list[str] | None:
    """Return a member of items that have nothing else but a reference; None where one has more, or no text."""
    found = []
    for item in items:
        text, reference = item.get(name), item.get("reference", "")
        if text.__class__ is not str or reference.__class__ is not str or len(item) > 1 + ("reference" in item):
            return None
        found.append(text)
    return found


def _encrypted_all(key: OpenKey, items: list[Mapping[str, Any]], plain: list[str] | None) -> Results:
    if plain is not None and encrypting.takes_many(key) and not key.record.soft_deleted:
        with contextlib.suppress(InvalidInputError):  # told item by item
            messages = [(base64_text.decode(text), b"") for text in plain]
            ciphertexts, version = encrypting.encrypt_many(key, messages)
            return Results(
                [
                    {"ciphertext": text, "key_version": version, "reference": item.get("reference", "")}
                    for text, item in zip(ciphertexts, items, strict=True)
                ]
            )
    return each(items, lambda place, item: _pair(_encrypted(key, item, place)))


def _decrypted(key: OpenKey, item: Mapping[str, Any], place: int) -> str:
    if not item["ciphertext"]:
        raise InvalidInputError(_NO_CIPHERTEXT)
    key.require_usable()
    context, aad = _to_open(key, item, place)
    return base64_text.encode(encrypting.decrypt(key, item["ciphertext"], context=context, aad=aad))


def _decrypted_all(key: OpenKey, items: list[Mapping[str, Any]], plain: list[str] | None) -> Results:
    if plain is not None and encrypting.takes_many(key) and not key.record.soft_deleted:
        opened = encrypting.decrypt_many(key, plain)
        if opened is not None:
            return Results(
                [
                    {"plaintext": base64_text.encode(data), "reference": item.get("reference", "")}
                    for data, item in zip(opened, items, strict=True)
                ]
            )
    results = each(items, lambda place, item: {"plaintext": _decrypted(key, item, place)})
    for result in results:
        result.setdefault("plaintext", "")
    return results


def _rewrapped(key: OpenKey, item: Mapping[str, Any], place: int) -> tuple[str, int]:
    if not item.get("ciphertext"):
        raise InvalidInputError(_NO_CIPHERTEXT)
    key.require_usable()
    context, aad = _to_open(key, item, place)
    version = item.get("key_version") or 0
    try:
        return encrypting.rewrap(key, item["ciphertext"], context=context, aad=aad, version=version)
    except DecryptionError as exc:
        if key.record.type.is_rsa:
            raise VaultRefusalError(400, str(exc)) from None  # of the whole batch, as there
        raise


def _to_open(key: OpenKey, item: Mapping[str, Any], place: int) -> tuple[bytes | None, bytes]:
    """Return the context and the associated data of a ciphertext."""
    context, authenticated = _context_of(item.get("context")), item.get("associated_data")
    _require_aead(key, item, place)
    if authenticated:
        encrypting.opening(key, item["ciphertext"], context)
    return context, _decoded_aad(authenticated)


def _pair(made: tuple[str, int]) -> dict[str, Any]:
    return {"ciphertext": made[0], "key_version": made[1]}


PATHS: Final = (
    VaultPath("/transit/encrypt/{name:transit}", write=Way(encrypt, None, _ENCRYPTED)),
    VaultPath("/transit/decrypt/{name:transit}", write=Way(decrypt, Op.DECRYPT, _DECRYPTED)),
    VaultPath("/transit/rewrap/{name:transit}", write=Way(rewrap, Op.REWRAP, _REWRAPPED)),
    VaultPath("/transit/datakey/{kind}/{name:transit}", write=Way(data_key, Op.DATAKEY, _DATA_KEY)),
)
