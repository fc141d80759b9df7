"""The log of a trail as files: copied out of the table, or moved out of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import secrets
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import Frontier, leaf_hash
from keystead.errors import InvalidInputError, InvalidProofError, StorageOperationError
from keystead.ledger.audit.beginning import write_event, write_keys
from keystead.ledger.audit.retiring import SETTLED_MS, Retired, horizon_from
from keystead.ledger.audit.sessions import SLACK_MS
from keystead.ledger.audit.trail import Trail, Written
from keystead.ledger.audit.verifying import AuditReport
from keystead.ledger.format.records import FileHeader, Kind, MalformedRecordError, parse_line, parse_payload, retained
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.verifier import header_of
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.model import utc_of, utc_text
from keystead.model.counts import counted
from keystead.ports import AuditFilter, AuditLogRow, KeyStore, UnitOfWork
from keystead.runtime.files import sync_folder

NAME: Final = "audit.log"
PAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class LogPart:
    """One file of the log in the table: its number, and those of its first and last record."""

    file: int
    first: int
    last: int


@dataclass(slots=True)
class ArchiveReport:
    """What was moved out of the database: the files, and how many records were in them.

    ``horizon``: sessions that began before it are over; milliseconds since 1970.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    records: int = 0
    parts: list[LogPart] = field(default_factory=list)
    former: list[LogPart] = field(default_factory=list)
    horizon: int = 0


def archived(folder: Path) -> list[Path]:
    """Return the files of a log in a folder, in their order.

    Raises:
        InvalidInputError: there is none.
    """
    headers = [(header.file, path) for path in sorted(folder.glob(f"{NAME}*")) if (header := header_of(path))]
    if not headers:
        raise InvalidInputError(f"{folder} holds no file of an audit trail")
    return [path for _, path in sorted(headers)]


async def export(store: KeyStore, folder: Path) -> list[Path]:
    """Copy the log into files; the last one is what is still written. Of a file that is there it says more, or as much.

    Raises:
        StorageOperationError: they cannot be written, or others are there: nothing was written over them.
    """
    parts = await _parts(store)
    await _require_beginning(store, parts, folder / NAME)
    made: list[Path] = []
    for part in parts:
        is_last = part is parts[-1]
        path = folder / NAME if is_last else LogFiles(folder / NAME).name_of(part.file)
        await _write(store, part, path, compress=False)
        made.append(path)
    return made


async def take(
    store: KeyStore, folder: Path, before: datetime, *, now: datetime, compress: bool, report: AuditReport
) -> ArchiveReport:
    """Write the files of the log that ended before a time, and say which: nothing is removed yet.

    Those of which a session may still have entries to come stay, or what comes twice could not be told from it.

    Raises:
        InvalidProofError: the log is not as it was written, or what was written is not the log that was verified.
        StorageOperationError: they cannot be written, or others are there: nothing was written over them.
    """
    if not report.valid:
        raise InvalidProofError(
            f"the audit trail is not as it was written ({counted(report.log.findings, 'finding')}): nothing was moved; "
            "`keystead audit verify` tells them"
        )
    taken = ArchiveReport(folder)
    checkpoint = report.log.checkpoint
    settled_ms = min(_ms(now) - SETTLED_MS, report.waits_from)
    ended = await _ended(store, before, 0 if checkpoint is None else checkpoint.size)
    parts, taken.horizon = await _settled(store, ended, settled_ms)
    for part in parts:
        path = LogFiles(folder / NAME).name_of(part.file)
        if compress:
            path = path.with_name(f"{path.name}.gz")
        await _write(store, part, path, compress=compress)
        taken.files.append(path)
        taken.parts.append(part)
        taken.records += part.last - part.first + 1
    if taken.parts and checkpoint is not None:
        await _require_verified(store, taken, checkpoint)
        # Said again: what says it may itself be moved away now.
        taken.former = await _removed(store)
    return taken


async def tell(trail: Trail, work: UnitOfWork, taken: ArchiveReport) -> list[Written]:
    """Ask for a word in the log of what was moved, and write what the rest of the log begins with."""
    known = {part.file for part in taken.parts}
    parts = [*(part for part in taken.former if part.file not in known), *taken.parts]
    files = [asdict(part) for part in sorted(parts, key=lambda one: one.file)]
    told = Retired(files, f"archived on {datetime.now(UTC):%Y-%m-%d}", taken.horizon)
    written = await write_keys(trail, work, "audit.snapshot")
    written.append(await write_event(trail, work, told.event()))
    return written


async def drop(store: KeyStore, taken: ArchiveReport) -> None:
    """Delete the records that were moved.

    Raises:
        StorageOperationError: the database role must not.
    """
    async with store.transaction() as work:
        await work.drop_audit_records(taken.parts[-1].last + 1)


async def _parts(store: KeyStore) -> list[LogPart]:
    async with store.reading() as work:
        headers: list[AuditLogRow] = await work.audit_controls(Kind.FILE.value, limit=100_000)
        size = await work.audit_size()
    parts: list[LogPart] = []
    for row, following in zip(headers, [*(each.seq for each in headers[1:]), size], strict=True):
        try:
            _, header = FileHeader.of_line(row.line)
        except MalformedRecordError:
            raise InvalidProofError(f"record {row.seq} of the audit trail begins no file; verify the trail") from None
        parts.append(LogPart(header.file, row.seq, following - 1))
    return parts


async def _ended(store: KeyStore, before: datetime, vouched: int) -> list[tuple[LogPart, int]]:
    """Return the files that ended before a time and are vouched for, each with the TIME at which the next begins."""
    found: list[tuple[LogPart, int]] = []
    for part, following in pairwise(await _parts(store)):
        if part.last >= vouched or await _time_ms(store, part.last) >= _ms(before):
            break
        found.append((part, await _time_ms(store, following.first)))
    return found


