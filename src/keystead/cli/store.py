"""``keystead store``: what is done before, and in, the hour of need."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from keystead.access.approvals import Asker, asked_by
from keystead.cli.data import open_source
from keystead.cli.frame import NOT_VERIFIED, Call, command, group
from keystead.cli.render import Outcome
from keystead.cli.targets import STDOUT, open_target
from keystead.errors import InvalidInputError
from keystead.lifecycle.portable import StoreExport
from keystead.lifecycle.restoration import VerifyReport
from keystead.manager import backup
from keystead.manager.consent import account
from keystead.manager.manager import KeyManager
from keystead.model.counts import counted


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "store", "The whole store: export, verify, import, recover.")
    command(noun, "export")(export)
    command(noun, "verify")(verify)
    command(noun, "import")(import_export)
    command(noun, "recover")(recover)


def export(
    call: Call,
    file: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="Where to; stdout if none is named.")
    ] = STDOUT,
) -> Outcome | None:
    """Write every row of the store, wrapped as it is, with a checksum. No key is in it in clear."""
    text = call.run(backup.export_text)
    with open_target(file, is_text=True) as target:
        target.write(text.encode() + b"\n")
    call.run(lambda km: backup.note_export(km, backup.read_export(text)), is_opened=False)
    if file == STDOUT:
        return None
    body = json.loads(text)["store"]
    data = {"output": file, "store_id": body["store_id"], "keyrings": len(body["keyrings"]), "keys": len(body["keys"])}
    told = f"{counted(data['keys'], 'key')} of {counted(data['keyrings'], 'keyring')}"
    return Outcome(data, f"wrote {told} to {file}; keep the KEK elsewhere")


def verify(
    call: Call,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An export; the store itself if none is named.")
    ] = None,
) -> Outcome:
    """Unwrap every key of the store, or of an export, with the KEK of now. Exit code 3 if one does not open."""
    document = None if file is None else _read(file)
    report = call.run(lambda km: backup.verify(km, document), is_opened=document is None)
    opened = report.keys - len(report.failures)
    lines = [f"{opened} of {counted(report.keys, 'key')} open"]
    lines += [f"data key {key_id}: {reason}" for key_id, reason in sorted(report.failures.items())]
    failures = [{"id": key_id, "reason": reason} for key_id, reason in sorted(report.failures.items())]
    return Outcome(
        {"keys": report.keys, "failures": failures}, "\n".join(lines), NOT_VERIFIED if report.failures else 0
    )


def import_export(call: Call, file: Annotated[str, typer.Argument(metavar="FILE", help="An export.")]) -> Outcome:
    """Fill an empty store with an export. It decrypts, and encrypts after `keystead store recover`."""
    document = _read(file)

    async def act(km: KeyManager) -> VerifyReport:
        with asked_by(Asker(account())):
            return await backup.import_export(km, document)

    report = call.run(act, is_opened=False, creates=True)
    told = f"imported {counted(report.keys, 'key')}, to decrypt with; before anything is encrypted run "
    return Outcome(
        {"keys": report.keys, "store_id": document.state.store_id, "restored": True}, f"{told}`keystead store recover`"
    )


def recover(call: Call) -> Outcome:
    """Make a restored store encrypt again: new versions everywhere, and known destructions done again."""
    report = call.run(backup.recover)
    lines = [f"gave {counted(report.rotated, 'keyring')} a new version; the store encrypts again"]
    if report.destroyed_again:
        lines.append(f"destroyed again: {', '.join(map(str, report.destroyed_again))}")
    if report.postponed:
        lines.append(f"destructions put off by at least a week: {', '.join(map(str, report.postponed))}")
    lines += [
        f"gone: data key {key_id} (keyring {keyring!r} version {version}); what it encrypted needs a newer backup"
        for key_id, keyring, version in report.gone
    ]
    data = {
        "rotated": report.rotated,
        "destroyed_again": [str(key_id) for key_id in report.destroyed_again],
        "postponed": [str(key_id) for key_id in report.postponed],
        "gone": [{"id": key_id, "keyring": keyring, "version": version} for key_id, keyring, version in report.gone],
    }
    return Outcome(data, "\n".join(lines))


def _read(path: str) -> StoreExport:
    with open_source(path) as source:
        content = source.read()
    try:
        return backup.read_export(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not a Keystead store export") from None
    except InvalidInputError as exc:
        raise InvalidInputError(f"{path}: {exc}") from None
