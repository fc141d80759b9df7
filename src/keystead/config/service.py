"""Settings of the key service: its sections of the settings file, and the variables that documented clients set.

``DATABASE_URL``, ``PORT``, ``ENCRYPTION_KEY_ROTATION_DAYS``, ``ENCRYPTION_KEY_RETENTION_DAYS`` and
``MAX_ENCRYPTED_DATA_SIZE`` are read by the service alone; a setting of ours for the same thing wins.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from keystead.config.sources import LoadedSettings, load
from keystead.errors import ConfigurationError

log = logging.getLogger("keystead.config")

DOCUMENTED: Final[Mapping[str, str]] = {
    "DATABASE_URL": "store",
    "PORT": "server.port",
    "ENCRYPTION_KEY_ROTATION_DAYS": "client_keys.lifetime",
    "ENCRYPTION_KEY_RETENTION_DAYS": "client_keys.retention",
    "MAX_ENCRYPTED_DATA_SIZE": "client_keys.max_size",
}
"""Variable to the setting that it is."""
_DAYS: Final = frozenset({"ENCRYPTION_KEY_ROTATION_DAYS", "ENCRYPTION_KEY_RETENTION_DAYS"})


def load_service(
    path: str | os.PathLike[str] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Put the settings together as ``load`` does, the documented variables beneath everything else.

    Raises:
        ConfigurationError: as ``load``; a documented variable that is no number where it has to be one.
    """
    given = os.environ if environ is None else environ
    beneath = {
        key: (_value(name, given[name]), f"environment {name}") for name, key in DOCUMENTED.items() if given.get(name)
    }
    loaded = load(path, flags=flags, environ=given, beneath=beneath)
    for key, (_, origin) in beneath.items():
        if loaded.origins[key] != origin:
            log.warning("%s is ignored: %s is set by %s", origin, key, loaded.origins[key])
    return loaded


def _value(name: str, text: str) -> str:
    if name == "DATABASE_URL":
        return text
    if not text.isascii() or not text.isdigit():
        raise ConfigurationError(f"environment {name}: it should be a whole number")
    return f"{text}d" if name in _DAYS else text
