"""Logs of format 1, recorded from fapilog-tamper or made here by its rules; and an attacker who has no key."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from shutil import copy
from typing import Any, Final

from keystead.integrations.fapilog import Verifier, VerifyReport, b64url_decode, b64url_encode, canonicalize

RECORDED: Final = Path(__file__).parent / "recorded"
KEY: Final = bytes(range(32))
KEY_ID: Final = "audit-2026"

Record = dict[str, Any]


class OneKey:
    """A key store of the simplest kind."""

    def __init__(self, key: bytes = KEY, key_id: str = KEY_ID) -> None:
        self._keys = {key_id: key}

    def get_key(self, key_id: str) -> bytes | None:
        return self._keys.get(key_id)


def recorded(folder: Path, *names: str) -> list[Path]:
    """Copy recorded files with their manifests to a folder."""
    for name in names:
        copy(RECORDED / name, folder)
        copy(RECORDED / f"{name}.manifest.json", folder)
    return [folder / name for name in names]


def read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, found: Sequence[object]) -> None:
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sealed(count: int, *, seq: int = 1, previous: bytes = bytes(32), key: bytes = KEY) -> list[Record]:
    """Return records as the enricher of fapilog-tamper makes them."""
    found = []
    for number in range(seq, seq + count):
        event = {"timestamp": f"2026-01-02T03:04:{number % 60:02}Z", "message": f"event {number}"}
        mac = hmac.digest(key, canonicalize(event), "sha256")
        current = sha256(previous + mac + number.to_bytes(8, "big") + event["timestamp"].encode()).digest()
        integrity = {
            "seq": number,
            "mac": b64url_encode(mac),
            "algo": "HMAC-SHA256",
            "key_id": KEY_ID,
            "chain_hash": b64url_encode(current),
            "prev_chain_hash": b64url_encode(previous),
        }
        found.append({**event, "integrity": integrity})
        previous = current
    return found


def repair(found: Sequence[Record]) -> list[Record]:
    """Number and chain records anew, which takes no key: what the chain of format 1 cannot prevent."""
    previous = bytes(32)
    made = []
    for number, record in enumerate(found, start=1):
        mac = b64url_decode(record["integrity"]["mac"])
        current = sha256(previous + mac + number.to_bytes(8, "big") + str(record["timestamp"]).encode()).digest()
        chain = {"chain_hash": b64url_encode(current), "prev_chain_hash": b64url_encode(previous)}
        made.append({**record, "integrity": {**record["integrity"], "seq": number, **chain}})
        previous = current
    return made


def manifest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def edit_manifest(path: Path, change: Callable[[Record], object]) -> None:
    manifest = json.loads(manifest_of(path).read_text())
    change(manifest)
    manifest_of(path).write_text(json.dumps(manifest))


def adjust_manifest(path: Path) -> None:
    """Make the manifest say what the file has, without a key for its signature."""
    found = read(path)

    def change(manifest: Record) -> None:
        manifest["record_count"] = len(found)
        if found:
            first, last = found[0], found[-1]
            manifest.update(
                first_seq=first["integrity"]["seq"],
                last_seq=last["integrity"]["seq"],
                first_ts=first["timestamp"],
                last_ts=last["timestamp"],
                root_chain_hash=last["integrity"]["chain_hash"],
            )

    edit_manifest(path, change)


def check(path: Path, store: object | None = None, **options: Any) -> VerifyReport:
    return Verifier(store or OneKey(), **options).check_file(path)  # type: ignore[arg-type]  # stores of any kind


def kinds(report: VerifyReport) -> set[str]:
    return {error.error_type for error in report.errors}
