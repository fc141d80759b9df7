"""``/v1/transit/sign`` and ``/v1/transit/verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.model import TransitType
from keystead.runtime.off_loop import OFF_LOOP_BYTES
from keystead.server.vault import transit_macs
from keystead.server.vault.answers import VaultAnswer
from keystead.server.vault.batches import each, texts_of
from keystead.server.vault.computing import looking_twice
from keystead.server.vault.fields import Fields, decoded
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.server.vault.transit_macs import CAPTURED, NOT_BASE64, given, path_algorithm
from keystead.transit import signatures
from keystead.transit.digests import Hash, hash_of
from keystead.transit.opened import OpenKey
from keystead.transit.signature_options import Marshaling, Options, marshaling_of, options_of, salt_length_of
from keystead.transit.signatures import require_signer

_NO_INPUT: Final = "missing input"
_NEITHER: Final = "neither a 'signature' nor an 'hmac' were given to verify"
_WORTH: Final = OFF_LOOP_BYTES // 8
"""Bytes that are hashed while one signature is made."""
_HOW: Final = frozenset(
    {
        "input",
        "context",
        "hash_algorithm",
        "algorithm",
        "signature_algorithm",
        "marshaling_algorithm",
        "salt_length",
        "prehashed",
        "batch_input",
    }
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a request wants something signed or verified, not looked at yet."""

    marshaling: str
    hash_algorithm: str
    salt_length: str
    signature_algorithm: str
    is_prehashed: bool

    def require_known(self) -> None:
        """Raise ``InvalidInputError`` for what is not known, whatever the key; of the hash, its key is asked first."""
        marshaling_of(self.marshaling)
        salt_length_of(self.salt_length)

    def options(self, kind: TransitType) -> Options:
        """Return it looked at; errors as ``options_of``."""
        return options_of(
            kind,
            marshaling=self.marshaling,
            hash_algorithm=self.hash_algorithm,
            salt_length=self.salt_length,
            signature_algorithm=self.signature_algorithm,
            is_prehashed=self.is_prehashed,
        )


async def sign(request: VaultRequest) -> VaultAnswer:
    """Sign one input or many."""
    fields = Fields(request.body)
    item, asked, version = given(fields, "input", "context"), _asked(request, fields), fields.number("key_version")
    asked.require_known()
    key = await request.service.transit.keys.open(request.tenant, request.name, missing="signing key not found")
    require_signer(key, "signing")
    options, items = asked.options(key.record.type), texts_of(fields, "batchRequestSignItem")

    def compute(opened: OpenKey) -> list[Any]:
        if items is None:
            return [_signed(opened, {"input": "", **item}, options, version, "public_key")]
        results = each(items, lambda _, one: _signed(opened, one, options, version, "publickey"))
        for result in results:
            result.setdefault("key_version", 0)
        return results

    results = await looking_twice(request, key, _size(items or [item]), compute)
    await request.used(key, Op.SIGN, len(results))
    return VaultAnswer(results[0] if items is None else {"batch_results": results})


async def verify(request: VaultRequest) -> VaultAnswer:
    """Tell whether one signature or HMAC, or many, are those of their inputs."""
    fields = Fields(request.body)
    item, asked = given(fields, "input", "context", "signature", "hmac"), _asked(request, fields)
    items = texts_of(fields, "batchRequestVerifyItem")
    if not _are_signatures(item, items):
        return await transit_macs.verify(request, item, items, hash_of(asked.hash_algorithm))
    asked.require_known()
    missing = "signature verification key not found"
    key = await request.service.transit.keys.open(request.tenant, request.name, missing=missing)
    require_signer(key, "verification")
    options = asked.options(key.record.type)

    def compute(opened: OpenKey) -> list[Any]:
        if items is None:
            return [_verified(opened, {"input": "", **item}, options)]
        results = each(items, lambda _, one: _verified(opened, one, options))
        for result in results:
            result.setdefault("valid", False)
        return results

    results = await looking_twice(request, key, _size(items or [item]), compute)
    await request.used(key, Op.VERIFY, len(results))
    return VaultAnswer(results[0] if items is None else {"batch_results": results})


def _asked(request: VaultRequest, fields: Fields) -> _Asked:
    named, deprecated = fields.text("hash_algorithm"), fields.text("algorithm")
    return _Asked(
        marshaling=fields.text("marshaling_algorithm", Marshaling.ASN1),
        hash_algorithm=path_algorithm(request) or named or deprecated or Hash.SHA2_256,
        salt_length=fields.text("salt_length", "auto"),
        signature_algorithm=fields.text("signature_algorithm"),
        is_prehashed=fields.flag("prehashed"),
    )


def _are_signatures(item: Mapping[str, str], items: Sequence[Mapping[str, str]] | None) -> bool:
    """Whether a request has signatures to verify, and not HMACs; where it has both of something, the signature counts.

    Raises:
        InvalidInputError: neither, or some of this and some of that.
    """
    if items is None:
        if not item.keys() & {"signature", "hmac"}:
            raise InvalidInputError(_NEITHER)
        return "signature" in item
    kinds = {"signature" if "signature" in one else "hmac" if "hmac" in one else "" for one in items}
    if {"signature", "hmac"} <= kinds:
        raise InvalidInputError("elements of batch_input must all provide 'signature' or all provide 'hmac'")
    if kinds == {""}:
        raise InvalidInputError("no batch_input elements have 'signature' or 'hmac'")
    kind = max(kinds)
    if "" in kinds:
        raise InvalidInputError(f"some elements of batch_input are missing '{kind}'")
    return kind == "signature"


def _signed(key: OpenKey, item: Mapping[str, str], options: Options, version: int, public_name: str) -> dict[str, Any]:
    message, context = _message_of(item)
    made = signatures.sign(key, message, options, context=context, version=version)
    told = {"signature": made.text, "key_version": made.version}
    return {**told, public_name: made.public_key} if made.public_key else told


def _verified(key: OpenKey, item: Mapping[str, str], options: Options) -> dict[str, Any]:
    message, context = _message_of(item)
    return {"valid": signatures.verify(key, message, item["signature"], options, context=context)}


def _message_of(item: Mapping[str, str]) -> tuple[bytes, bytes | None]:
    """Return what is signed, and the context where one is given."""
    if "input" not in item:
        raise InvalidInputError(_NO_INPUT)
    message, text = decoded(item["input"], NOT_BASE64), item.get("context")
    try:
        return message, decoded(text) if text else None
    except InvalidInputError:
        raise InvalidInputError("failed to base64-decode context") from None


def _size(items: Sequence[Mapping[str, str]]) -> int:
    return sum(len(item.get("input", "")) + _WORTH for item in items)


PATHS: Final = tuple(
    VaultPath(f"/transit/{operation}/{{name:transit}}{algorithm}", write=way)
    for operation, way in (
        ("sign", Way(sign, Op.SIGN, _HOW | {"key_version"}, CAPTURED)),
        ("verify", Way(verify, Op.VERIFY, _HOW | {"signature", "hmac"}, CAPTURED)),
    )
    for algorithm in ("", "/{algorithm:name}")
)
