"""The bytes of a record, whatever an application logs: always one JSON value on one line, never an exception.

What fapilog's own sinks would write is what is sealed. Where that cannot be serialized, it is written as JSON can hold
it: fapilog-tamper let such records go unsealed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, cast

from keystead.integrations.fapilog.settings import missing_fapilog
from keystead.integrations.json_values import plain as plain_value
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES

SCHEMA: Final = "1.1"
_REQUIRED: Final = frozenset({"timestamp", "level", "message"})
_SHOWN: Final = 1024
_SPACE: Final = b" \t\r\n"
"""What JSON may have behind a value, and a record of a log may not behind a word."""


class Encoder:
    """Serializes as fapilog does. Raises ``MissingDependencyError`` where fapilog is not installed."""

    def __init__(self) -> None:
        try:
            import orjson
            from fapilog.core.serialization import serialize_envelope, serialize_mapping_to_json_bytes
        except ImportError as exc:
            raise missing_fapilog() from exc
        self._parse = orjson.loads
        self._in_envelope = serialize_envelope
        self._bare = serialize_mapping_to_json_bytes

    def of_entry(self, entry: Mapping[str, Any]) -> bytes:
        """Return the bytes that fapilog's own sinks would write of an entry."""
        try:
            return fitting(self._in_envelope(cast(Any, entry)).data)
        except Exception:
            plain = plain_value(entry)
        is_whole = isinstance(plain, dict) and set(plain) >= _REQUIRED
        for serialize in (self._in_envelope, self._bare):
            try:
                return fitting(serialize(plain).data)
            except Exception:  # noqa: S112  # the next way, and in the end our own
                continue
        value = {"log": plain, "schema_version": SCHEMA} if is_whole else plain
        return fitting(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())

    def of_view(self, view: object) -> bytes:
        """Return the bytes that a serialized view holds: a JSON value as it is, anything else in a JSON value."""
        data = getattr(view, "data", view)
        content = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else str(data).encode()
        content = content.rstrip(_SPACE)
        if b"\n" not in content and self._is_json(content):
            return fitting(content)
        try:
            return fitting(json.dumps(content.decode()).encode())
        except UnicodeDecodeError:
            return fitting(json.dumps({"base64": base64.b64encode(content).decode()}).encode())

    def _is_json(self, content: bytes) -> bool:
        try:
            self._parse(content)
        except ValueError:
            return False
        return not content[:1].isspace()


def fitting(record: bytes) -> bytes:
    """Return a record, or, where it is too long for a log, one that says so and holds its hash."""
    if len(record) <= MAX_PAYLOAD_BYTES:
        return record
    told = {"size": len(record), "sha256": sha256(record).hexdigest()}
    beginning = record[:_SHOWN].decode("utf-8", "replace")
    return envelope("a record is too long to be sealed whole", told, {"begins": beginning})


def loss_record(count: int, since: float, on_failure: str) -> bytes:
    """Return the record that says how many are missing, and since when (seconds since 1970)."""
    begun = datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"unsealed": count, "since": begun}
    where = "went to stderr unsealed" if on_failure == "stderr" else "are lost"
    return envelope(f"{count} records could not be sealed, and {where}", told)


def envelope(message: str, integrity: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> bytes:
    """Return a record of the sink's own, in the form of fapilog's."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {
        "context": {},
        "data": dict(data or {}),
        "diagnostics": {"integrity": dict(integrity)},
        "level": "ERROR",
        "logger": "keystead",
        "message": message,
        "timestamp": now,
    }
    return json.dumps({"log": record, "schema_version": SCHEMA}, separators=(",", ":"), sort_keys=True).encode()
