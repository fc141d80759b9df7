"""Keyrings of a manager that is not there: what a field cipher asks for, over random keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from keystead.crypto.keyring import Keyring
from keystead.errors import StaleViewError
from keystead.fields import Field, FieldCipher
from tests.crypto.rings import loaded, ring

__all__ = ["FakeKeyrings", "cipher_of", "loaded", "ring"]


class FakeKeyrings:
    """Holds the keyrings it is given; ``is_current`` says whether indexes may be written."""

    def __init__(self, *rings: Keyring) -> None:
        self.rings = {one.name: one for one in rings}
        self.is_current = True
        self.fetched: dict[int, Keyring] = {}
        self.subjects: dict[str, Keyring] = {}

    def find(self, name: str) -> Keyring | None:
        return self.rings.get(name)

    find_index = find_former = find

    def fetch(self, ring: Keyring, key_id: int) -> bool:
        return False

    def find_holder(self, key_id: int) -> Keyring | None:
        return next((one for one in self.rings.values() if key_id in one.snapshot.keys), None)

    def find_subjects(self, names: Collection[str]) -> Mapping[str, Keyring]:
        return {name: ring for name in names if (ring := self.subjects.get(name)) is not None}

    async def load_holders(self, key_ids: Collection[int], *, skip_damaged: bool = False) -> Mapping[int, Keyring]:
        return {key_id: ring for key_id in key_ids if (ring := self.find_holder(key_id)) is not None}

    async def load_subjects(self, names: Collection[str], *, create: bool = True) -> Mapping[str, Keyring]:
        return self.find_subjects(names)

    def owner_of(self, key_id: int) -> str | None:
        return next((name for name, one in self.rings.items() if key_id in one.snapshot.keys), None)

    def require_current_view(self) -> None:
        if not self.is_current:
            raise StaleViewError("not polled")


def cipher_of(field: Field, *rings: Keyring) -> FieldCipher:
    """Return the cipher of a field over the given keyrings, or over a default and an index keyring of one version."""
    return FieldCipher(field, FakeKeyrings(*(rings or (ring(), ring(name="index", suite=0)))))
