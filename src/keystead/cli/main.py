"""The entry of the command ``keystead``. One line in ``MODULES`` adds a file of commands."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

MODULES: Final = (
    "keystead.cli.init",
    "keystead.cli.data",
    "keystead.cli.inspect",
    "keystead.cli.key",
    "keystead.cli.key_uses",
    "keystead.cli.field",
    "keystead.cli.reencrypt",
    "keystead.cli.bulk",
    "keystead.cli.log.group",
    "keystead.cli.audit.group",
    "keystead.cli.subject",
    "keystead.cli.token",
    "keystead.cli.approval",
    "keystead.cli.session",
    "keystead.cli.device",
    "keystead.cli.lockout",
    "keystead.cli.transit.group",
    "keystead.cli.serve",
    "keystead.cli.kms_plugin",
    "keystead.cli.store",
    "keystead.cli.migrate",
    "keystead.cli.status",
    "keystead.cli.job",
    "keystead.cli.doctor",
    "keystead.cli.config",
    "keystead.cli.import_legacy",
    "keystead.cli.demo.command",
)
"""Each has a function ``register(app)`` that adds its commands."""


def build_app() -> typer.Typer:
    """Return the command line with every command registered."""
    from keystead.cli.frame import new_app

    app = new_app()
    for name in MODULES:
        import_module(name).register(app)
    return app


def main() -> None:
    """Run the command line."""
    try:
        app = build_app()
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "keystead":
            raise
        print(f"error: the command line needs {exc.name}: pip install 'keystead[cli]'", file=sys.stderr)
        sys.exit(1)
    app()
