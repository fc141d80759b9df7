"""The settings in force, where each comes from, and no secret among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from keystead.config.durations import duration_text
from keystead.config.settings import keys_of
from keystead.config.sources import LoadedSettings
from keystead.manager.configured import state_folder

MASK: Final = "********"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:]*):.*@")
_PASSWORD_OPTION: Final = re.compile(r"([?&]password=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SettingInForce:
    """A setting by its dotted key; secrets of its value are masked.

    Attributes:
        origin: ``flag --store``, ``environment KEYSTEAD_STORE``, the file, or ``default``.
    """

    key: str
    value: Any
    origin: str

    @property
    def told(self) -> str:
        """The value as a person reads it."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return "-" if self.value is None or self.value == {} else str(self.value)


def settings_in_force(loaded: LoadedSettings) -> list[SettingInForce]:
    """Return every setting, in the order of the reference."""
    found: list[SettingInForce] = []
    # These defaults depend on other settings.
    computed = {"rotation.period": loaded.settings.rotation_period, "state_dir": state_folder(loaded)}

    def collect(section: BaseModel, prefix: str) -> None:
        for name, attribute in keys_of(type(section)).items():  # type: ignore[arg-type]
            key, value = f"{prefix}{name}", getattr(section, attribute)
            if isinstance(value, BaseModel):
                collect(value, f"{key}.")
            else:
                value = computed.get(key) if value is None else value
                found.append(SettingInForce(key, _without_secrets(value), loaded.origins.get(key, "default")))

    collect(loaded.settings, "")
    return found


def without_password(url: str) -> str:
    """Return a URL with its password masked."""
    return _PASSWORD_OPTION.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", url))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, BaseModel):
        return {name: _without_secrets(each) for name, each in value}
    if isinstance(value, Mapping):
        return {without_password(name): _without_secrets(each) for name, each in value.items()}
    return value
