"""Keys of 32 bytes, in the spellings that a variable or a file may have. Spec: docs/spec/key-material-v1.md."""

from __future__ import annotations

from keystead.providers.key_material import decode


def keys_in(content: bytes) -> tuple[bytes, ...] | None:
    """Return the keys that a variable or a file holds, the newest first; None where it holds none."""
    decoded = decode(content)
    return None if decoded.problem is not None else tuple(each.key for each in decoded.keys)
