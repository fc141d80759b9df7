"""``keystead audit show`` and ``prove``: one record of the trail, and the proof that it is in it."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.frame import Call
from keystead.cli.log.prove import Output, written
from keystead.cli.render import Outcome, exact_moment, pairs, printable
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.manager.audit_listing import sealed_at

Record = Annotated[
    int, typer.Argument(metavar="RECORD", min=0, max=MAX_KEY_ID, help="The record's number, as `list` shows it.")
]


def show(call: Call, record: Record) -> Outcome:
    """Show a record whole, an entry or one of the log's own. It is not verified, and looking adds no entry."""
    found = call.run(lambda km: sealed_at(km, record), is_opened=False)
    data = {"record": found.seq, "sealed_at": found.sealed_at, "kind": found.kind, "text": found.text}
    told = [("record", found.seq), ("sealed", exact_moment(found.sealed_at)), ("kind", found.kind or "entry")]
    return Outcome(data, f"{pairs(told)}\n{printable(found.text)}")


def prove(call: Call, record: Record, *, output: Output = None) -> Outcome | None:
    """Write the proof that one record is in the trail: nobody needs the database, or a key, to check it.

    The record stands in the proof, which `keystead audit verify-proof` checks by a policy that was kept elsewhere. It
    takes a checkpoint over the record. Exit codes: 0 done; 1 failed, for instance since there is none yet; 3 the trail
    is not what its checkpoint says.
    """
    bundle = call.run(lambda km: km.audit.prove(record))
    content = bundle.render()
    data = {"index": bundle.index, "hashes": len(bundle.hashes), "proof": content.decode(), "output": output}
    return written(call, content, output, data)
