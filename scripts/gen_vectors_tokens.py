"""Vectors of API tokens. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hmac

from scripts.gen_vectors_kms import Case, known_bytes, u32

CASES: list[tuple[str, str, str, str, str]] = [
    ("one scope, without an end", "billing", "", "devices:use", ""),
    ("several scopes", "billing", "", "act-as devices:use metrics:read", ""),
    ("with an end", "billing", "", "devices:use", "2031-01-01T00:00:00.000000Z"),
    ("of a tenant", "billing", "north", "devices:use", ""),
    ("a boundary that shifts", "bill", "ingnorth", "devices:use", ""),
    ("without scopes", "b\u00fcro", "", "", ""),
]
CREATED = "2030-01-01T00:00:00.000000Z"


def token_file() -> Case:
    """Return ``api-token-v1.json``."""
    key, tests = known_bytes("token key"), []
    for comment, subject, tenant, scopes, expires in CASES:
        token_id, secret = known_bytes(f"token id {comment}", 8).hex(), known_bytes(f"token secret {comment}")
        parts = (token_id, subject, tenant, scopes, CREATED, expires)
        message = b"keystead api token v1\x00" + b"".join(u32(part.encode()) for part in parts) + u32(secret)
        text = f"kst1_{token_id}_{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"
        tests.append(
            {
                "comment": comment,
                "id": token_id,
                "subject": subject,
                "tenant": tenant,
                "scopes": scopes,
                "created": CREATED,
                "expires": expires,
                "secret": secret.hex(),
                "text": text,
                "code": hmac.digest(key, message, "sha256").hex(),
            }
        )
    whole = str(tests[0]["text"])
    invalid = [
        {"comment": "another marker", "text": "kst2" + whole[4:]},
        {"comment": "no secret", "text": whole[:21]},
        {"comment": "one character short", "text": whole[:-1]},
        {"comment": "one character more", "text": whole + "A"},
        {"comment": "upper case in the id", "text": whole[:5] + "A" + whole[6:]},
        {"comment": "padded", "text": whole + "="},
        {"comment": "a letter beyond ASCII", "text": whole[:-1] + "\u00e4"},
        {"comment": "spare bits", "text": whole[:-1] + "B"},
        {"comment": "a line feed behind it", "text": whole + "\n"},
    ]
    return {"spec": "docs/spec/api-token-v1.md", "key": key.hex(), "tests": tests, "invalid": invalid}
