"""Lines of the erasure log: each continues the one before, and has a code by a key of the store.

Spec: docs/spec/erasure-v1.md, 2.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from keystead.errors import ErasureLogError
from keystead.ports import ErasureMark

_DOMAIN: Final = b"keystead erasure log v1\x00"
_MEMBERS: Final = {"key", "keyring", "keys", "n", "prev", "store", "time"}


@dataclass(frozen=True, slots=True)
class Erased:
    """What a line says: the keyring that was erased, its data keys, and when. The first line of a log names none."""

    keyring: str
    keys: tuple[int, ...]
    time: str


@dataclass(frozen=True, slots=True)
class Codes:
    """The keys of ``keystead.erasures`` by version, of which the highest makes codes."""

    keys: Mapping[int, bytes]

    def write(self, erased: Erased, *, store_id: str, before: ErasureMark) -> bytes:
        """Return the line that says so and continues a log."""
        version = max(self.keys)
        members: dict[str, Any] = {
            "key": version,
            "keyring": erased.keyring,
            "keys": [str(key_id) for key_id in sorted(erased.keys)],
            "n": before.count + 1,
            "prev": before.head.hex(),
            "store": store_id,
            "time": erased.time,
        }
        return _json(members | {"code": self._code(version, members).hex()})

    def read(self, line: bytes, *, store_id: str, before: ErasureMark) -> Erased:
        """Return what a line says.

        Raises:
            ErasureLogError: it does not continue the log, is of another store, or nobody of the store wrote it.
        """
        try:
            members = json.loads(line)
            code = bytes.fromhex(members.pop("code"))
            is_whole = members.keys() == _MEMBERS and _json(members | {"code": code.hex()}) == line
            follows = (members["n"], members["prev"]) == (before.count + 1, before.head.hex())
            erased = Erased(str(members["keyring"]), tuple(int(each) for each in members["keys"]), str(members["time"]))
            datetime.fromisoformat(erased.time)
            version, store = members["key"], members["store"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(before) from None
        if not is_whole or not follows:
            raise _damaged(before)
        if store != store_id:
            raise ErasureLogError("the erasure log is that of another store: each store has one of its own")
        if version not in self.keys or not hmac.compare_digest(code, self._code(version, members)):
            raise ErasureLogError(
                f"line {before.count + 1} of the erasure log was not written by this store: put back the log that this "
                "store was used with"
            )
        return erased

    def _code(self, version: int, members: Mapping[str, Any]) -> bytes:
        return hmac.digest(self.keys[version], _DOMAIN + _json(members), "sha256")


def mark_behind(line: bytes, before: ErasureMark) -> ErasureMark:
    """Return count and head of a log that ends with a line."""
    return ErasureMark(before.count + 1, head_of(line))


def head_of(line: bytes) -> bytes:
    """Return the head of a log that ends with a line."""
    return hashlib.sha256(line).digest()


def _json(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def _damaged(before: ErasureMark) -> ErasureLogError:
    return ErasureLogError(
        f"line {before.count + 1} of the erasure log does not continue it: put back the log that this store was used "
        "with"
    )
