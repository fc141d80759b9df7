"""The proof that one record is in a log which lies in a table. Spec: docs/spec/log-v1.md."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Final

from keystead.crypto.merkle import inclusion_proof, leaf_hash, verify_inclusion
from keystead.errors import InvalidInputError, InvalidProofError, InvalidSignatureError
from keystead.ledger.audit.exporting import table_tree
from keystead.ledger.format.records import Kind, MalformedRecordError, parse_line, parse_payload, text
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.ledger.tlog.proof import ProofBundle
from keystead.ports import AuditLogRow, KeyStore

_LOOKED: Final = 16
"""How many checkpoints behind a record are looked at: a cut comes before its checkpoint, and few lie between."""


async def prove(store: KeyStore, number: int, kept: MutableMapping[int, bytes]) -> ProofBundle:
    """Return the proof that a record is in the log, with its line, by the first checkpoint over it.

    What is read does not grow with the log: no more than the file that the record is in.

    Args:
        kept: as ``TableTree``. What is kept of another log, as before a backup was put back, is forgotten.

    Raises:
        InvalidInputError: there is no such record, or no checkpoint over it yet.
        InvalidProofError: the records are not what the checkpoint says.
    """
    async with store.reading() as work:
        rows = await work.audit_records(after=number - 1, before=number + 1, limit=1)
        notes = await work.audit_controls(Kind.CHECKPOINT.value, after=number, limit=_LOOKED)
    if not rows:
        raise InvalidInputError(f"the audit trail has no record {number} in this database")
    checkpoint, note = _first_over(number, notes)
    loop, line = asyncio.get_running_loop(), rows[0].line

    def proved() -> ProofBundle:
        tree = table_tree(store, loop, before=checkpoint.size, kept=kept)
        path = inclusion_proof(number, checkpoint.size, tree.subtree)
        verify_inclusion(leaf_hash(line), number, checkpoint.size, path, checkpoint.root)
        return ProofBundle(number, tuple(path), note, line)

    try:
        return await asyncio.to_thread(proved)
    except InvalidProofError:
        kept.clear()
    return await asyncio.to_thread(proved)


def _first_over(number: int, rows: list[AuditLogRow]) -> tuple[Checkpoint, bytes]:
    """Return the first checkpoint over a record, and its note."""
    for row in rows:
        try:
            note = text(parse_payload(parse_line(row.line).payload), "note").encode()
            checkpoint = Checkpoint.parse(Note.parse(note).text)
        except (MalformedRecordError, InvalidSignatureError):
            continue
        if checkpoint.size > number:
            return checkpoint, note
    raise InvalidInputError(
        f"no checkpoint is over record {number} yet: one is made each minute in which there are records, or at once by "
        "`keystead audit checkpoint`; ask again"
    )
