"""``keystead audit list``: the entries of the trail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import typer

from keystead.cli.frame import Call, moment_option, say, wrong_usage
from keystead.cli.render import Outcome, exact_moment, plain, printable, table
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.manager.audit_lines import details_text, keyrings_text
from keystead.manager.audit_listing import BOOKKEEPING, MOST_LOOKED, listed
from keystead.manager.audit_record import AuditRecord
from keystead.model import utc_text
from keystead.model.counts import counted
from keystead.ports import AuditFilter

LIMIT: Final = 100
_OWN: Final = "entry by which the trail keeps account of itself is"
_OWNS: Final = "entries by which the trail keeps account of itself are"


def list_entries(
    call: Call,
    *,
    action: Annotated[str | None, typer.Option("--action", metavar="WORD.WORD", help="Of this action only.")] = None,
    keyring: Annotated[str | None, typer.Option("--keyring", metavar="NAME", help="About this keyring only.")] = None,
    key_id: Annotated[str | None, typer.Option("--key-id", metavar="ID", help="About this data key only.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", metavar="TEXT", help="By whose name this is a part of, whatever its case.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="From then on: 2030-01-31, or 7d for a week ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then.")] = None,
    before: Annotated[
        int | None,
        typer.Option("--before", metavar="RECORD", min=0, max=MAX_KEY_ID, help="Only those before this one."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many, the newest.")] = LIMIT,
    everything: Annotated[
        bool, typer.Option("--all", help="Also how the trail keeps account of itself: sessions, sealers, checkpoints.")
    ] = False,
) -> Outcome:
    """List entries that are sealed, the newest last. What is listed is not verified, and looking adds no entry.

    With --json, or where an action is named, nothing is left out. No list goes by actor: 2000 entries are looked
    through for one, and it is told where that ended.
    """
    begun, ended = _moment("--since", since), _moment("--until", until)
    if action is not None and not all(action.partition(".")):
        wrong_usage("--action: an action is a word, a dot and a word, such as key.rotate")
    where = AuditFilter(keyring, action, _data_key(key_id), begun, ended)
    leaves_out = BOOKKEEPING if not (everything or call.is_json or action) else frozenset()
    found = call.run(
        lambda km: listed(km, where, limit=limit, before=before, actor=actor or "", leaves_out=leaves_out),
        is_opened=False,
    )
    if found.is_cut:
        say(f"the newest {counted(limit, 'entry', 'entries')}; --limit shows more, --since and --until choose")
    if found.looked_to is not None:
        last = found.looked_to
        say(f"looked through {MOST_LOOKED} entries, back to record {last}; --before {last} goes on")
    if found.left_out:
        say(f"{counted(found.left_out, _OWN, _OWNS)} left out; --all shows them")
    data = [{**plain(each), "key_id": None if each.key_id is None else str(each.key_id)} for each in found.records]
    if not found.records:
        say("no entry matches")
        return Outcome(data)
    return Outcome(data, table("record", "time", "action", "keyring", "actor", "details", rows=_rows(found.records)))


def _rows(records: Sequence[AuditRecord]) -> list[tuple[object, ...]]:
    return [
        (
            each.seq,
            exact_moment(each.at),
            printable(each.action),
            printable(keyrings_text(each)) or "-",
            printable(each.actor or "-"),
            printable(details_text(each)) or "-",
        )
        for each in records
    ]


def _moment(name: str, text: str | None) -> str | None:
    at: datetime | None = moment_option(name, text)
    return None if at is None else utc_text(at)


def _data_key(text: str | None) -> int | None:
    if text is None:
        return None
    # int() would take signs, underscores and digits of other scripts, too.
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_KEY_ID):
        wrong_usage("--key-id is a number, as `keystead key list` shows it")
    return int(text)
