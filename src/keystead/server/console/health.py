"""How the service is: what stands in its way, which nodes run, what an examination finds, and the settings in force."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from keystead.access.callers import Scope
from keystead.config.durations import duration_text
from keystead.manager.findings import DEADLINE_S, DoctorReport, Health
from keystead.manager.nodes import nodes
from keystead.manager.settings_in_force import settings_in_force
from keystead.model import DataKeyState
from keystead.model.counts import counted
from keystead.server.console.pages import Deed, Page, Preview, Shown
from keystead.server.console.visits import Visit

PATH: Final = "/console/health"
EXAMINE: Final = f"{PATH}/examine"
CONFIGURATION: Final = "/console/configuration"
_READS: Final = Scope.KEYRINGS_READ
_COLOURS: Final = {
    Health.OK: DataKeyState.ACTIVE,
    Health.WARN: DataKeyState.DISABLED,
    Health.FAIL: DataKeyState.DESTROYED,
    Health.SKIPPED: DataKeyState.DECRYPT_ONLY,
}


async def shown(visit: Visit) -> Shown:
    """Show what is known without asking a KMS."""
    return await _page(visit, None)


async def preview_examination(visit: Visit) -> Preview:
    """Show what an examination does."""
    return Preview(
        title="Examine providers and store",
        effects=[
            "Each provider encrypts and decrypts a random value under its key, and the store is read.",
            "Nothing is rotated, and nothing is written to the store.",
            f"It takes {DEADLINE_S:.0f} seconds at most. What is wrong is told with what helps, as by keystead doctor.",
        ],
        button="Examine",
        back=PATH,
    )


async def examine(visit: Visit) -> Shown:
    """Examine providers and store, and show what was found."""
    return await _page(visit, await visit.service.examinations.run(visit.manager))


async def configuration(visit: Visit) -> Shown:
    """Show every setting in force, and where it comes from."""
    loaded = visit.service.loaded
    values = {"settings": settings_in_force(loaded), "file": loaded.path, "ignored": loaded.ignored}
    return Shown("configuration.html", values)


async def _page(visit: Visit, report: DoctorReport | None) -> Shown:
    values: dict[str, Any] = {
        "causes": await visit.service.causes(),
        "nodes": await nodes(visit.manager),
        "findings": None,
        "every": duration_text(visit.service.settings.epoch_max_age),
        "examine": EXAMINE,
    }
    if report is not None:
        numbers = Counter(each.status for each in report.findings)
        values["findings"] = [(each, _COLOURS[each.status]) for each in report.findings]
        values["failed"], values["warned"] = numbers[Health.FAIL], numbers[Health.WARN]
        values["checks"] = counted(len(report.findings), "check")
    return Shown("health.html", values)


PAGES: Final = (
    Page(PATH, _READS, shown, title="Health", group="Health"),
    Page(CONFIGURATION, _READS, configuration, title="Configuration", group="Health"),
)
DEEDS: Final = (Deed(EXAMINE, _READS, preview_examination, examine),)
