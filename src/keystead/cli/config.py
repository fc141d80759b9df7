"""``keystead config check``: the settings in force, and where each comes from."""

from __future__ import annotations

import typer

from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, table
from keystead.manager.configured import manager_parts, state_folder, store_url
from keystead.manager.settings_in_force import settings_in_force, without_password


def register(app: typer.Typer) -> None:
    """Add the group."""
    command(group(app, "config", "Settings: check."), "check")(check)


def check(call: Call) -> Outcome:
    """Print the settings in force and where each comes from, secrets masked. Connects to nothing."""
    loaded = call.settings()
    manager_parts(loaded)
    found = settings_in_force(loaded)
    answer = {
        "file": loaded.path,
        "is_production": loaded.settings.is_production,
        "settings": {each.key: {"value": each.value, "from": each.origin} for each in found},
        "resolved": {"store": without_password(store_url(loaded)), "state_dir": state_folder(loaded)},
        "not_settings": loaded.ignored,
    }
    shown = [(each.key, each.told, each.origin) for each in found]
    return Outcome(answer, table("setting", "value", "from", rows=shown))
