"""Every scenario by name, in the order of a full run."""

from __future__ import annotations

from typing import Final

from soak.audit import Audit
from soak.bulk import Bulk
from soak.crash import Crash
from soak.erasure import Erasure
from soak.fapilog import Fapilog
from soak.faults import Faults
from soak.fields import Fields
from soak.figures import Scenario
from soak.fuzz import Fuzz
from soak.kubernetes import Kubernetes
from soak.limits import Limits
from soak.log import LOG_EDITS, LOG_KILLS, LOG_SCALE
from soak.metrics import Metrics
from soak.nonces import Nonces
from soak.providers import Providers
from soak.restore import Restore
from soak.rotation import Rotation
from soak.rotators import Rotators
from soak.scale import Scale
from soak.service import CONSOLE, COST, FAULTS, FUZZ, GUESSES, NODES, SOAK, TRANSIT_COST, TRANSIT_FUZZ, TRANSIT_RACE
from soak.start import Start
from soak.tamper import Tamper
from soak.transit_clients import TransitClients

_ALL: Final[tuple[Scenario, ...]] = (
    Rotation(),
    Rotators(),
    Crash(),
    Limits(),
    Nonces(),
    Tamper(),
    Audit(),
    Restore(),
    Erasure(),
    Faults(),
    Providers(),
    Fields(),
    Bulk(),
    Kubernetes(),
    LOG_EDITS,
    LOG_KILLS,
    LOG_SCALE,
    Fapilog(),
    Metrics(),
    Scale(),
    Start(),
    Fuzz(),
    GUESSES,
    NODES,
    FAULTS,
    SOAK,
    FUZZ,
    COST,
    CONSOLE,
    TransitClients(),
    TRANSIT_FUZZ,
    TRANSIT_RACE,
    TRANSIT_COST,
)

SCENARIOS: Final[dict[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