async def _settled(
    store: KeyStore, ended: Sequence[tuple[LogPart, int]], settled_ms: float
) -> tuple[list[LogPart], int]:
    """Return as many files as are of sessions only that began before a time, and the horizon behind which those lie."""
    count = horizon = 0
    for at, (part, following_ms) in enumerate(ended, 1):
        if (limit := horizon_from(following_ms)) > settled_ms:
            break
        # A session is no younger than its entries; of a clock that is far ahead more has to go by.
        late = AuditFilter(since=utc_text(utc_of(limit - SLACK_MS)))
        async with store.reading() as work:
            rows = await work.audit_records(after=ended[0][0].first - 1, before=part.last + 1, where=late, limit=1)
        if not rows:
            count, horizon = at, limit
    return [part for part, _ in ended[:count]], horizon


async def _time_ms(store: KeyStore, number: int) -> int:
    async with store.reading() as work:
        [row] = await work.audit_records(after=number - 1, before=number + 1)
    return parse_line(row.line).time_ms


def _ms(time: datetime) -> float:
    return time.timestamp() * 1000


async def _removed(store: KeyStore) -> list[LogPart]:
    async with store.reading() as work:
        rows = await work.audit_controls(Kind.RETENTION.value, limit=100_000)
    found: dict[int, LogPart] = {}
    for row in rows:
        files, _ = retained(parse_payload(parse_line(row.line).payload))
        found |= {each["file"]: LogPart(**each) for each in files}
    return list(found.values())


async def _write(store: KeyStore, part: LogPart, path: Path, *, compress: bool) -> None:
    """Write a file whole, read it again, and only then give it its name; on disk when this returns."""
    # Of a name of its own: a process of another container may have the same number.
    staged = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    digest = sha256()
    try:
        await asyncio.to_thread(staged.parent.mkdir, parents=True, exist_ok=True)
        file = gzip.GzipFile(staged, "wb", mtime=0) if compress else staged.open("wb")
        with file:
            async for lines in _pages(store, part):
                content = b"".join(line + b"\n" for line in lines)
                digest.update(content)
                await asyncio.to_thread(file.write, content)
        await asyncio.to_thread(_settle, staged, path, digest.digest(), compress=compress)
    except OSError as exc:
        raise StorageOperationError(f"{path} cannot be written: {exc.strerror or type(exc).__name__}") from None
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


async def _require_verified(store: KeyStore, taken: ArchiveReport, checkpoint: Checkpoint) -> None:
    """Compare what was written, as it reads now, and what follows it in the table with what was verified."""
    first = header_of(taken.files[0])
    tree = Frontier() if first is None else Frontier(taken.parts[0].first, first.roots)
    for path in taken.files:
        await asyncio.to_thread(_extend, tree, path)
    rest = LogPart(0, taken.parts[-1].last + 1, checkpoint.size - 1)
    async for lines in _pages(store, rest):
        tree.extend([leaf_hash(line) for line in lines])
    if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
        raise InvalidProofError(
            f"what was written to {taken.folder} is not the log that was verified: nothing was deleted; verify the "
            "trail, and remove those files"
        )


def _extend(tree: Frontier, path: Path) -> None:
    for batch in LogFile(path).batches():
        tree.extend([leaf_hash(line) for line in batch.lines])


async def _require_beginning(store: KeyStore, parts: Sequence[LogPart], path: Path) -> None:
    """Refuse a copy of the file that is written, if what it says is not in the log any more."""
    if not await asyncio.to_thread(path.exists):
        return
    header = await asyncio.to_thread(header_of, path)
    part = next((each for each in parts if header is not None and each.file == header.file), None)
    if part is None:
        raise _occupied(path)
    with path.open("rb") as file:
        async for lines in _pages(store, part):
            content = b"".join(line + b"\n" for line in lines)
            found = await asyncio.to_thread(file.read, len(content))
            if not content.startswith(found):
                raise _occupied(path)
        if await asyncio.to_thread(file.read, 1):
            raise _occupied(path)


def _occupied(path: Path) -> StorageOperationError:
    return StorageOperationError(
        f"{path} is there with other records than the trail has in its place, and was not written over: name another "
        "folder, or move that file away"
    )


async def _pages(store: KeyStore, part: LogPart) -> AsyncIterator[Sequence[bytes]]:
    after = part.first - 1
    while after < part.last:
        async with store.reading() as work:
            rows = await work.audit_records(after=after, before=part.last + 1, limit=PAGE)
        if not rows:
            raise InvalidProofError(f"record {after + 1} of the audit trail is not there; verify the trail")
        yield [row.line for row in rows]
        after = rows[-1].seq


def _settle(staged: Path, path: Path, digest: bytes, *, compress: bool) -> None:
    with staged.open("rb") as raw:
        os.fsync(raw.fileno())
    if _digest(staged, compress=compress) != digest:
        raise OSError("what was written does not read as it was")
    if path.name != NAME:
        plain = path.with_name(path.name.removesuffix(".gz"))
        for there in (plain, plain.with_name(f"{plain.name}.gz")):
            if there.exists() and not _is_of(there, digest):
                raise _occupied(there)
    os.replace(staged, path)
    sync_folder(path.parent)


def _digest(path: Path, *, compress: bool) -> bytes:
    found = sha256()
    with gzip.open(path, "rb") if compress else path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.digest()


def _is_of(path: Path, digest: bytes) -> bool:
    try:
        return _digest(path, compress=path.suffix == ".gz") == digest
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
