"""``keystead init``: a folder in which every other command works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.frame import Call, command, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.config.sources import environment_settings
from keystead.manager.installation import install

Store = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="A store elsewhere, instead of the file keys.db.")
]
Kms = Annotated[
    str | None, typer.Option("--kms", metavar="URI", help="A KEK elsewhere, instead of the file keystead.kek.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init")(init)


def init(
    call: Call,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", show_default=False, help="Where; the working folder if none is named.")
    ] = ".",
    store: Store = None,
    kms: Kms = None,
) -> Outcome:
    """Make keystead.yaml, a KEK only you can read, and an empty store, and have git ignore them.

    Never overwrites anything.
    """
    if call.config is not None:
        wrong_usage("init writes keystead.yaml in FOLDER; --config names settings that are there already")
    made = install(Path(folder), store=store, kms=kms)
    for variable in environment_settings():
        say(f"warning: {variable} is set in the environment and wins over keystead.yaml")
    files = [str(path) if folder != os.curdir else path.name for path in made.made]
    lines = [f"Made {', '.join(files)}."]
    if made.kek is not None and made.kek not in made.made:
        lines.append(f"{made.kek.name} and the store were here already; they belong together and are used.")
    if made.kek is not None:
        lines += [
            f"Back up {made.kek.name} now, apart from the store: whoever has both can read everything, and whoever",
            "loses it can read nothing again. Keep it out of version control.",
        ]
    if made.unignored:
        lines.append(f".gitignore was here already and is left as it is. Add to it: {' '.join(made.unignored)}")
    if made.store is not None:
        lines.append(f"Back up {made.store.name} whenever a key was made: `keystead store export FILE`.")
        lines.append("In .keystead stands how far the store had come, so that an old copy of it is noticed; no key.")
    else:
        lines.append("Make the store's tables next: `keystead migrate`.")
    return Outcome(
        {
            "made": made.made,
            "settings": made.settings,
            "kek": made.kek,
            "store": made.store,
            "unignored": made.unignored,
        },
        "\n".join(lines),
    )
