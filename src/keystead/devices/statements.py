"""What the service signs of a public key that it gives. Spec: docs/spec/client-keys-v1.md, section 5."""

from __future__ import annotations

from datetime import UTC, datetime

from keystead.crypto.framing import framed
from keystead.devices.pairs import Algorithm


def key_statement(
    key_id: str, device_id: str, public: bytes, expires_at: datetime | None, algorithm: Algorithm
) -> bytes:
    """Return the bytes that are signed; ``public`` is a SubjectPublicKeyInfo."""
    return framed(
        "keystead client key signature v1",
        key_id,
        device_id,
        public,
        "" if expires_at is None else instant(expires_at),
        algorithm,
    )


def instant(moment: datetime) -> str:
    """Return a time as clients get it: RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
