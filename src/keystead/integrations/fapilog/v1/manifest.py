"""Manifests of fapilog-tamper, format 1: the signed word of how many records a file has, and how they end."""

from __future__ import annotations

import hmac
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from keystead.errors import CouldNotVerifyError, InvalidInputError
from keystead.integrations.fapilog.v1.records import (
    ED25519,
    HMAC,
    MalformedV1Error,
    b64url_decode,
    b64url_encode,
    hash_of,
    parse_object,
    shown,
)
from keystead.runtime.files import replace_file

VERSION: Final = "1.0"
MAX_BYTES: Final = 1 << 20
SUFFIX: Final = ".manifest.json"
_MEMBERS: Final = frozenset(
    {
        *("version", "file", "created_ts", "closed_ts", "record_count", "first_seq", "last_seq", "first_ts", "last_ts"),
        *("root_chain_hash", "algo", "key_id", "signature_algo", "integrity_version", "continues_from", "signature"),
    }
)
"""All that a manifest has: one key signs records and manifests, and a record must not pass for a manifest."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read. ``payload`` is what the signature covers, ``signature`` None where there is none."""

    file: str
    record_count: int
    first_seq: int | None
    last_seq: int | None
    first_ts: str | None
    last_ts: str | None
    root: bytes | None
    continues_from: bytes | None
    key_id: str
    algorithm: str
    payload: bytes
    signature: bytes | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the manifest in a file, None where there is no file.

        Raises:
            MalformedV1Error: it is none of format 1.
            CouldNotVerifyError: it cannot be read.
        """
        try:
            # A pipe in its place must not hold anybody up.
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise CouldNotVerifyError(f"the manifest {path} cannot be read: {exc.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise MalformedV1Error("a manifest that is no file")
            content = os.read(file, MAX_BYTES + 1)
        finally:
            os.close(file)
        if len(content) > MAX_BYTES:
            raise MalformedV1Error("a manifest of more than 1 MiB")
        return cls.of(parse_object(content))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return a manifest from its members; errors as ``read``."""
        if given.get("version") != VERSION:
            raise MalformedV1Error("a manifest of another version")
        if unknown := sorted(set(given) - _MEMBERS):
            raise MalformedV1Error(f"a manifest with the member {shown(unknown[0])}")
        try:
            return cls(
                file=_text(given, "file"),
                record_count=_number(given, "record_count") or 0,
                first_seq=_number(given, "first_seq"),
                last_seq=_number(given, "last_seq"),
                first_ts=_time_text(given, "first_ts"),
                last_ts=_time_text(given, "last_ts"),
                root=_hash(given, "root_chain_hash"),
                continues_from=_hash(given, "continues_from"),
                key_id=_text(given, "key_id"),
                algorithm=_text(given, "signature_algo" if "signature_algo" in given else "algo"),
                payload=signed_bytes(given),
                signature=b64url_decode(_text(given, "signature")) if "signature" in given else None,
            )
        except InvalidInputError as exc:
            raise MalformedV1Error(f"a manifest that cannot be: {exc}") from None
        except (UnicodeEncodeError, RecursionError):
            raise MalformedV1Error("a manifest that JSON does not hold") from None


def signed_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return what the signature of a manifest covers: its canonical JSON without ``signature``."""
    payload = {name: value for name, value in manifest.items() if name != "signature"}
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_manifest(
    path: str | os.PathLike[str],
    records: Sequence[Mapping[str, Any]],
    key: bytes,
    key_id: str,
    *,
    algo: str = HMAC,
    continues_from: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> Path:
    """Write the manifest of a file whose records are ``records``, as fapilog-tamper does; return where it is.

    Args:
        key: 32 bytes; with ``Ed25519`` the seed.
        continues_from: the manifest of the file before, or where it is.

    Raises:
        InvalidInputError: another algorithm, or records without the fields of format 1.
    """
    first = records[0] if records else {}
    last = records[-1] if records else {}
    created = _time(first.get("timestamp"))
    try:
        root = hash_of(last["integrity"]["chain_hash"]) if records else None
        seqs = (first["integrity"]["seq"], last["integrity"]["seq"]) if records else (None, None)
    except (KeyError, TypeError):
        raise InvalidInputError("records of format 1 have integrity fields, with seq and chain_hash") from None
    manifest: dict[str, Any] = {
        "version": VERSION,
        "file": os.fspath(path),
        "created_ts": created,
        "closed_ts": _time(last["timestamp"]) if last.get("timestamp") is not None else created,
        "record_count": len(records),
        "first_seq": seqs[0],
        "last_seq": seqs[1],
        "first_ts": first.get("timestamp"),
        "last_ts": last.get("timestamp"),
        "root_chain_hash": None if root is None else b64url_encode(root),
        "algo": algo,
        "key_id": key_id,
        "signature_algo": algo,
        "integrity_version": VERSION,
    }
    before = _root_before(continues_from)
    if before is not None:
        manifest["continues_from"] = before
    manifest["signature"] = b64url_encode(_signature(signed_bytes(manifest), key, algo))
    target = Path(f"{os.fspath(path)}{SUFFIX}")
    replace_file(target, json.dumps(manifest).encode())
    return target


def _signature(payload: bytes, key: bytes, algo: str) -> bytes:
    if algo == HMAC:
        return hmac.digest(key, payload, "sha256")
    if algo != ED25519:
        raise InvalidInputError(f"algo is {HMAC} or {ED25519}")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key).sign(payload)


def _root_before(given: Mapping[str, Any] | str | os.PathLike[str] | None) -> str | None:
    if given is None:
        return None
    if isinstance(given, Mapping):
        return given.get("root_chain_hash")
    before = Manifest.read(Path(given))
    return None if before is None or before.root is None else b64url_encode(before.root)


def _time(value: object) -> str:
    try:
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        found = datetime.now(UTC)
    return found.isoformat().replace("+00:00", "Z")


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is no text")
    return value


def _number(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidInputError(f"{name} is no number")
    return value


def _time_text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return None if value is None else str(value)


def _hash(given: Mapping[str, Any], name: str) -> bytes | None:
    return None if given.get(name) is None else hash_of(_text(given, name))
