"""The key service: guessed at, killed, let down by what it stands on, kept busy, and sent anything at all."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from soak.figures import Figure, Figures, Setting


@dataclass(frozen=True)
class Service:
    """A part of what the service withstands, in a module that is imported when it runs: it brings a web framework."""

    name: str
    claim: str
    module: str

    def run(self, setting: Setting) -> list[Figure]:
        """Measure the part."""
        part: Any = import_module(self.module)
        figures = Figures()
        part.measure(setting, figures)
        return figures.rows


GUESSES: Final = Service(
    "guesses",
    "Of ten thousand guesses at a PIN, by every way and on several nodes that are restarted meanwhile, five are "
    "compared with its hash, and the right one is refused while it is locked.",
    "soak.guesses",
)
NODES: Final = Service(
    "nodes",
    "Of four nodes on one database one is killed every few seconds: what any of them acknowledged holds and is in the "
    "one audit trail, quotas and lockouts are exact, and what one node does for all is done once.",
    "soak.nodes",
)
FAULTS: Final = Service(
    "service-faults",
    "With the database, the KMS, the right time or room on the disk gone for a while, the service answers documented "
    "codes, compares no guess that it cannot count, forgets nothing it acknowledged, and recovers without a restart.",
    "soak.service_faults",
)
SOAK: Final = Service(
    "service-soak",
    "A node that is kept busy for half an hour, with requests right and wrong, takes no more memory, tasks and "
    "descriptors at its end than once it was warm.",
    "soak.service_soak",
)
FUZZ: Final = Service(
    "service-fuzz",
    "Requests that fit the schemas of the service or nearly do are answered as the schemas say: none is an error of "
    "500, none hangs, and the node does not grow.",
    "soak.service_fuzz",
)
TRANSIT_FUZZ: Final = Service(
    "transit-fuzz",
    "Requests to the machine API that fit its paths, and recorded ones with anything changed in them, are answered in "
    "its form: none is an error of 500, none hangs, and the node does not grow.",
    "soak.transit_fuzz",
)
TRANSIT_RACE: Final = Service(
    "transit-race",
    "Eight administrators rotate a Transit key and move its minimum version while eight clients encrypt and nodes are "
    "killed: not one ciphertext is lost, no plaintext is wrong, and nobody is refused but for what is too old.",
    "soak.transit_race",
)
TRANSIT_COST: Final = Service(
    "transit-cost",
    "An item of a large batch costs a node at most seven times the bare AES-GCM call, JSON and base64 included; "
    "batches are as fast as OpenBao's, and single calls half as fast at least.",
    "soak.transit_cost",
)
COST: Final = Service(
    "service-cost",
    "A documented verification costs a node, beside one decryption and one hash, at most five times the processor time "
    "of the decryption, with the audit trail, the count of guesses and the metrics.",
    "soak.service_cost",
)
CONSOLE: Final = Service(
    "console",
    "With a thousand keyrings, a hundred thousand devices, and a million rows each of the audit trail and of metrics a "
    "node takes less than 200 ms for any page of the console, and no statement of a page reads all of what grows.",
    "soak.console",
)
