"""What fields need of a manager: its keyrings, without knowing how they are loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from keystead.crypto.keyring import Keyring


class Keyrings(Protocol):
    """The keyrings of one manager."""

    def find(self, name: str) -> Keyring | None:
        """Return a keyring that encrypts, if it is loaded; a manager that may block loads it."""

    def find_subjects(self, names: Collection[str]) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects that are loaded, by the subjects' names.

        A manager that may block loads the others, and makes those that are missing.
        """

    def find_holder(self, key_id: int) -> Keyring | None:
        """Return the keyring that a data key is of, usable or not, if it is loaded; one that may block loads it."""

    def find_index(self, name: str) -> Keyring | None:
        """Return a keyring of index keys, if it is loaded; a manager that may block loads it."""

    def find_former(self, name: str) -> Keyring | None:
        """Return a keyring that only decrypts for a field, if it is loaded; a manager that may block loads it."""

    def fetch(self, ring: Keyring, key_id: int) -> bool:
        """Load a data key into ``ring`` and return True, or return False where this manager may not block."""

    def owner_of(self, key_id: int) -> str | None:
        """Return the name of the loaded keyring that holds a data key, or None."""

    async def load_holders(self, key_ids: Collection[int], *, skip_damaged: bool = False) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; those that the store has not are left out.

        With ``skip_damaged`` those that do not unwrap are left out as well.
        """

    async def load_subjects(self, names: Collection[str], *, create: bool = True) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects by their names, loaded; those there are none of are made or left out."""

    def require_current_view(self) -> None:
        """Raise unless this process is a node that has polled the store within its heartbeat.

        Who writes an index must know every version that is to be written: docs/adr/0020-index-keys-by-parity.md.

        Raises:
            StaleViewError: it is not, or has not.
        """
