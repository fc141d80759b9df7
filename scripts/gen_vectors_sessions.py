"""Vectors of sessions at the console. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hmac

from scripts.gen_vectors_kms import Case, known_bytes, u32

CASES: list[tuple[str, str, str, str, str, str]] = [
    ("begun by a token", "ada", "", "audit:read keyrings:read", "counted", "token fedcba9876543210"),
    ("of a tenant, by an issuer", "ada", "north", "tokens:write", "counted", "issuer https://id.example"),
    ("each operation audited", "gr\u00fc\u00dfe", "", "transit:*:orders-*", "each", "token 00000000000000ff"),
]
CREATED = "2030-01-01T00:00:00.000000Z"
EXPIRES = "2030-01-01T12:00:00.000000Z"


def session_file() -> Case:
    """Return ``console-session-v1.json``."""
    key, tests = known_bytes("session key"), []
    for comment, subject, tenant, scopes, mode, origin in CASES:
        session_id, secret = known_bytes(f"session id {comment}", 8).hex(), known_bytes(f"session secret {comment}")
        token = origin.removeprefix("token ") if origin.startswith("token ") else ""
        parts = (session_id, subject, tenant, scopes, mode, origin, token, CREATED, EXPIRES)
        message = b"keystead console session v1\x00" + b"".join(u32(part.encode()) for part in parts) + u32(secret)
        tests.append(
            {
                "comment": comment,
                "id": session_id,
                "subject": subject,
                "tenant": tenant,
                "scopes": scopes,
                "mode": mode,
                "origin": origin,
                "token": token,
                "created": CREATED,
                "expires": EXPIRES,
                "secret": secret.hex(),
                "text": f"ksc1_{session_id}_{base64.urlsafe_b64encode(secret).decode().rstrip('=')}",
                "code": hmac.digest(key, message, "sha256").hex(),
                "form": hmac.digest(secret, b"keystead console form v1", "sha256").hex(),
            }
        )
    return {"spec": "docs/spec/console-session-v1.md", "key": key.hex(), "tests": tests}
