"""The lines of a log, and what its own records say. Spec: docs/spec/log-v1.md, 2 and 5."""

from __future__ import annotations

import base64
import json
import re
from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.ledger.format.tags import TAG_CHARS
from keystead.ledger.tlog.note import unbase64

FORMAT: Final = "keystead-log-v1"
MAX_LINE_BYTES: Final = 4 << 20
MAX_EPOCHS: Final = 1 << 20
"""Epochs of one session; a reader derives no key beyond them for whatever a line says."""
HMAC: Final = "HMAC-SHA256"
CHAIN: Final = "SHA-256"
TAIL_BYTES: Final = len(b',"m":""}') + TAG_CHARS
"""Length of a line's end, from the comma before its tag on."""
LINE_END: Final = 0x0A
NUL: Final = 0x00
"""No record holds either. They are looked for as numbers: as bytes that takes ten times as long."""
_TOO_LARGE: Final = 1 << 63
_LAST_END: Final = MAX_LINE_BYTES - TAIL_BYTES
_HEAD: Final = re.compile(rb'\{"n":(0|[1-9][0-9]{0,18}),"t":(0|[1-9][0-9]{0,15}),(?:"k":"([a-z]{1,16})",)?"d":')
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SESSION_ID: Final = re.compile(r"[0-9a-f]{32}\Z")


class Kind(StrEnum):
    """Records of the log itself."""

    FILE = "file"
    SESSION = "session"
    EPOCH = "epoch"
    CLOCK = "clock"
    CUT = "cut"
    CHECKPOINT = "checkpoint"
    REKEY = "rekey"
    RECOVERY = "recovery"
    RETENTION = "retention"
    CLOSE = "close"


class MalformedRecordError(ValueError):
    """A line or payload is not what the format says; a finding, and never an error outside this room."""


@dataclass(frozen=True, slots=True)
class Record:
    """A line in parts. ``head`` is what its tag covers, ``tag`` the 43 characters."""

    number: int
    time_ms: int
    kind: str | None
    payload: bytes
    head: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """What a log says of a session; see section 5.2."""

    id: str
    algorithm: str
    key: str | None
    epoch: int
    epoch_s: int
    start: int
    steps: int = 0

    @classmethod
    def of(cls, given: object) -> Session:
        """Read the payload of a session.

        Raises:
            MalformedRecordError: it is none.
        """
        members = _members(
            given, id=str, algorithm=str, key=(str, type(None)), epoch=int, epoch_s=int, start=int, steps=int
        )
        made = cls(**members)
        is_keyed = made.algorithm == HMAC and made.key is not None and made.epoch_s > 0
        is_chained = made.algorithm == CHAIN and made.key is None and made.epoch_s == made.epoch == 0
        is_possible = 0 <= made.epoch < MAX_EPOCHS and made.start >= 0 and _SESSION_ID.match(made.id)
        if not is_possible or not (is_keyed or is_chained):
            raise MalformedRecordError("a session cannot be so")
        return made

    def as_dict(self) -> dict[str, Any]:
        """Return the payload."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What the first record of a file says; see section 5.1."""

    stream: str
    file: int
    roots: tuple[bytes, ...]
    tag: bytes
    session: Session

    @classmethod
    def of(cls, given: object) -> FileHeader:
        """Read the payload of a file's first record.

        Raises:
            MalformedRecordError: it is none, or of another format.
        """
        members = _members(given, format=str, stream=str, file=int, roots=list, tag=str, session=dict)
        roots = tuple(_hash(root) for root in members["roots"])
        if members["format"] != FORMAT or members["file"] < 1 or not is_stream_name(members["stream"]):
            raise MalformedRecordError("a file of another format")
        session = Session.of(members["session"])
        return cls(members["stream"], members["file"], roots, _hash(members["tag"]), session)

    @classmethod
    def of_line(cls, line: bytes) -> tuple[Record, FileHeader]:
        """Read the first line of a file: the record, and what it says.

        Raises:
            MalformedRecordError: it is no such record, or of another format.
        """
        record = parse_line(line)
        if record.kind != Kind.FILE:
            raise MalformedRecordError("a record that begins no file")
        return record, cls.of(parse_payload(record.payload))

    def as_dict(self) -> dict[str, Any]:
        """Return the payload."""
        return {
            "format": FORMAT,
            "stream": self.stream,
            "file": self.file,
            "roots": [base64.b64encode(root).decode() for root in self.roots],
            "tag": base64.b64encode(self.tag).decode(),
            "session": self.session.as_dict(),
        }


