"""An attacker who may write every file of a log, and has no key that seals: what he does to its lines.

He numbers lines anew, makes the beginnings of files fit, and signs checkpoints with a key that he found beside the log.
Tags he can copy and cannot make.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from keystead.crypto.merkle import Frontier, leaf_hash
from keystead.errors import InvalidSignatureError
from keystead.ledger import LocalSigner
from keystead.ledger.format.records import Kind, MalformedRecordError, Record, parse_line, to_payload
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.tlog.checkpoint import Checkpoint, verify_checkpoint
from keystead.ledger.tlog.note import Note

Files = list[list[bytes]]
"""Lines of the files of a log, in their order."""
BETWEEN: Final = "\n\n"
EACH: Final = 4
"""Records of the application in each file."""


def read(path: Path) -> Files:
    return [each.read_bytes().splitlines() for each in [*LogFiles(path).ended().values(), path]]


def put(path: Path, files: Sequence[Sequence[bytes]]) -> None:
    """Write files in place of all that a log has."""
    names = LogFiles(path)
    for ended in names.ended().values():
        ended.unlink()
    targets = [names.name_of(number) for number in range(1, len(files))]
    for target, lines in zip([*targets, path], files or [[]], strict=True):
        target.write_bytes(b"".join(line + b"\n" for line in lines))


def is_own(line: bytes) -> bool:
    """Whether a line is a record of the application."""
    return parse_line(line).kind is None


def places(lines: Sequence[bytes]) -> list[int]:
    """Return where in a file the application's records are."""
    return [place for place, line in enumerate(lines) if is_own(line)]


def with_payload(line: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a line of the log's own with another payload, and the tag it had."""
    record = parse_line(line)
    payload = json.loads(record.payload)
    change(payload)
    return _line(record, record.number, record.time_ms, to_payload(payload))


def of_kind(files: Files, kind: Kind, change: Callable[[bytes], bytes]) -> Files:
    """Change every line of a kind."""
    return [[change(line) if parse_line(line).kind == kind.value else line for line in lines] for lines in files]


def repaired(files: Files, signer: LocalSigner | None = None, *, stream: str) -> Files:
    """Make a log consistent in all that takes no key; and with a signer sign its checkpoints anew."""
    tree, number, time_ms, tag = Frontier(), 0, 0, b"A" * 43
    made: Files = []
    for index, lines in enumerate(files, start=1):
        own: list[bytes] = []
        for line in lines:
            try:
                record = parse_line(line)
            except MalformedRecordError:
                own.append(line)
                continue
            payload = record.payload
            if record.kind == Kind.FILE.value:
                payload = _beginning(payload, index, tree, tag)
            elif record.kind == Kind.CLOSE.value and payload != b"{}":
                payload = b"{}" if index == len(files) else b'{"next":%d}' % (index + 1)
            elif record.kind == Kind.CHECKPOINT.value and signer is not None:
                payload = _signed_anew(payload, Checkpoint(stream, tree.size, tree.root()), signer)
            time_ms, tag = max(time_ms, record.time_ms), record.tag
            own.append(_line(record, number, time_ms, payload))
            tree.append(leaf_hash(own[-1]))
            number += 1
        made.append(own)
    return made


def _signed_anew(payload: bytes, true: Checkpoint, signer: LocalSigner) -> bytes:
    """Sign what is true of the lines now, or, where somebody has forged what a checkpoint says, what it says."""
    note = json.loads(payload)["note"]
    if not isinstance(note, str) or note.endswith("\n\n"):
        return payload
    text = f"{note.partition(BETWEEN)[0]}\n"
    with contextlib.suppress(InvalidSignatureError):
        verify_checkpoint(note.encode(), signer.keys)
        text = true.text()
    return to_payload({"note": Note(text, (signer.sign(text),)).render().decode()})


def _beginning(payload: bytes, index: int, tree: Frontier, tag: bytes) -> bytes:
    header = json.loads(payload)
    if not isinstance(header, dict):
        return payload
    header.update(file=index, roots=[b64encode(root).decode() for root in tree.roots], tag=f"{tag.decode()}=")
    return to_payload(header)


def _line(record: Record, number: int, time_ms: int, payload: bytes) -> bytes:
    kind = b"" if record.kind is None else b'"k":"%b",' % record.kind.encode()
    return b'{"n":%d,"t":%d,%b"d":%b,"m":"%b"}' % (number, time_ms, kind, payload, record.tag)
