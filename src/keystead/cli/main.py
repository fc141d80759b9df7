"""The entry of the command ``keystead``. One line in ``MODULES`` adds a file of commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "init": ("init",),
    "data": ("encrypt", "decrypt"),
    "inspect": ("inspect",),
    "key": ("key",),
    "field": ("field",),
    "reencrypt": ("reencrypt", "reencryption"),
    "bulk": ("bulk",),
    "log.group": ("log",),
    "audit.group": ("audit",),
    "subject": ("subject",),
    "token": ("token",),
    "approval": ("approval",),
    "session": ("session",),
    "device": ("device", "user"),
    "lockout": ("lockout",),
    "transit.group": ("transit",),
    "serve": ("serve",),
    "kms_plugin": ("kms-plugin",),
    "store": ("store",),
    "migrate": ("migrate",),
    "status": ("status", "maintain"),
    "job": ("job",),
    "doctor": ("doctor",),
    "config": ("config",),
    "import_legacy": ("import",),
    "demo.command": ("demo",),
}
"""Modules below ``keystead.cli``, each with a function ``register(app)`` that adds the commands it is listed with."""


def build_app(modules: Iterable[str] = tuple(MODULES)) -> typer.Typer:
    """Return the command line with the commands of modules registered, by default with every command."""
    from keystead.cli.frame import new_app

    app = new_app()
    for name in modules:
        import_module(f"keystead.cli.{name}").register(app)
    return app


def modules_for(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that a line needs: one command does not wait until all the others are imported."""
    for argument in arguments:
        if argument == "--version":
            return ()
        if not argument.startswith("-"):
            return tuple(name for name, words in MODULES.items() if argument in words) or tuple(MODULES)
    return tuple(MODULES)


def main() -> None:
    """Run the command line."""
    try:
        app = build_app(modules_for(sys.argv[1:]))
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "keystead":
            raise
        print(f"error: the command line needs {exc.name}: pip install 'keystead[cli]'", file=sys.stderr)
        sys.exit(1)
    app()
