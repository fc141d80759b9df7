"""``keystead import legacy``: bring the data keys of the Go reference into the store. Its database is only read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli.frame import FAILED, Call, command, group, say, wrong_usage
from keystead.cli.render import Outcome, pairs
from keystead.crypto.root_key import KNOWN_DEFAULT_SALT, KNOWN_DEFAULT_SEED, RootKeyGenerator
from keystead.errors import ConfigurationError
from keystead.lifecycle.legacy_import import LegacyImportReport
from keystead.manager.legacy import LEGACY_KEYRING
from keystead.model.counts import counted

REFERENCE_ITERATIONS: Final = 100_000

_Text = str | None


def register(app: typer.Typer) -> None:
    """Add ``import legacy``."""
    command(group(app, "import", "Bring over what other systems left."), "legacy")(import_legacy)


def import_legacy(
    call: Call,
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", help="The old database; its password belongs in PGPASSWORD or ~/.pgpass."
        ),
    ],
    schema: Annotated[_Text, typer.Option(metavar="NAME", help="The PostgreSQL schema of the old table.")] = None,
    seed_env: Annotated[str, typer.Option(metavar="NAME", help="The variable that holds the seed.")] = "KMS_SEED",
    salt_env: Annotated[str, typer.Option(metavar="NAME", help="The variable that holds the salt.")] = "KMS_SALT",
    seed_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file that holds the seed.")] = None,
    salt_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file that holds the salt.")] = None,
    known_defaults: Annotated[
        bool, typer.Option("--known-defaults", help="The seed and salt that the old program was shipped with.")
    ] = False,
    iterations: Annotated[int, typer.Option(help="PBKDF2 iterations of the old root key.")] = REFERENCE_ITERATIONS,
    key_length: Annotated[int, typer.Option(help="Bytes of the old root key: 16, 24 or 32.")] = 32,
    keyring: Annotated[str, typer.Option(metavar="NAME", help="The keyring that takes the keys.")] = LEGACY_KEYRING,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and change nothing.")] = False,
) -> Outcome:
    """Import the old data keys as versions that only decrypt; run it again to finish or to add.

    Exits with 1 when a key could not be imported; the others are.
    """
    if known_defaults and (seed_file or salt_file):
        wrong_usage("--known-defaults is a seed and a salt already")
    generator = RootKeyGenerator(
        KNOWN_DEFAULT_SEED if known_defaults else _secret("seed", seed_env, seed_file),
        KNOWN_DEFAULT_SALT if known_defaults else _secret("salt", salt_env, salt_file),
        iterations,
        key_length,
        allow_known_defaults=True,
    )
    # Here, in the command's own thread, where warnings are shown.
    root_key = generator.generate_root_key()
    report = call.run(
        lambda km: km.import_legacy(source, lambda: root_key, schema=schema, keyring=keyring, dry_run=dry_run),
        creates=not dry_run,
    )
    for version, reason in report.failed.items():
        say(f"not imported: {version}: {reason}")
    if report.exposed:
        say(
            f"warning: {counted(len(report.exposed), 'key')} stood in clear in the old table: who read it can decrypt; "
            "re-encrypt what they protect, and erase the column key_data"
        )
    return Outcome(report, pairs(_lines(report)), exit_code=FAILED if report.failed else 0)


def _lines(report: LegacyImportReport) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [
        ("would import" if report.is_dry_run else "imported", len(report.imported)),
        ("there already", len(report.skipped)),
        ("failed", len(report.failed)),
    ]
    for name, versions in (
        ("exposed", report.exposed),
        ("from key_data only", report.from_clear),
        ("disabled", report.disabled),
    ):
        if versions:
            lines.append((name, f"{len(versions)}: {', '.join(versions[:3])}{', ...' if len(versions) > 3 else ''}"))
    if report.rotated_to is not None:
        lines.append(("rotated", f"the default keyring, to version {report.rotated_to}"))
    return [*lines, ("keyring", report.keyring)]


def _secret(what: str, variable: str, file: Path | None) -> str | bytes:
    if file is not None:
        return file.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    # The variable holds a credential of the old program, which an option names; settings are config's to read.
    value = os.environ.get(variable)
    if not value:
        raise ConfigurationError(
            f"no {what}: put it in the environment variable {variable} or name one with --{what}-env, or a file with "
            f"--{what}-file; --known-defaults is for a program that ran as it was shipped"
        )
    return value
