"""Vectors of approvals. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import hmac
import json
from typing import Any

from scripts.gen_vectors_kms import Case, known_bytes, u32

ASKED = "2030-01-01T00:00:00.000000Z"
EXPIRES = "2030-01-02T00:00:00.000000Z"
DECIDED = "2030-01-01T01:00:00.000000Z"
_DESTROY = {"wait_s": 2_592_000, "without_sources": False}
_TOKEN = {"scopes": "approvals:write", "label": "Gr\u00fc\u00dfe, \u65e5\u672c", "lifetime_s": None}
CASES: list[tuple[str, str, str, dict[str, Any], str, str, str]] = [
    ("asked for, not answered", "key.destroy", "orders/1", _DESTROY, "", "", ""),
    ("approved", "key.destroy", "orders/1", _DESTROY, "", "approved", "bob"),
    ("refused, of a tenant", "user.forget", "carol", {}, "north", "refused", "bob"),
    ("letters beyond ASCII, and no value", "token.create", "dora", _TOKEN, "", "", ""),
]


def approval_file() -> Case:
    """Return ``approval-v1.json``."""
    key, tests = known_bytes("approval key"), []
    for comment, action, target, details, tenant, verdict, by in CASES:
        approval_id, decided = known_bytes(f"approval id {comment}", 8).hex(), DECIDED if verdict else ""
        text = json.dumps(details, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        parts = (approval_id, action, target, text, tenant, "ada", ASKED, EXPIRES, verdict, by, decided)
        message = b"keystead approval v1\x00" + b"".join(u32(part.encode()) for part in parts)
        tests.append(
            {
                "comment": comment,
                "id": approval_id,
                "action": action,
                "target": target,
                "details": details,
                "details_text": text,
                "tenant": tenant,
                "asked_by": "ada",
                "created": ASKED,
                "expires": EXPIRES,
                "verdict": verdict,
                "decided_by": by,
                "decided": decided,
                "code": hmac.digest(key, message, "sha256").hex(),
            }
        )
    return {"spec": "docs/spec/approval-v1.md", "key": key.hex(), "tests": tests}
