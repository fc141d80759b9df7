"""What an entry is: its bytes, its code, and the record it becomes. Spec: docs/spec/audit-v1.md, 1 and 3.3."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.ledger.format.records import tag_text
from keystead.ledger.format.tags import TAG_CHARS, Tagger, keyed_tagger
from keystead.ledger.tlog.note import unbase64
from keystead.model import utc_text
from keystead.ports import MAX_ENTRY_BYTES, AuditEvent, Detail, Random

MAX_INTEGER: Final = 2**53 - 1
MAX_KEY_ID: Final = 2**63 - 1
MAX_KEYRING_CHARS: Final = 255
MAX_DEPTH: Final = 8
ID_SIZE: Final = 16
_AROUND: Final = 1 << 16
"""What an entry may need besides the details of its event."""
OWN_WORDS: Final = frozenset({"audit", "field", "kek", "key", "keyring", "log", "reencrypt", "store", "use"})
"""What actions of Keystead's own begin with."""
_DOMAIN: Final = b"keystead audit v1 entry\n"
_ACTION: Final = re.compile(r"[a-z][a-z0-9_]{0,30}\.[a-z][a-z0-9_]{0,30}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_BEGIN: Final = b'{"entry":'
_MIDDLE: Final = b',"mac":"'
_TAIL: Final = len(_MIDDLE) + TAG_CHARS + len(b'"}')
_REJECTED: Final = b'{"rejected":'

canonical: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Returns the one text of a value whose names and numbers are as ``require_details`` has them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it is read; ``content`` is its bytes, ``members`` what they say."""

    content: bytes
    members: Mapping[str, Any]

    @classmethod
    def parse(cls, content: bytes) -> Entry:
        """Return an entry from its bytes.

        Raises:
            ValueError: it is none.
        """
        try:
            members = json.loads(content) if b"\n" not in content else None
        except RecursionError:
            members = None
        if not isinstance(members, dict):
            raise ValueError("not an entry")
        numbers = (members.get("n"), members.get("ok"))
        texts = [members.get(name) for name in ("id", "session", "node", "time", "action")]
        texts += [members.get(name, "") for name in ("keyring", "key_id", "actor")]
        is_entry = {*map(type, texts)} == {str} and all(map(_is_count, numbers))
        if not is_entry or not are_ranges(members.get("undone", [])):
            raise ValueError("not an entry")
        return cls(content, members)

    @property
    def id(self) -> bytes:
        """Its id, 16 bytes; others where it is none."""
        return id_bytes(self.members["id"])

    @property
    def key_id(self) -> int | None:
        """The data key it is about; None for a number that no data key has."""
        given = self.members.get("key_id")
        key_id = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 20 else None
        return None if key_id is None or key_id > MAX_KEY_ID else key_id

    @property
    def details(self) -> Mapping[str, Any]:
        """Its details."""
        given = self.members.get("details")
        return given if isinstance(given, dict) else {}


class EntryIds:
    """Draws UUIDs of version 7 that only grow."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._last = 0

    def draw(self, now: datetime) -> bytes:
        """Return the next one."""
        now_ms = int(now.timestamp() * 1000)
        drawn = now_ms << 74 | int.from_bytes(self._random(10), "big") >> 6
        # Within a millisecond, or where the clock was set back, it is the last one and a little more.
        self._last = max(drawn, self._last + 1)
        ms, upper, lower = self._last >> 74, self._last >> 62 & 0xFFF, self._last & (1 << 62) - 1
        return (ms << 80 | 7 << 76 | upper << 64 | 2 << 62 | lower).to_bytes(ID_SIZE, "big")


def id_text(entry_id: bytes) -> str:
    """Return an id as an entry writes it."""
    digits = entry_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def id_bytes(text: str) -> bytes:
    """Return the bytes of an id in an entry; of what is none, none either."""
    try:
        return bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return b""


def entry_bytes(
    event: AuditEvent,
    *,
    entry_id: bytes,
    session: str,
    number: int,
    ok: int,
    undone: Sequence[Sequence[int]],
    node: str,
    at: datetime,
    actor: str | None,
    epoch: int | None = None,
    keys: Sequence[Mapping[str, Detail]] = (),
) -> bytes:
    """Return the bytes of an entry.

    Raises:
        InvalidInputError: details that an entry cannot hold, or too many of them.
    """
    members: dict[str, Any] = {
        "id": id_text(entry_id),
        "session": session,
        "n": number,
        "ok": ok,
        "node": node,
        "time": utc_text(at),
        "action": event.action,
    }
    optional = {
        "undone": undone,
        "keyring": event.keyring,
        "key_id": None if event.key_id is None else str(event.key_id),
        "actor": actor,
        "keys": list(keys),
        "details": dict(event.details),
    }
    members |= {name: value for name, value in optional.items() if value}
    if epoch is not None:
        members["epoch"] = epoch
    try:
        content = canonical(members).encode()
    except (TypeError, ValueError):
        raise InvalidInputError(f"the details of {event.action} are of a kind that no audit entry can hold") from None
    if len(content) > MAX_ENTRY_BYTES:
        raise InvalidInputError(f"an audit entry has at most {MAX_ENTRY_BYTES} bytes")
    return content


def coder(key: bytes | bytearray, store_id: str) -> Tagger:
    """Return what makes the codes of a session's entries."""
    text = store_id.encode()
    return keyed_tagger(bytes(key), _DOMAIN + len(text).to_bytes(4, "big") + text)


def has_code(make: Tagger, entry: bytes, code: bytes) -> bool:
    """Whether a code is the entry's."""
    return hmac.compare_digest(make(entry), code)


def sealed_payload(entry: bytes, code: bytes) -> bytes:
    """Return the payload of an entry's record."""
    return b'%b%b%b%b"}' % (_BEGIN, entry, _MIDDLE, tag_text(code))


def rejected_payload(reason: str, row_id: bytes, entry: bytes) -> bytes:
    """Return the payload of a record that tells of an entry that was not authentic."""
    row = row_id.hex() if len(row_id) <= ID_SIZE else sha256(row_id).hexdigest()
    told = {"reason": reason, "row": row, "sha256": sha256(entry).hexdigest(), "size": len(entry)}
    return canonical({"rejected": told}).encode()


def split_payload(payload: bytes) -> tuple[bytes, bytes] | None:
    """Return the entry in a record's payload and its code; None where it holds none."""
    end = len(payload) - _TAIL
    if not payload.startswith(_BEGIN) or payload[end : end + len(_MIDDLE)] != _MIDDLE or payload[-2:] != b'"}':
        return None
    code = unbase64(payload[-_TAIL + len(_MIDDLE) : -2].decode("ascii", "replace") + "=")
    return None if code is None else (payload[len(_BEGIN) : end], code)


def rejection_in(payload: bytes) -> Mapping[str, Any] | None:
    """Return what a record says of an entry that was not authentic; None where it says nothing of one."""
    if not payload.startswith(_REJECTED):
        return None
    try:
        told = json.loads(payload)["rejected"]
    except (ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, dict) else None


def require_action(action: str) -> None:
    """Raise ``InvalidInputError`` for an action that an application cannot give to an event of its own."""
    if not isinstance(action, str) or not _ACTION.match(action):
        raise InvalidInputError("an action is a word, a dot and a word, in lower case, such as order.refund")
    if action.partition(".")[0] in OWN_WORDS:
        raise InvalidInputError(f"actions that begin with {', '.join(sorted(OWN_WORDS))} are Keystead's own")


def require_subject(keyring: str | None, key_id: int | None) -> None:
    """Raise ``InvalidInputError`` for a keyring or data key that no store can have."""
    is_name = keyring is None or (isinstance(keyring, str) and keyring.isprintable())
    if not is_name or len(keyring or "") > MAX_KEYRING_CHARS:
        raise InvalidInputError(f"a keyring is a printable text of at most {MAX_KEYRING_CHARS} characters")
    is_number = key_id is None or (isinstance(key_id, int) and not isinstance(key_id, bool))
    if not is_number or (key_id is not None and not 0 < key_id <= MAX_KEY_ID):
        raise InvalidInputError("the id of a data key is a whole number from 1 to 2**63 - 1")


def require_details(value: object, *, depth: int = 0) -> None:
    """Raise ``InvalidInputError`` for what an entry cannot hold."""
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"the details of an audit entry are at most {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        for name, member in value.items():
            if not isinstance(name, str) or not _NAME.match(name):
                raise InvalidInputError("the names of details have 1 to 64 letters, digits, dots, _ and -")
            require_details(member, depth=depth + 1)
    elif isinstance(value, list | tuple):
        for member in value:
            require_details(member, depth=depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("a text among the details has a lone surrogate") from None
    elif value is not None and (not isinstance(value, int) or not -MAX_INTEGER <= value <= MAX_INTEGER):
        raise InvalidInputError("details are text, whole numbers below 2**53, booleans, None, lists and mappings")


def require_size(event: AuditEvent) -> None:
    """Raise ``InvalidInputError`` for an event of which no entry can be made: it would keep others out as well."""
    texts = [canonical(dict(event.details)), event.keyring or ""]
    if sum(len(text.encode()) for text in texts) > MAX_ENTRY_BYTES - _AROUND:
        raise InvalidInputError(f"an audit entry has at most {MAX_ENTRY_BYTES} bytes")


def are_ranges(value: object) -> bool:
    """Whether a value is a list of pairs of whole numbers, the first of each not above the second."""
    return isinstance(value, list) and all(
        isinstance(each, list) and len(each) == 2 and all(map(_is_count, each)) and each[0] <= each[1] for each in value
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
