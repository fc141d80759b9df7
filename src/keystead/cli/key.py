"""``keystead key``: data keys over their lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Final

import typer

from keystead.cli import key_uses
from keystead.cli.frame import Call, ask_for, command, duration_option, group, say, wrong_usage
from keystead.cli.render import Outcome, moment, pairs, table
from keystead.lifecycle.destruction import DEFAULT_WAIT
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyInfo, DataKeyState
from keystead.model.counts import counted

LISTED: Final = 250

Reference = Annotated[str, typer.Argument(metavar="KEY", help="A data key: its id, or keyring/version.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "key", "Data keys: list, rotate, take out of use.")
    command(noun, "create")(create)
    command(noun, "list")(list_keys)
    command(noun, "show")(show)
    command(noun, "rotate")(rotate)
    command(noun, "rotate-index")(rotate_index)
    command(noun, "rewrap")(rewrap)
    command(noun, "disable")(disable)
    command(noun, "enable")(enable)
    command(noun, "destroy")(destroy)
    command(noun, "cancel-destroy")(cancel_destroy)
    key_uses.register(noun)


def create(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="KEYRING", help="Its name; never that of a person.")],
    files: Annotated[bool, typer.Option("--files", help="For files of any size instead of messages.")] = False,
) -> Outcome:
    """Make a keyring of its own, with a first data key."""
    key = call.run(lambda km: admin.create_keyring(km, name, is_for_files=files), creates=True)
    return _answer(key, f"made keyring {name!r} with data key {key.id}")


def list_keys(
    call: Call,
    keyring: Annotated[str | None, typer.Option("--keyring", metavar="NAME", help="Only this one's.")] = None,
    state: Annotated[list[DataKeyState] | None, typer.Option("--state", help="Only these; may be repeated.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many are shown.")] = LISTED,
    everything: Annotated[bool, typer.Option("--all", help="Show all of them.")] = False,
) -> Outcome:
    """List data keys by keyring and version."""
    most = None if everything else limit
    page = call.run(lambda km: admin.list_keys(km, keyring=keyring, states=state, limit=most))
    rows = [
        (key.keyring, key.version, key.state.value, key.id, moment(key.created_at), moment(_rotates(key)))
        for key in page.keys
    ]
    if len(rows) < page.total:
        say(f"{len(rows)} of {page.total} keys; --all shows every one, --keyring and --state choose")
    shown = table("keyring", "version", "state", "id", "created", "rotates", rows=rows) if rows else "no keys"
    return Outcome({"keys": page.keys, "total": page.total, "is_complete": len(rows) == page.total}, shown)


def show(call: Call, key: Reference) -> Outcome:
    """Tell everything about one data key but the key."""
    info = call.run(lambda km: admin.find_key(km, key))
    wrapping = f"WRAP key {info.wrapped_by}"
    if info.wrapped_by is None:
        wrapping = f"{info.kek_provider}:{info.kek_key_id} version {info.kek_version or '-'}"
    lines = [
        ("id", info.id),
        ("keyring", info.keyring),
        ("version", info.version),
        ("state", info.state.value),
        ("algorithm", info.algorithm),
        ("wrapped by", "nothing, it is destroyed" if info.state is DataKeyState.DESTROYED else wrapping),
        ("created", moment(info.created_at)),
        ("active since", moment(info.activated_at)),
        ("rotates", moment(_rotates(info))),
        ("expires", moment(info.expires_at)),
        ("destroyed on", moment(info.destroy_after)),
        ("used for", f"{counted(info.messages, 'message')}, {counted(info.bytes, 'byte')}"),
    ]
    if info.legacy_version:
        lines.append(("legacy version", info.legacy_version))
    return Outcome(info, pairs([line for line in lines if line[1] != "-"]))


def rotate(
    call: Call,
    keyring: Annotated[
        str | None, typer.Argument(metavar="KEYRING", help="Which; the default one if none is named.")
    ] = None,
    promote: Annotated[
        str,
        typer.Option("--promote", metavar="auto|now", help="now: do not wait until running processes have loaded it."),
    ] = "auto",
    min_age: Annotated[
        str | None, typer.Option("--min-age", metavar="30d", help="Do nothing if the active version is younger.")
    ] = None,
) -> Outcome:
    """Give a keyring a new version; what was encrypted before stays readable."""
    if promote not in ("auto", "now"):
        wrong_usage("--promote is auto or now")
    age = duration_option("--min-age", min_age)
    key = call.run(
        lambda km: admin.rotate_keyring(km, keyring or km.default.name, promote=promote, min_age=age, may_prove=True)
    )
    told = f"version {key.version} of keyring {key.keyring!r} is {key.state}"
    if key.state is DataKeyState.PRE_ACTIVE:
        told += "; it becomes active when every running process has loaded it (--promote now does not wait)"
    return _answer(key, told)


def rotate_index(
    call: Call,
    keyring: Annotated[str, typer.Argument(metavar="KEYRING", help="Which keyring of index keys.")] = "index",
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up one that has begun and not ended; the old key stays.")
    ] = False,
) -> Outcome:
    """Begin to replace an index key. Re-encrypting every registered field of the keyring ends it."""
    if abandon:
        key = call.run(lambda km: admin.abandon_index_rotation(km, keyring))
        return _answer(key, f"version {key.version} of keyring {keyring!r} is disabled; the one before stays active")
    key, left = call.run(lambda km: admin.rotate_index_key(km, keyring))
    told = f"version {key.version} of keyring {keyring!r} is {key.state}"
    return _answer(key, told + f"; it becomes active when these fields have been re-encrypted: {', '.join(left)}")


def rewrap(
    call: Call,
    rotate_kek: Annotated[
        bool,
        typer.Option(
            "--rotate-kek",
            help="Have the KMS make a new version of the KEK first. AWS allows this 25 times in a key's whole life.",
        ),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep-wrap-key", help="Make no new WRAP key first.")] = False,
) -> Outcome:
    """Wrap every key again under the KEK of now; no data is touched. May be stopped and run again.

    Where several KEKs wrap the same keys, this adds the wraps that are missing and drops those of former KEKs.
    """
    report = call.run(lambda km: admin.rewrap(km, new_kek_version=rotate_kek, new_wrap_key=not keep))
    told = f"moved {counted(report.data_keys, 'data key')} and {counted(report.wrap_keys, 'WRAP key')}"
    if report.skipped:
        told += f"; {report.skipped} changed meanwhile: run it again"
    return Outcome(report, told)


def disable(call: Call, key: Reference) -> Outcome:
    """Stop a version that is not active from decrypting, until it is enabled."""
    info = _change(call, key, admin.disable_key)
    return _answer(info, f"data key {info.id} is disabled; `keystead key enable {info.id}` undoes it")


def enable(call: Call, key: Reference) -> Outcome:
    """Let a disabled version decrypt again."""
    info = _change(call, key, admin.enable_key)
    return _answer(info, f"data key {info.id} decrypts again")


def destroy(
    call: Call,
    key: Reference,
    after: Annotated[str | None, typer.Option("--after", metavar="30d", help="How long to wait: 7d to 30d.")] = None,
    no_sources: Annotated[
        bool, typer.Option("--no-sources", help="No data source is declared, and nothing is encrypted under it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Outcome:
    """Schedule a version's destruction: whatever is still encrypted under it is then lost for ever.

    Every data source declared with `keystead key uses add` is searched, now and again when the time has come.
    """
    wait = duration_option("--after", after) or DEFAULT_WAIT

    async def run(km: KeyManager) -> DataKeyInfo:
        info = await admin.find_key(km, key)
        if not yes:
            _ask_for(info)
        return await admin.schedule_destroy(km, info.id, wait=wait, without_sources=no_sources)

    info = call.run(run, asks=True)
    told = f"data key {info.id} is destroyed after {moment(info.destroy_after)}; until then "
    return _answer(info, told + f"`keystead key cancel-destroy {info.id}` calls it off")


def cancel_destroy(call: Call, key: Reference) -> Outcome:
    """Call a scheduled destruction off; the version is disabled afterwards."""
    info = _change(call, key, admin.cancel_destroy)
    return _answer(info, f"data key {info.id} stays, disabled; `keystead key enable {info.id}` lets it decrypt")


def _rotates(key: DataKeyInfo) -> datetime | None:
    """Return when a version is replaced, None for one that was already, or is not active yet."""
    return key.rotate_after if key.is_active else None


def _change(call: Call, reference: str, action: Callable[[KeyManager, int], Awaitable[DataKeyInfo]]) -> DataKeyInfo:
    async def run(km: KeyManager) -> DataKeyInfo:
        return await action(km, (await admin.find_key(km, reference)).id)

    return call.run(run)


def _ask_for(info: DataKeyInfo) -> None:
    """Have the key's id typed again."""
    say(f"Destroying version {info.version} of keyring {info.keyring!r} cannot be undone once it has happened.")
    ask_for("the key's id", str(info.id))


def _answer(info: DataKeyInfo, told: str) -> Outcome:
    return Outcome(info, told)
