"""Vectors of roles, their secret ids and their tokens. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hmac

from scripts.gen_vectors_kms import Case, known_bytes, u32

CREATED = "2030-01-01T00:00:00.000000Z"
EXPIRES = "2030-01-01T01:00:00.000000Z"
ENDS_BY = "2030-02-01T00:00:00.000000Z"
ROLE_ID = "964773f9-dce0-4650-abf7-939aa8053ed5"
RULES = (
    '{"audit":"counted","secret_id_ttl_s":60,"secret_id_uses":1,'
    '"token_max_ttl_s":null,"token_ttl_s":3600,"token_uses":null}'
)
ROLES: list[tuple[str, str, str, str, str]] = [
    ("an AppRole", "approle", "", "orders", "transit:encrypt:orders-*"),
    ("of a tenant, with several scopes", "approle", "north", "orders", "devices:use transit:*:*"),
    ("a role that JWTs show", "jwt", "", "ci", "transit:sign:release"),
    ("a boundary that shifts", "jwt", "north", "ci", "transit:sign:release"),
]
SECRET_IDS: list[tuple[str, int]] = [("for one login", 1), ("for a thousand", 1000)]
TOKENS: list[tuple[str, str, str, str, str]] = [
    ("not renewable", "3600", "", "", "counted"),
    ("renewable", "3600", ENDS_BY, "", "counted"),
    ("for two uses, each audited", "60", "", "2", "each"),
]


def role_file() -> Case:
    """Return ``access-role-v1.json``."""
    key = known_bytes("role key")
    return {
        "spec": "docs/spec/access-role-v1.md",
        "key": key.hex(),
        "roles": [_role(key, *each) for each in ROLES],
        "secret_ids": [_secret_id(key, *each) for each in SECRET_IDS],
        "tokens": [_token(key, *each) for each in TOKENS],
    }


def _code(key: bytes, domain: str, *values: str | bytes) -> str:
    parts = (u32(value.encode() if isinstance(value, str) else value) for value in values)
    return hmac.digest(key, domain.encode() + b"\x00" + b"".join(parts), "sha256").hex()


def _text(prefix: str, row_id: str, secret: bytes) -> str:
    return f"{prefix}_{row_id}_{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"


def _role(key: bytes, comment: str, *given: str) -> Case:
    kind, tenant, name, scopes = given
    code = _code(key, "keystead access role v1", ROLE_ID, kind, tenant, name, scopes, RULES, CREATED)
    told = {"comment": comment, "id": ROLE_ID, "kind": kind, "tenant": tenant, "name": name, "scopes": scopes}
    return {**told, "rules": RULES, "created": CREATED, "code": code}


def _secret_id(key: bytes, comment: str, uses: int) -> Case:
    row_id, secret = known_bytes(f"secret id {comment}", 8).hex(), known_bytes(f"secret id secret {comment}")
    code = _code(key, "keystead secret id v1", row_id, ROLE_ID, CREATED, EXPIRES, str(uses), secret)
    told = {"comment": comment, "id": row_id, "role": ROLE_ID, "created": CREATED, "expires": EXPIRES, "uses": uses}
    return {**told, "secret": secret.hex(), "text": _text("kss1", row_id, secret), "code": code}


def _token(key: bytes, comment: str, *given: str) -> Case:
    row_id, secret = known_bytes(f"role token {comment}", 8).hex(), known_bytes(f"role token secret {comment}")
    plain = (row_id, "approle:orders", "north", "transit:encrypt:orders-*", CREATED, EXPIRES)
    lease = (ROLE_ID, *given)
    return {
        "comment": comment,
        **dict(zip(("id", "subject", "tenant", "scopes", "created", "expires"), plain, strict=True)),
        **dict(zip(("role", "ttl", "ends_by", "uses", "audit"), lease, strict=True)),
        "secret": secret.hex(),
        "text": _text("kst1", row_id, secret),
        "code": _code(key, "keystead api token v2", *plain, *lease, secret),
    }
