"""``keystead transit import-from``, ``reencrypt`` and ``reencrypt-file``: coming from Vault, and going there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, BinaryIO, Final

import typer

from keystead import fields
from keystead.cli.data import open_source
from keystead.cli.frame import FAILED, Call, command, say, wrong_usage
from keystead.cli.reencrypt import progress_of, report_text
from keystead.cli.render import Outcome, pairs, printable, table
from keystead.cli.targets import open_target
from keystead.errors import ConfigurationError
from keystead.fields import ReencryptReport
from keystead.manager import transit_copies, transit_moves
from keystead.manager.manager import KeyManager
from keystead.manager.transit_copies import Copied
from keystead.manager.transit_elsewhere import OtherEngine
from keystead.manager.transit_moves import ColumnOfTexts, Direction, MoveWish
from keystead.transit.moving import COLUMN_TOO_SHORT

_PANEL: Final = "The other engine"
_VARIABLE: Final = "VAULT_TOKEN"
TokenEnv = Annotated[
    str,
    typer.Option("--token-env", metavar="NAME", help="The variable that holds its token.", rich_help_panel=_PANEL),
]
Mount = Annotated[
    str, typer.Option("--mount", metavar="PATH", help="Where Transit is mounted there.", rich_help_panel=_PANEL)
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Its namespace there.", rich_help_panel=_PANEL)
]
CaCert = Annotated[
    str | None,
    typer.Option("--ca-cert", metavar="FILE", help="Authorities of its certificate.", rich_help_panel=_PANEL),
]
FromVault = Annotated[
    str | None,
    typer.Option("--from-vault", metavar="URL", help="Ciphertexts come from there.", rich_help_panel=_PANEL),
]
ToVault = Annotated[
    str | None, typer.Option("--to-vault", metavar="URL", help="Ciphertexts go there.", rich_help_panel=_PANEL)
]
OtherKey = Annotated[
    str | None,
    typer.Option("--vault-key", metavar="NAME", help="The key there, if of another name.", rich_help_panel=_PANEL),
]
Key = Annotated[str, typer.Option("--key", metavar="NAME", help="The Transit key of this store.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose key it is, where there are tenants.")]
Context = Annotated[
    str, typer.Option("--context", metavar="TEXT", help="What a derived key is derived by, before base64.")
]
Aad = Annotated[str, typer.Option("--aad", metavar="TEXT", help="What was sent as associated data, before base64.")]


def register(noun: typer.Typer) -> None:
    """Add the commands."""
    command(noun, "import-from")(import_from)
    command(noun, "reencrypt")(reencrypt)
    command(noun, "reencrypt-file")(reencrypt_file)


def import_from(
    call: Call,
    url: Annotated[str, typer.Argument(metavar="URL", help="A Vault or OpenBao: https://host:8200.")],
    *,
    token_env: TokenEnv = _VARIABLE,
    mount: Mount = "transit",
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="NAME", help="Only this one; again for more.")
    ] = None,
    material: Annotated[
        bool,
        typer.Option("--material", help="Bring the material of exportable keys: what they encrypted decrypts here."),
    ] = False,
    tenant: Tenant = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and change nothing.")] = False,
) -> Outcome:
    """Make keys like those of a Vault or OpenBao: name, type, derivation, period of rotation. It is only read.

    Key material does not come along, for the server does not give it, except with --material of keys that are
    exportable there. Run it again as often as you like. Exits with 1 when a key could not be made; the others are.
    """
    other = _other(url, token_env, mount, namespace, ca_cert)

    async def act(km: KeyManager) -> list[Copied]:
        async with other.opened() as remote:
            return await transit_copies.copy_keys(
                km, remote, key or (), tenant=tenant, with_material=material, dry_run=dry_run
            )

    found = call.run(act, creates=not dry_run)
    refused = [each for each in found if each.reason]
    for each in refused:
        say(f"not made: {printable(each.name)}: {printable(each.reason)}")
    without = [each for each in found if not each.versions and not each.reason]
    if without:
        say(
            f"{len(without)} key(s) have material of their own here: what the old ones encrypted is not decrypted by "
            "them, and is moved by `keystead transit reencrypt`"
        )
    rows = [(each.name, each.type, each.outcome.value, each.versions or "-") for each in found]
    shown = table("name", "type", "outcome", "versions brought", rows=rows) if rows else "no keys there"
    return Outcome({"keys": found, "dry_run": dry_run}, shown, FAILED if refused else 0)


def reencrypt(
    call: Call,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The application's database; a password belongs in PGPASSWORD.")
    ],
    target: Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="The column of `vault:vN:` texts.")],
    *,
    key: Key,
    from_vault: FromVault = None,
    to_vault: ToVault = None,
    vault_key: OtherKey = None,
    token_env: TokenEnv = _VARIABLE,
    mount: Mount = "transit",
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    context: Context = "",
    context_column: Annotated[
        str | None, typer.Option("--context-column", metavar="COLUMN", help="Holds each row's context instead.")
    ] = None,
    aad: Aad = "",
    aad_column: Annotated[
        str | None, typer.Option("--aad-column", metavar="COLUMN", help="Holds each row's associated data instead.")
    ] = None,
    tenant: Tenant = "",
    row_key: Annotated[
        str | None, typer.Option("--row-key", metavar="COLUMNS", help="What to read rows by, if not the primary key.")
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows read and written at once.")] = fields.BATCH_ROWS,
    workers: Annotated[int, typer.Option(min=1, help="Threads; several commands share a job as well.")] = 1,
    rate: Annotated[float | None, typer.Option(metavar="ROWS", help="At most so many rows a second.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Begin anew instead of going on where a job stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
) -> Outcome:
    """Move every `vault:vN:` text of a live column to a key of this store, from it, or to its latest version.

    It stays such a text. An edit by the application always wins. After a crash the same command goes on where it
    stopped, and so does `keystead reencryption` with its jobs. Exits with 1 when rows had to be left as they are.
    """
    where, _, name = target.rpartition(".")
    if not where or not name:
        wrong_usage("what to re-encrypt is named TABLE.COLUMN")
    if (context and context_column) or (aad and aad_column):
        wrong_usage("what is bound is the same for all rows, or is in a column, not both")
    columns = tuple(part.strip() for part in (row_key or "").split(",") if part.strip())
    column = ColumnOfTexts(url, where, name, context_column, aad_column, columns)
    direction, there = _direction(from_vault, to_vault, vault_key), from_vault or to_vault
    other = _other(there, token_env, mount, namespace, ca_cert) if there else None
    asked = MoveWish(direction, key, tenant, context=context.encode(), associated_data=aad.encode())
    with progress_of(f"{where}.{name}") as tick:

        async def act(km: KeyManager) -> ReencryptReport:
            async with _joined(asked, other, vault_key or key) as wish:
                return await transit_moves.move_column(
                    km,
                    column,
                    wish,
                    batch_rows=batch_rows,
                    workers=workers,
                    rows_per_s=rate,
                    dry_run=dry_run,
                    resume=not again,
                    on_progress=tick,
                )

        report = call.run(act)
    for failure in report.failures:
        say(f"left as it is: row {failure.key}: {failure.reason}")
    if any(failure.reason == COLUMN_TOO_SHORT for failure in report.failures):
        say(f"{COLUMN_TOO_SHORT}: ciphertexts of Keystead are some 36 characters longer than Vault's; widen the column")
    return Outcome(report, report_text(report), 0 if report.is_complete else FAILED)


def reencrypt_file(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text file; - is stdin.")],
    *,
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="The file to write; - is stdout.")],
    key: Key,
    from_vault: FromVault = None,
    to_vault: ToVault = None,
    vault_key: OtherKey = None,
    token_env: TokenEnv = _VARIABLE,
    mount: Mount = "transit",
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    context: Context = "",
    aad: Aad = "",
    tenant: Tenant = "",
) -> Outcome | None:
    """Move every `vault:vN:` text in a file, whatever else is in it: CSV, JSON lines, SQL, settings.

    The new file is whole or not there: one text that cannot be moved ends the command, which names its line.
    """
    direction, there = _direction(from_vault, to_vault, vault_key), from_vault or to_vault
    other = _other(there, token_env, mount, namespace, ca_cert) if there else None
    asked = MoveWish(direction, key, tenant, context=context.encode(), associated_data=aad.encode())

    async def act(km: KeyManager, source: BinaryIO, target: BinaryIO) -> tuple[int, int]:
        async with _joined(asked, other, vault_key or key) as wish:
            moved = await transit_moves.move_lines(km, source, wish)
            return await asyncio.to_thread(_written, moved, target)

    with open_source(file) as source, open_target(output, is_text=True) as target:
        lines, texts = call.run(lambda km: act(km, source, target))
    if output == "-":
        say(f"{lines} lines, {texts} ciphertexts moved")
        return None
    return Outcome({"output": output, "lines": lines, "moved": texts}, pairs([("lines", lines), ("moved", texts)]))


def _other(url: str, token_env: str, mount: str, namespace: str | None, ca_cert: str | None) -> OtherEngine:
    # The variable holds a token of the other engine, which an option names; settings are config's to read.
    token = os.environ.get(token_env)
    if not token:
        raise ConfigurationError(
            f"the variable {token_env} holds no token of the other engine: set it, or name another with --token-env"
        )
    return OtherEngine(url, token, mount, namespace, ca_cert)


def _direction(from_vault: str | None, to_vault: str | None, vault_key: str | None) -> Direction:
    if from_vault and to_vault:
        wrong_usage("ciphertexts come --from-vault or go --to-vault; without either they go to the latest version")
    if vault_key and not (from_vault or to_vault):
        wrong_usage("--vault-key goes with --from-vault or --to-vault")
    return Direction.FROM if from_vault else Direction.TO if to_vault else Direction.REWRAP


def _joined(wish: MoveWish, other: OtherEngine | None, key: str) -> AbstractAsyncContextManager[MoveWish]:
    """Return the wish with its other end, if there is one."""
    return nullcontext(wish) if other is None else other.joined(wish, key)


def _written(moved: Iterator[tuple[bytes, int]], target: BinaryIO) -> tuple[int, int]:
    lines = texts = 0
    for line, count in moved:
        target.write(line)
        lines, texts = lines + 1, texts + count
    return lines, texts
