"""``keystead config check``: the settings in force, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import typer
from pydantic import BaseModel, SecretStr

from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, table
from keystead.config.durations import duration_text
from keystead.config.settings import keys_of
from keystead.config.sources import LoadedSettings
from keystead.manager.configured import manager_parts, state_folder, store_url

MASK: Final = "********"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:]*):.*@")
_PASSWORD_OPTION: Final = re.compile(r"([?&]password=)[^&]*", re.IGNORECASE)


def register(app: typer.Typer) -> None:
    """Add the group."""
    command(group(app, "config", "Settings: check."), "check")(check)


def check(call: Call) -> Outcome:
    """Print the settings in force and where each comes from, secrets masked. Connects to nothing."""
    loaded = call.settings()
    manager_parts(loaded)
    rows = [(key, _shown(value), origin) for key, value, origin in effective(loaded)]
    answer = {
        "file": loaded.path,
        "is_production": loaded.settings.is_production,
        "settings": {key: {"value": value, "from": origin} for key, value, origin in rows},
        "resolved": {"store": _masked(store_url(loaded)), "state_dir": state_folder(loaded)},
        "not_settings": loaded.ignored,
    }
    shown = [(key, _for_a_person(value), origin) for key, value, origin in rows]
    return Outcome(answer, table("setting", "value", "from", rows=shown))


def effective(loaded: LoadedSettings) -> list[tuple[str, Any, str]]:
    """Return every setting as dotted key, value and origin."""
    rows: list[tuple[str, Any, str]] = []
    # These defaults depend on other settings.
    computed = {"rotation.period": loaded.settings.rotation_period, "state_dir": state_folder(loaded)}

    def collect(section: BaseModel, prefix: str) -> None:
        for key, name in keys_of(type(section)).items():  # type: ignore[arg-type]
            value = getattr(section, name)
            if isinstance(value, BaseModel):
                collect(value, f"{prefix}{key}.")
            else:
                value = computed.get(prefix + key) if value is None else value
                rows.append((prefix + key, value, loaded.origins.get(prefix + key, "default")))

    collect(loaded.settings, "")
    return rows


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, str):
        return _masked(value)
    if isinstance(value, BaseModel):
        return {name: _shown(each) for name, each in value}
    return {name: _shown(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def _for_a_person(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None or value == {} else str(value)


def _masked(url: str) -> str:
    return _PASSWORD_OPTION.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", url))
