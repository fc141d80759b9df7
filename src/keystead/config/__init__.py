"""Settings: environment, URLs, YAML. The only reader of the environment.

``keystead.config.settings`` has the settings themselves; it needs the extra ``config`` and is imported at first use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def is_production(environ: Mapping[str, str] | None = None) -> bool:
    """Whether ``KEYSTEAD_ENV`` says production (or prod)."""
    return names_production((os.environ if environ is None else environ).get("KEYSTEAD_ENV", ""))


def names_production(environment: str) -> bool:
    """Whether ``environment`` is a name of production."""
    return environment.strip().lower() in {"production", "prod"}
