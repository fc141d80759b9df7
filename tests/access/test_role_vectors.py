"""Codes of roles, secret ids and their tokens are those that are specified."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.access.token_text import (
    SECRET_ID_PREFIX,
    TokenParts,
    parse_token,
    role_code,
    secret_id_code,
    token_code,
    token_text,
)
from keystead.ports import RoleKind, RoleRecord, SecretIdRecord, TokenRecord
from tests.crypto.vectors import load

FILE = load("access-role-v1.json")
KEY = bytes.fromhex(FILE["key"])


@pytest.mark.parametrize("case", FILE["roles"], ids=lambda case: case["comment"])
def test_the_code_of_a_role_is_the_one_that_is_specified(case: dict[str, Any]) -> None:
    tenant, name, scopes, rules, made = (case[each] for each in ("tenant", "name", "scopes", "rules", "created"))
    row = RoleRecord(case["id"], RoleKind(case["kind"]), tenant, name, scopes, rules, made, 1, b"")
    assert role_code(KEY, row).hex() == case["code"]


@pytest.mark.parametrize("case", FILE["secret_ids"], ids=lambda case: case["comment"])
def test_a_secret_id_is_the_one_that_is_specified(case: dict[str, Any]) -> None:
    parts = TokenParts(case["id"], bytes.fromhex(case["secret"]))
    assert token_text(parts, SECRET_ID_PREFIX) == case["text"]
    assert parse_token(case["text"], SECRET_ID_PREFIX) == parts
    assert parse_token(case["text"]) is None
    row = SecretIdRecord(case["id"], case["role"], case["created"], case["expires"], case["uses"], 1, b"")
    assert secret_id_code(KEY, row, parts.secret).hex() == case["code"]


@pytest.mark.parametrize("case", FILE["tokens"], ids=lambda case: case["comment"])
def test_the_code_of_a_roles_token_is_the_one_that_is_specified(case: dict[str, Any]) -> None:
    parts = TokenParts(case["id"], bytes.fromhex(case["secret"]))
    assert token_text(parts) == case["text"]
    row = TokenRecord(
        id=case["id"],
        subject=case["subject"],
        tenant=case["tenant"],
        scopes=case["scopes"],
        label="",
        created_at=case["created"],
        expires_at=case["expires"],
        key_id=1,
        code=b"",
        role_id=case["role"],
        ttl_s=int(case["ttl"]),
        ends_by=case["ends_by"] or None,
        uses=int(case["uses"]) if case["uses"] else None,
        is_audited_each=case["audit"] == "each",
    )
    assert token_code(KEY, row, parts.secret).hex() == case["code"]
