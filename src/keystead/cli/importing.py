"""The options by which ``keystead reencrypt`` reads values of another system. No secret is on the command line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli.frame import wrong_usage
from keystead.errors import ConfigurationError
from keystead.fields import Importer
from keystead.fields.importing import FORMATS
from keystead.manager.importing import opened_importer
from keystead.manager.manager import KeyManager

_PANEL: Final = "Coming over"

ImportFormat = Annotated[
    str | None,
    typer.Option("--import", metavar="FORMAT", help=f"Read values of: {', '.join(FORMATS)}.", rich_help_panel=_PANEL),
]
ImportUntil = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="When the old form is no longer read; required.", rich_help_panel=_PANEL),
]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--import-key-file",
        metavar="FILE",
        help="Holds a key of the old values; again for more, the newest first.",
        rich_help_panel=_PANEL,
    ),
]
KeyVariables = Annotated[
    list[str] | None,
    typer.Option(
        "--import-key-env", metavar="NAME", help="The variable that holds one; again for more.", rich_help_panel=_PANEL
    ),
]
ImportOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--import-option",
        metavar="NAME=VALUE",
        help="An option of the format; VALUE may be @FILE or env:NAME. Again for more.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options ask for; ``format`` None is no importer."""

    format: str | None
    until: str | None
    keys: tuple[bytes, ...] = ()
    options: dict[str, list[str]] = field(default_factory=dict)

    @asynccontextmanager
    async def opened(self, km: KeyManager) -> AsyncIterator[Importer | None]:
        """Give the importer, if there is to be one."""
        if self.format is None:
            yield None
            return
        async with opened_importer(
            km, self.format, until=self.until or "", keys=self.keys, options=self.options
        ) as reading:
            yield reading


def wish(
    format: str | None,
    until: str | None,
    key_files: Sequence[Path] | None,
    key_variables: Sequence[str] | None,
    options: Sequence[str] | None,
) -> Wish:
    """Return what the options ask for, with the secrets read."""
    if format is None:
        if until or key_files or key_variables or options:
            wrong_usage("options of an importer go with --import FORMAT")
        return Wish(None, None)
    if until is None:
        wrong_usage("--import needs --import-until: the day on which the old form is no longer read")
    keys = (*map(_from_file, key_files or ()), *map(_from_variable, key_variables or ()))
    given: dict[str, list[str]] = {}
    for each in options or ():
        name, sign, value = each.partition("=")
        if not name or not sign:
            wrong_usage("--import-option reads NAME=VALUE")
        given.setdefault(name, []).append(_value(value))
    return Wish(format, until, keys, given)


def _value(value: str) -> str:
    if value.startswith("@"):
        return _from_file(Path(value[1:])).decode()
    return _from_variable(value.removeprefix("env:")).decode() if value.startswith("env:") else value


def _from_file(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"the key file {path} cannot be read: {exc.strerror}") from None
    # A raw key may end with any byte; a text ends with a line's end that is not part of it.
    return content if len(content) in (16, 24, 32) else content.removesuffix(b"\n").removesuffix(b"\r")


def _from_variable(name: str) -> bytes:
    # The variable holds a key of the old application, which an option names; settings are config's to read.
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"the variable {name} holds no key of the old values")
    return value.encode()
