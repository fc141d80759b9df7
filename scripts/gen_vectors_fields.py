"""Vectors of fields, computed from primitives; see ``gen_vectors``."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from scripts.gen_vectors_kms import Case, known_bytes, u32

RECORDS: list[tuple[str, list[tuple[str, str]], str]] = [
    ("text", [("text", "A-17")], "A-17"),
    ("integer", [("integer", "42")], "42"),
    ("negative integer", [("integer", "-7")], "-7"),
    ("UUID", [("uuid", "12345678-1234-5678-1234-567812345678")], "12345678-1234-5678-1234-567812345678"),
    ("bytes", [("bytes", "00ff")], "00ff"),
    ("date", [("date", "2024-02-29")], "2024-02-29"),
    ("two columns", [("text", "a"), ("integer", "12")], "1:a2:12"),
    ("two columns, shifted", [("text", "a2"), ("integer", "2")], "2:a21:2"),
    ("two columns, length in characters", [("text", "\u00e9"), ("text", "x")], "1:\u00e91:x"),
]
"""Comment, what the record columns hold, and the text that names the record."""


def field_file(envelope: Callable[..., Case]) -> Case:
    """Return ``field-v1.json``."""
    sealed = []
    for comment, column, record, tenant in [
        ("no tenant", "users.email", "42", None),
        ("a tenant", "users.email", "42", "acme"),
        ("another column", "users.phone", "42", None),
        ("an empty tenant is a tenant", "users.email", "42", ""),
    ]:
        pairs = [["keystead.field", column], ["keystead.record", record]]
        pairs += [] if tenant is None else [["keystead.tenant", tenant]]
        case = envelope(f"field, {comment}", 0x01, b"\x01ada@example.org", pairs, key_id=11)
        sealed.append({**case, "field_id": column, "record": record, "tenant": tenant, "value": "ada@example.org"})
    key = known_bytes("index key")
    exact = []
    for version, kind, value, content in [
        (1, "text", "ada@example.org", b"ada@example.org"),
        (2, "bytes", "00ff", b"\x00\xff"),
        (3, "integer", "258", b"\x03\x01\x02"),
        (255, "bool", "true", b"\x08\x01"),
        (256, "date", "2024-02-29", b"\x062024-02-29"),
        (1003, "uuid", "12345678-1234-5678-1234-567812345678", b"\x07" + bytes.fromhex("12345678" * 4)),
    ]:
        data = u32(b"users.email") + u32(b"acme") + b"\x01\x00" + content
        index = hmac.digest(key, data, "sha256").hex()
        exact.append(
            {
                "key": key.hex(),
                "field_id": "users.email",
                "tenant": "acme",
                "type": kind,
                "value": value,
                "index": index,
                "version": version,
                "column": f"email_exact_{version % 2}",
                "stored": (version % 256).to_bytes(1, "big").hex() + index,
            }
        )
    return {
        "spec": "docs/spec/field-v1.md",
        "tests": sealed,
        "records": [
            {"comment": comment, "columns": [list(column) for column in columns], "record": text}
            for comment, columns, text in RECORDS
        ],
        "exact_indexes": exact,
    }
