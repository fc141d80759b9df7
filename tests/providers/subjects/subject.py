"""What the conformance suite needs of a provider under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keystead.errors import DecryptionError
from keystead.model import SignatureAlgorithm
from keystead.ports import KmsProvider


class Faults(Protocol):
    """What can be made to go wrong between a provider and its service; each harness lists what it has."""

    def throttle_next(self, count: int) -> None:
        """Answer the next calls as the service does who is asked too often."""

    def fail_next(self, count: int) -> None:
        """Fail the next calls as the service does for a passing reason."""

    def black_hole(self) -> None:
        """Answer nothing any more."""

    def heal(self) -> None:
        """End everything above."""

    def calls(self) -> int:
        """Return how many calls have reached the service, or what stands in front of it."""

    def expire_credentials(self) -> None:
        """Make what the provider is logged in with worthless; logging in again works."""

    def disable(self, key_id: str) -> None:
        """Disable a key."""

    def destroy(self, key_id: str) -> None:
        """Destroy a key."""


@dataclass(frozen=True)
class Subject:
    """A provider under test.

    Attributes:
        key_id, other_key_id: two keys that encrypt.
        mac_key_id: a key that makes MACs.
        signing_keys: a key for each algorithm that is signed with.
        faults: the switches, where the harness names any.
    """

    provider: KmsProvider
    key_id: str = "first"
    other_key_id: str = "second"
    mac_key_id: str = ""
    signing_keys: Mapping[SignatureAlgorithm, str] = field(default_factory=dict)
    faults: Faults | None = None


@dataclass(frozen=True)
class Harness:
    """How a subject is made, and what it has.

    Attributes:
        make: given an empty folder and the value of the fixture ``service``, returns a subject.
        service: the session's fixture that runs the service.
        capabilities: the Protocols of ``keystead.ports`` that the provider has, no more and no fewer.
        faults: the members of ``Faults`` that work.
        sizes: lengths of plaintexts that are taken, the smallest and the largest among them.
        too_long: a length that is refused before anything is sent, if there is one.
        rotates: whether ``rotate_key`` works here, and does not only say where it would.
        names_versions: whether the service tells which key version it used.
        answers_key_id: whether answers name the key as it was asked for; ARNs and versioned names do not.
        algorithms: what ``signing_keys`` are for.
        wrong_key: what a ciphertext under another key than it names is refused by, and one that was altered.
        encrypts: whether this harness is to be asked for encryption at all.
        rotates_mac_keys: whether ``rotate_key`` rotates the keys that make MACs too.
        signs_digests: whether what runs here signs a message that was hashed before; emulators may hash it again.
    """

    make: Callable[[Path, Any], Subject]
    service: str | None = None
    capabilities: frozenset[type] = frozenset()
    faults: frozenset[str] = frozenset()
    sizes: tuple[int, ...] = (0, 1, 32, 4096)
    too_long: int | None = None
    rotates: bool = False
    names_versions: bool = True
    answers_key_id: bool = True
    algorithms: tuple[SignatureAlgorithm, ...] = ()
    wrong_key: tuple[type[Exception], ...] = (DecryptionError,)
    encrypts: bool = True
    rotates_mac_keys: bool = True
    signs_digests: bool = True
