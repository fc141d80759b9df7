"""``keystead subject``: people whose keys can be destroyed, and the receipts of that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.frame import Call, ask_for, command, group, say, wrong_usage
from keystead.cli.render import Outcome, pairs, table
from keystead.cli.targets import open_target
from keystead.erasure.receipts import Erasure, ErasureReceipt
from keystead.manager.manager import KeyManager

_LARGEST_RECEIPT = 1 << 20
Output = Annotated[
    str | None, typer.Option("-o", "--output", metavar="FILE", help="Where the receipt goes; else it is shown.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "subject", "People and other subjects: forget, verify receipts.")
    command(noun, "forget")(forget)
    command(noun, "erasures")(erasures)
    command(noun, "receipt")(receipt)
    command(noun, "receipt-keys")(receipt_keys)
    command(noun, "verify-receipt")(verify_receipt)


def forget(
    call: Call,
    *,
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="The name that was encrypted under; `-` reads it from stdin.")
    ],
    output: Output = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Outcome:
    """Destroy the keys of a subject, in every process and for good, and give a signed receipt.

    What was encrypted under them cannot be read again, whatever backup of the store is put back.
    """
    name = sys.stdin.readline().rstrip("\n") if subject == "-" else subject
    if not yes:
        say("What is encrypted under the keys of this subject is lost for good, and no backup brings it back.")
        ask_for("what is to be done", "forget")

    async def act(km: KeyManager) -> ErasureReceipt:
        return await km.forget(name)

    return _give(call.run(act, asks=True), output)


def erasures(call: Call) -> Outcome:
    """List what the log of erasures has: keyrings by their random names. It names nobody."""

    async def act(km: KeyManager) -> list[Erasure]:
        return await km.erasures()

    found = call.run(act)
    rows = [(each.line, each.time, each.keyring, len(each.keys)) for each in found]
    listed = [{"line": each.line, "time": each.time, "keyring": each.keyring, "keys": each.keys} for each in found]
    return Outcome({"erasures": listed}, table("line", "time", "keyring", "keys", rows=rows) if rows else "no erasures")


def receipt(
    call: Call,
    keyring: Annotated[str, typer.Argument(metavar="KEYRING", help="The keyring that was erased.")],
    output: Output = None,
) -> Outcome:
    """Give a receipt of an erasure again, by the keyring's random name, which `erasures` and the audit trail have."""

    async def act(km: KeyManager) -> ErasureReceipt:
        return await km.erasure_receipt(keyring)

    return _give(call.run(act), output)


def receipt_keys(call: Call) -> Outcome:
    """Show the public keys that receipts are verified by, the one that signs now first. Give them to auditors."""

    async def act(km: KeyManager) -> list[str]:
        return await km.receipt_keys()

    keys = call.run(act)
    return Outcome({"keys": keys}, "".join(keys).rstrip())


def verify_receipt(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt.")],
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="What `receipt-keys` showed, in PEM.")],
) -> Outcome:
    """Verify a receipt, without the store and without the KMS."""
    given = ErasureReceipt.from_json(_read(file))
    given.verify(_read(keys))
    told = [("signed", "yes"), ("store", given.store), ("erased", given.keyring), ("at", given.time)]
    return Outcome({"valid": True, "receipt": given.to_dict()}, pairs(told))


def _give(made: ErasureReceipt, output: str | None) -> Outcome:
    text = made.to_json()
    if output is not None:
        with open_target(output, is_text=True) as file:
            file.write(text.encode() + b"\n")
    if made.nodes_unseen:
        say(f"{made.nodes_unseen} running process(es) had not acknowledged it within 5 s, and refuse from then on")
    told = [("erased", made.keyring), ("keys", len(made.keys)), ("receipt", output)]
    return Outcome({"receipt": made.to_dict()}, text if output is None else pairs(told))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LARGEST_RECEIPT)
    except UnicodeDecodeError:
        wrong_usage(f"{path} is no text")
    except OSError as exc:
        wrong_usage(f"{path} cannot be read: {exc.strerror}")
