"""Settings: environment, URLs, YAML. The only reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping


def is_production(environ: Mapping[str, str] | None = None) -> bool:
    """Whether ``KEYSTEAD_ENV`` says production."""
    return (os.environ if environ is None else environ).get("KEYSTEAD_ENV", "").lower() == "production"
