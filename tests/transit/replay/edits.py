"""Changes to a value that a server answered, before it is sent back: a bit flipped, an end cut off."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any


def edited(text: str, edits: Iterable[Mapping[str, Any]]) -> str:
    """Return the text after every edit, in their order."""
    for edit in edits:
        text = _edited(text, edit)
    return text


def _edited(text: str, edit: Mapping[str, Any]) -> str:
    match edit["op"]:
        case "cut":
            return text[: edit["to"]]
        case "append":
            return text + str(edit["text"])
        case "replace":
            assert edit["old"] in text, f"{edit['old']!r} is not in what is to be changed"
            return text.replace(edit["old"], edit["new"], 1)
    prefix, colon, encoded = text.rpartition(":")
    is_url = bool(edit.get("url"))
    return prefix + colon + _encoded(_changed(_decoded(encoded, is_url), edit), is_url)


def _changed(raw: bytearray, edit: Mapping[str, Any]) -> bytearray:
    match edit["op"]:
        case "flip":
            raw[edit["at"]] ^= 1 << edit["bit"]
            return raw
        case "cut_bytes":
            return raw[: edit["to"]]
        case "append_bytes":
            return raw + bytes.fromhex(edit["hex"])
    raise AssertionError(f"no edit is named {edit['op']!r}")


def _decoded(text: str, is_url: bool) -> bytearray:
    padded = text + "=" * (-len(text) % 4)
    return bytearray(base64.urlsafe_b64decode(padded) if is_url else base64.b64decode(padded))


def _encoded(raw: bytes | bytearray, is_url: bool) -> str:
    return (base64.urlsafe_b64encode(raw).rstrip(b"=") if is_url else base64.b64encode(raw)).decode()
