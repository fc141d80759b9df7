"""Key services: an event loop that is never held up, little overhead, and outages that nobody notices for an hour."""

from __future__ import annotations

from pathlib import Path

from soak import kms_loop, kms_outage
from soak.figures import Figure, Setting
from soak.harness import in_child

SERVICES = range(5)


class Providers:
    """See the module."""

    name = "providers"
    claim = (
        "A hundred calls in flight do not hold up the event loop, Keystead adds little to the vendor's SDK, and an "
        "outage of the KMS is not felt until the grace is over."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Measure each service in processes of its own; in the short form the overhead of the first one alone."""
        rows: list[Figure] = []
        seconds, rounds, calls = setting.choose(short=(0.5, 1, 40), full=(4.0, 3, 1_000))
        for index in SERVICES:
            folder = _new(setting, f"late-{index}")
            late = in_child(kms_loop.lateness, folder, index, seconds=seconds, rounds=rounds, is_full=setting.is_full)
            rows += late.rows
        for index in SERVICES if setting.is_full else SERVICES[:1]:
            folder = _new(setting, f"overhead-{index}")
            rows += in_child(kms_loop.overhead, folder, index, calls=calls, is_full=setting.is_full).rows
        rows += in_child(kms_outage.outage, _new(setting, "outage"), calls=setting.choose(short=200, full=5_000)).rows
        return rows


def _new(setting: Setting, name: str) -> Path:
    folder = setting.folder / name
    folder.mkdir()
    return folder
