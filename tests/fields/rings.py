"""Keyrings of a manager that is not there: what a field cipher asks for, over random keys."""

from __future__ import annotations

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

    def find(self, name: str) -> Keyring | None:
        return self.rings.get(name)

    find_index = find_former = find

    def fetch(self, ring: Keyring, key_id: int) -> bool:
        return False

    def owner_of(self, key_id: int) -> str | None:
        return next((name for name, one in self.rings.items() if key_id in one.snapshot.keys), None)

    def require_current_view(self) -> None:
        if not self.is_current:
            raise StaleViewError("not polled")


def cipher_of(field: Field, *rings: Keyring) -> FieldCipher:
    """Return the cipher of a field over the given keyrings, or over a default and an index keyring of one version."""
    return FieldCipher(field, FakeKeyrings(*(rings or (ring(), ring(name="index", suite=0)))))
