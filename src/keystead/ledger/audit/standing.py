"""Where a trail's log stands: the state as its code vouches for it, or as the records say where it does not.

Who took the database may have changed either. What is believed here is never hidden: a state without its code, or
beside other records than it is of, is told in the log and in the trail itself, and a lost end stays a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final

from keystead.crypto.merkle import Frontier
from keystead.errors import InvalidInputError, StorageOperationError
from keystead.ledger.audit.chain import TrailState
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.format.records import (
    FileHeader,
    Kind,
    MalformedRecordError,
    closing,
    parse_line,
    parse_payload,
    stated_tag,
)
from keystead.ports import AuditLogRow, AuditStateRow, Random, UnitOfWork

log = logging.getLogger("keystead.audit")

PAGE: Final = 2000
FARTHEST: Final = 2**40
"""A record so far behind the end is none that followed it: decades of a thousand a second lie between."""
_HEADERS: Final = 100


async def standing(
    work: UnitOfWork, row: AuditStateRow | None, keys: StateKeys, store_id: str
) -> tuple[TrailState, str | None]:
    """Return where the log stands, and what was found to be wrong with it: ``altered``, ``behind``, ``ahead``.

    Raises:
        StorageOperationError: neither state nor records say it.
    """
    state = vouched_state(row, keys, store_id)
    size = await size_beside(work, state)
    if state is None:
        log.error("the state of the audit trail is gone, or not authentic; it is taken from the records")
        return await _kept(work, await _from_records(work)), "altered"
    if size > state.size:
        log.error("the state of the audit trail is behind its records", extra={"size": size, "state": state.size})
        return await _kept(work, await _extended(work, state)), "behind"
    if size < state.size:
        # Going on at the records' end would make what was cut off look as if it had never been there.
        log.error("records at the end of the audit trail are gone", extra={"size": size, "state": state.size})
        return state, "ahead"
    return state, None


async def size_beside(work: UnitOfWork, state: TrailState | None) -> int:
    """Return the number after the last record, as far as records are those that the state is of, or follow them."""
    return await work.audit_size(before=(0 if state is None else state.size) + FARTHEST)


def vouched_state(row: AuditStateRow | None, keys: StateKeys, store_id: str) -> TrailState | None:
    """Return the state in a row; None where its code is another one, or it is none, or there is no row."""
    if row is None:
        return None
    key = keys.find(row.key_id)
    try:
        state = TrailState.parse(row.state)
    except (ValueError, TypeError):
        return None
    is_whole = state.content() == row.state and state.size == row.size
    if key is None or not is_whole or state.code(key, store_id) != row.code:
        return None
    return state


def new_stream(store_id: str, random: Random) -> str:
    """Return a name for a log of a store's trail."""
    return f"keystead/audit/{store_id}/{random(4).hex()}"


def first_state(
    keys: StateKeys, store_id: str, stream: str, *, since: int = 0, over: int | None = None
) -> AuditStateRow:
    """Return the state of a log that has no records yet.

    Args:
        since, over: the epochs at which its trail begins, and was ended; without either it has yet to begin.

    Raises:
        KMSError: the keyring that vouches for states cannot be used now.
    """
    key_id, key = keys.active()
    state = TrailState(stream, since=since, over=over)
    return AuditStateRow(0, state.content(), state.code(key, store_id), key_id)


async def _kept(work: UnitOfWork, state: TrailState) -> TrailState:
    """Return a state that nobody vouches for as one of a trail that is kept: what was said before does not end it."""
    return replace(state, since=(await work.state()).epoch, over=None)


async def _from_records(work: UnitOfWork) -> TrailState:
    headers = await work.audit_controls(Kind.FILE.value, newest_first=True, limit=_HEADERS)
    if not headers:
        raise StorageOperationError(
            "the audit trail has neither a state nor records: restore the store's tables, or begin a trail anew with "
            "`keystead audit begin`"
        )
    states = (_at_header(row) for row in headers)
    state = next((state for state in states if state is not None), None)
    if state is None:
        raise StorageOperationError(
            "the audit trail has no state, and the last files of its records do not begin as one does: restore the "
            "store's tables from a backup"
        )
    return await _extended(work, state)


def _at_header(row: AuditLogRow) -> TrailState | None:
    """Return the state before the record that begins a file; None where it does not, or where no log can have come."""
    try:
        record, header = FileHeader.of_line(row.line)
        Frontier(record.number, header.roots)
    except (MalformedRecordError, InvalidInputError):
        return None
    if record.number != row.seq or row.seq > FARTHEST:
        return None
    return TrailState(header.stream, record.number, header.roots, header.tag)


async def _extended(work: UnitOfWork, state: TrailState) -> TrailState:
    """Return the state after the records that follow it, as far as they read as records."""
    while page := await _page(work, state.size):
        following = _after(state, [row.line for row in page])
        if following.size - state.size < len(page):
            log.error("what follows in the audit trail is no record", extra={"seq": following.size})
            # What stands there keeps its number: what is sealed from now on comes behind all of it.
            last = page[-1].seq + 1
            while page := await _page(work, last):
                last = page[-1].seq + 1
            return _behind(following, last)
        state = following
    return state


async def _page(work: UnitOfWork, size: int) -> list[AuditLogRow]:
    return await work.audit_records(after=size - 1, before=size + FARTHEST, limit=PAGE)


def _after(state: TrailState, lines: Sequence[bytes]) -> TrailState:
    tree = Frontier(state.size, state.roots)
    for line in lines:
        try:
            record = parse_line(line)
            tag = stated_tag(record)
            if record.number != tree.size or tag is None:
                break
            state = _with(state, record.kind, record.number, record.time_ms, record.payload)
        except MalformedRecordError:
            break
        tree.append(sha256(b"\x00" + line).digest())
        state = replace(state, size=tree.size, tag=tag, time=max(state.time, record.time_ms))
    return replace(state, roots=tree.roots)


def _with(state: TrailState, kind: str | None, number: int, time_ms: int, payload: bytes) -> TrailState:
    if kind == Kind.FILE:
        file = FileHeader.of(parse_payload(payload)).file
        return replace(state, file=file, first=number, begun=time_ms, ends=None)
    if kind == Kind.CLOSE:
        return replace(state, ends=closing(parse_payload(payload)) or 0)
    return state if kind == Kind.CHECKPOINT else replace(state, ends=None)


def _behind(state: TrailState, size: int) -> TrailState:
    """Return a state of ``size`` records of which the last ones are unknown: what follows is found not to fit them."""
    tree = Frontier(state.size, state.roots)
    tree.pad(bytes(32), size - state.size)
    return replace(state, size=size, roots=tree.roots)


__all__ = ["first_state", "new_stream", "size_beside", "standing", "vouched_state"]