def parse_line(line: bytes) -> Record:
    """Return a line's parts.

    Raises:
        MalformedRecordError: it is no record.
    """
    found = _HEAD.match(line)
    end = len(line) - TAIL_BYTES
    if found is None or not found.end() < end <= _LAST_END or line[end : end + 6] != b',"m":"' or line[-2:] != b'"}':
        raise MalformedRecordError("not a record")
    if NUL in line:
        raise MalformedRecordError("two halves of records, and between them a page that a disk has lost")
    kind = None if found[3] is None else found[3].decode()
    return Record(int(found[1]), int(found[2]), kind, line[found.end() : end], line[:end], line[-45:-2])


def reads_whole(line: bytes) -> bool:
    """Whether a line that begins as a record ends as one, too: what a crash left of a line does not."""
    return line.startswith(b',"m":"', -TAIL_BYTES) and line.endswith(b'"}') and NUL not in line


def head_of(number: int, time_ms: int, payload: bytes, kind: Kind | None = None) -> bytes:
    """Return what a record's tag covers."""
    if kind is None:
        return b'{"n":%d,"t":%d,"d":%b' % (number, time_ms, payload)
    return b'{"n":%d,"t":%d,"k":"%b","d":%b' % (number, time_ms, kind.value.encode(), payload)


def line_of(head: bytes, tag: bytes) -> bytes:
    """Return a record's line, without its end."""
    return b'%b,"m":"%b"}' % (head, tag_text(tag))


def tag_text(tag: bytes) -> bytes:
    """Return the characters of a tag."""
    return b2a_base64(tag, newline=False)[:TAG_CHARS]


def stated_tag(record: Record) -> bytes | None:
    """Return the tag that a line carries, whoever made it; None where it carries none."""
    return unbase64(record.tag.decode("ascii", "replace") + "=")


def to_payload(value: Mapping[str, Any]) -> bytes:
    """Return the payload of one of the log's own records."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def parse_payload(payload: bytes) -> object:
    """Return the value of one of the log's own records.

    Raises:
        MalformedRecordError: not JSON, or with a member twice.
    """
    try:
        return _DECODER.decode(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedRecordError("a payload that is no JSON object") from None


def integer(given: object, name: str) -> int:
    """Return the one integer member of a payload."""
    return int(_members(given, **{name: int})[name])


def text(given: object, name: str) -> str:
    """Return the one text member of a payload."""
    return str(_members(given, **{name: str})[name])


def recovery(given: object) -> tuple[int, str]:
    """Return how many bytes a crash left, and their hash in hex."""
    members = _members(given, bytes=int, sha256=str)
    return members["bytes"], members["sha256"]


def closing(given: object) -> int | None:
    """Return the number of the file that a stream goes on in, None where it is closed."""
    if given == {}:
        return None
    return integer(given, "next")


def retained(given: object) -> tuple[list[dict[str, int]], str]:
    """Return the files that were removed, and why."""
    members = _members(given, files=list, reason=str)
    return [_members(each, file=int, first=int, last=int) for each in members["files"]], members["reason"]


def is_stream_name(name: str) -> bool:
    """Whether a stream may be called so."""
    return bool(name) and name.isprintable() and len(name.encode("utf-8", "replace")) <= 255


def require_stream_name(name: str) -> None:
    """Raise ``InvalidInputError`` for a name that no stream can have."""
    if not isinstance(name, str) or not is_stream_name(name):
        raise InvalidInputError(
            "a stream's name is text that is not empty, printable and up to 255 bytes, such as example.org/app/audit"
        )


def _members(given: object, **kinds: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or given.keys() != kinds.keys():
        raise MalformedRecordError("a payload with other members")
    for name, kind in kinds.items():
        # A bool is an int to Python, and not to this format.
        if not isinstance(given[name], kind) or isinstance(given[name], bool):
            raise MalformedRecordError("a payload with a member of another type")
        if isinstance(given[name], int) and not -_TOO_LARGE < given[name] < _TOO_LARGE:
            raise MalformedRecordError("a payload with a number beyond all that are counted")
        if isinstance(given[name], str) and _SURROGATE.search(given[name]):
            raise MalformedRecordError("a payload with half a character")
    return given


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRecordError("a payload that has a member twice")
    return members


def _refuse(number: str) -> object:
    raise MalformedRecordError("a payload with a number that is no integer")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse)


def _hash(value: object) -> bytes:
    content = unbase64(value) if isinstance(value, str) else None
    if content is None or len(content) != 32:
        raise MalformedRecordError("a payload whose hash is none")
    return content
