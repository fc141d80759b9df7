"""``keystead audit``: the audit trail of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from keystead.cli.audit_files import archive, checkpoint, export, policy
from keystead.cli.audit_verify import verify
from keystead.cli.frame import Call, command, group, moment_option, say, wrong_usage
from keystead.cli.render import Outcome, pairs, plain, table
from keystead.config.durations import duration_text, parse_duration
from keystead.manager.audit import AuditRecord
from keystead.manager.audit_status import AuditStatus
from keystead.manager.manager import KeyManager
from keystead.model import utc_text

LIMIT: Final = 100
_TOO_LARGE: Final = 1 << 63


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "audit", "The audit trail: begin, list, verify, checkpoint, archive.")
    command(noun, "begin")(begin)
    command(noun, "status")(status)
    command(noun, "list")(list_entries)
    command(noun, "verify")(verify)
    command(noun, "checkpoint")(checkpoint)
    command(noun, "policy")(policy)
    command(noun, "export")(export)
    command(noun, "archive")(archive)
    command(noun, "end")(end)


def begin(call: Call) -> Outcome:
    """Begin an audit trail. From now on every process that uses this store writes into it; older releases refuse."""

    async def run(km: KeyManager) -> tuple[AuditStatus, AuditStatus]:
        before = await km.audit.status()
        await km.audit.begin()
        await km.audit.checkpoint()
        return before, await km.audit.status()

    before, found = call.run(run)
    if before.is_on and before.stream == found.stream:
        return Outcome(found, f"this store keeps the audit trail {found.stream} already")
    told = f"the audit trail {found.stream} has begun; keep elsewhere what `keystead audit checkpoint FILE` and "
    return Outcome(found, f"{told}`keystead audit policy FILE` write")


def status(call: Call) -> Outcome:
    """Tell how the trail stands: what waits to be sealed, and the last checkpoint. Nothing is verified."""
    found = call.run(lambda km: km.audit.status())
    if found.stream is None:
        return Outcome(found, "this store keeps no audit trail; `keystead audit begin` begins one")
    lines: list[tuple[str, object]] = [
        ("trail", found.stream if found.is_on else f"{found.stream}, ended"),
        ("records", found.records),
        ("waiting", f"{found.waiting}{_age(', the oldest for', found.oldest_waiting_s)}"),
        ("sealed by", found.sealed_by or "nobody"),
        ("checkpoint", f"over {found.checkpoint_records} records{_age(',', found.checkpoint_age_s, ' ago')}"),
        ("exported", f"{found.exported_records} records{_age(',', found.exported_age_s, ' ago')}"),
    ]
    if found.rejected:
        lines.append(("REJECTED", f"{found.rejected} entries were not authentic: `keystead audit verify` tells them"))
    if found.found is not None:
        lines.append(
            ("FOUND", f"{found.found} (record {found.found_in}): `keystead audit verify` tells what that means")
        )
    return Outcome(found, pairs(lines))


def list_entries(
    call: Call,
    *,
    action: Annotated[str | None, typer.Option("--action", metavar="WORD.WORD", help="Of this action only.")] = None,
    keyring: Annotated[str | None, typer.Option("--keyring", metavar="NAME", help="About this keyring only.")] = None,
    key_id: Annotated[str | None, typer.Option("--key-id", metavar="ID", help="About this data key only.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="From then on: 2030-01-31, or 7d for a week ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many, the newest.")] = LIMIT,
) -> Outcome:
    """List entries that are sealed, the newest last. What is listed is not verified."""
    begun, ended = moment_option("--since", since), moment_option("--until", until)
    if action is not None and not all(action.partition(".")):
        wrong_usage("--action: an action is a word, a dot and a word, such as key.rotate")
    number = _data_key(key_id)

    async def run(km: KeyManager) -> list[AuditRecord]:
        found = await km.audit.entries(
            action=action, keyring=keyring, key_id=number, since=begun, until=ended, newest_first=True, limit=limit
        )
        return found[::-1]

    found = call.run(run)
    rows = [
        (each.seq, _when(each.at), each.action, each.keyring or "-", each.actor or "-", _what(each)) for each in found
    ]
    data = [{**plain(each), "key_id": None if each.key_id is None else str(each.key_id)} for each in found]
    if not found:
        say("no entry matches")
        return Outcome(data)
    return Outcome(data, table("record", "time", "action", "keyring", "actor", "details", rows=rows))


def end(
    call: Call,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The last thing that is written.")],
) -> Outcome:
    """End the trail: processes that start from now on take no part, unless they are told to."""
    if not reason.strip():
        wrong_usage("--reason says why the audit trail ends")
    call.run(lambda km: km.audit.end(reason))
    return Outcome({"ended": True}, "the audit trail has ended; what changes from now on is not in it")


def _data_key(text: str | None) -> int | None:
    if text is None:
        return None
    # int() would take signs, underscores and digits of other scripts, too.
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < _TOO_LARGE):
        wrong_usage("--key-id is a number, as `keystead key list` shows it")
    return int(text)


def _age(word: str, age_s: float | None, after: str = "") -> str:
    return "" if age_s is None else f"{word} {duration_text(parse_duration(round(age_s)))}{after}"


def _when(at: datetime | None) -> str:
    return "-" if at is None else utc_text(at.astimezone(UTC))[:19] + "Z"


def _what(record: AuditRecord) -> str:
    if record.rejected is not None:
        return f"NOT authentic: {record.rejected}"
    keys = [f"version {key.get('version')} {key.get('state')}" for key in record.keys if isinstance(key, Mapping)]
    return "; ".join([*keys, *([_short(record.details)] if record.details else [])]) or "-"


def _short(details: Mapping[str, Any]) -> str:
    text = json.dumps(details, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:117]}..."
