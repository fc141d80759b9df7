"""How the example is made, and where: in an empty folder alone.

It is made by the functions that the service and the command line call, at a clock that runs from half a year ago to
now, so that keys are of different ages and charts have a day behind them.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from keystead.cli.example.cast import DATABASE, MAX_BYTES, OLDEST, Example
from keystead.config.service import load_service
from keystead.config.sources import LoadedSettings
from keystead.manager.installation import SETTINGS_FILE, Installation, install
from keystead.runtime.clock import SystemClock

_SETTINGS: Final = f"""
# Of the example: a version is to be replaced after so many bytes, and by whoever looks at the console.
rotation:
  enabled: false
  max_bytes: {MAX_BYTES}
"""


class PastClock(SystemClock):
    """The machine's clock, put back; the time that only runs forward is the machine's."""

    def __init__(self, ago: timedelta) -> None:
        self.ago = ago

    def now(self) -> datetime:
        """Return the wall time, put back."""
        return super().now() - self.ago


def is_called_for(loaded: LoadedSettings, folder: Path) -> bool:
    """Whether a folder may be made ready: no store or KEK is set anywhere, and there is nothing in it.

    What is hidden does not count, nor do virtual environments.
    """
    settings = loaded.settings
    if loaded.path or settings.store or settings.kms or settings.providers or settings.is_production:
        return False
    return all(each.name.startswith(".") or (each / "pyvenv.cfg").exists() for each in folder.iterdir())


def found_in(loaded: LoadedSettings) -> Example | None:
    """Return the example that settings lie beside, if any."""
    if loaded.path is None or loaded.path.name != SETTINGS_FILE:
        return None
    folder = loaded.path.absolute().parent
    return Example(folder) if (folder / DATABASE).is_file() else None


def prepare(folder: Path, *, has_example: bool) -> Installation:
    """Make settings, KEK and store; with an example, as if that had been half a year ago."""
    if not has_example:
        return install(folder)
    return install(folder, more=_SETTINGS, clock=PastClock(OLDEST))


def make(folder: Path) -> None:
    """Make the example over the store that ``prepare`` has made; takes some seconds."""
    # Keys are made under a policy that gives them a date; no pair is made before somebody asks for it.
    loaded = load_service(folder / SETTINGS_FILE, flags={"rotation.enabled": True, "client_keys.ready": 0})
    asyncio.run(_make(loaded, Example(folder.absolute())))


async def _make(loaded: LoadedSettings, example: Example) -> None:
    from keystead.cli.example.past import agenda
    from keystead.server.opening import opened_manager
    from keystead.server.service import opened

    clock = PastClock(OLDEST)
    async with opened_manager(loaded, clock) as km, opened(km, loaded, is_development=True) as service:
        for ago, step in agenda(service, example):
            clock.ago = ago
            await step()
