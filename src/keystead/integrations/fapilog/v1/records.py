"""Records of fapilog-tamper, format 1: their bytes, and what is read of a line.

A MAC covers the canonical JSON of an event and nothing else; the chain over them has no key. What a file says wrongly
is ``MalformedV1Error``, and nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from keystead.errors import InvalidInputError

HASH_SIZE: Final = 32
GENESIS_HASH: Final = bytes(HASH_SIZE)
HMAC: Final = "HMAC-SHA256"
ED25519: Final = "Ed25519"
SIGNATURE_SIZES: Final = {HMAC: 32, ED25519: 64}
_MOST_SEQ: Final = 2**63
_FIELDS: Final = {"seq": int, "mac": str, "algo": str, "key_id": str, "chain_hash": str, "prev_chain_hash": str}
_OF_MANIFESTS: Final = frozenset({"record_count", "root_chain_hash", "signature_algo", "integrity_version"})
"""One key signs manifests too, whose canonical form is that of a record."""
_MOST_SHOWN: Final = 64


class MalformedV1Error(ValueError):
    """A line, or a manifest, that is none; a finding, and never an error outside this reader."""

    def __init__(self, message: str, error_type: str = "malformed", seq: int = 0) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.seq = seq


@dataclass(frozen=True, slots=True)
class SealedV1:
    """What a line says of itself.

    Attributes:
        payload: what the MAC covers.
        timestamp: what the chain hash covers; None where the event has none, and the hash cannot be computed again.
    """

    seq: int
    mac: bytes
    algo: str
    key_id: str
    chain_hash: bytes
    prev_chain_hash: bytes
    payload: bytes
    timestamp: str | None

    def computed_chain_hash(self) -> bytes | None:
        """Return the chain hash that this record has after its ``prev_chain_hash``."""
        if self.timestamp is None:
            return None
        content = self.prev_chain_hash + self.mac + self.seq.to_bytes(8, "big") + self.timestamp.encode()
        return sha256(content).digest()


def canonicalize(event: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of an event without its ``integrity``: sorted by code point, compact, UTF-8.

    Raises:
        InvalidInputError: it has a value that JSON does not hold, or a lone surrogate.
    """
    payload = {name: value for name, value in event.items() if name != "integrity"}
    try:
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"an event that JSON does not hold ({type(exc).__name__})") from None


def b64url_encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def b64url_decode(text: str) -> bytes:
    """Return what ``b64url_encode`` was given; padding may be there.

    Raises:
        InvalidInputError: another alphabet, or another spelling of the same bytes.
    """
    bare = text.rstrip("=")
    try:
        data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError:
        raise InvalidInputError("this is no base64url") from None
    if b64url_encode(data) != bare:
        raise InvalidInputError("this is no base64url, or not as it is spelt")
    return data


def parse_record(line: bytes) -> SealedV1:
    """Return what a line says.

    Raises:
        MalformedV1Error: it is no JSON object, has a name twice, or has no ``integrity`` as format 1 does.
    """
    event = parse_object(line)
    if "integrity" not in event:
        raise MalformedV1Error("a record without integrity fields", "missing_integrity")
    return sealed_of(event)


def sealed_of(event: Mapping[str, Any]) -> SealedV1:
    """Return what an event says that was parsed already; errors as ``parse_record``."""
    integrity = event.get("integrity")
    if not isinstance(integrity, Mapping):
        raise MalformedV1Error("integrity fields that are no object")
    seq = integrity.get("seq")
    seq = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 < seq < _MOST_SEQ else 0
    for name, kind in _FIELDS.items():
        if not isinstance(integrity.get(name), kind):
            raise MalformedV1Error(f"integrity.{name} is not there, or of another type", seq=seq)
    if not seq:
        raise MalformedV1Error("integrity.seq is no number of a record")
    if event.keys() >= _OF_MANIFESTS:
        raise MalformedV1Error("a manifest in the place of a record", seq=seq)
    timestamp = event.get("timestamp")
    try:
        return SealedV1(
            seq,
            b64url_decode(integrity["mac"]),
            integrity["algo"],
            integrity["key_id"],
            hash_of(integrity["chain_hash"]),
            hash_of(integrity["prev_chain_hash"]),
            canonicalize(event),
            None if timestamp is None else _encodable(str(timestamp)),
        )
    except ValueError as exc:
        raise MalformedV1Error(str(exc), seq=seq) from None


def parse_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object in which no name stands twice.

    Raises:
        MalformedV1Error: it is none.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_once)
    except MalformedV1Error:
        raise
    except (ValueError, RecursionError):
        raise MalformedV1Error("no JSON") from None
    if not isinstance(value, dict):
        raise MalformedV1Error("no JSON object")
    return value


def hash_of(text: str) -> bytes:
    """Return a hash in base64url.

    Raises:
        InvalidInputError: it is none.
    """
    found = b64url_decode(text)
    if len(found) != HASH_SIZE:
        raise InvalidInputError("a hash that has not 32 bytes")
    return found


def shown(text: str) -> str:
    """Return what a file says, fit for a message."""
    short = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return ascii(short)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedV1Error("a name stands twice in an object: readers differ in which value they take")
    return members


def _encodable(text: str) -> str:
    text.encode()  # a lone surrogate is a ValueError
    return text
