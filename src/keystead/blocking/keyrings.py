"""Keyrings for fields in code that is not async: what is not loaded is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from keystead.crypto.keyring import Keyring
from keystead.errors import KeyNotFoundError
from keystead.manager.fields import ManagerKeyrings
from keystead.runtime.loop import background_loop


class BlockingKeyrings(ManagerKeyrings):
    """A manager's keyrings, loaded at first use; on the background loop itself nothing is waited for."""

    def find(self, name: str) -> Keyring | None:
        """Return a keyring, loaded now if it was not, and made if there is none."""
        ring = super().find(name)
        return ring if ring is not None or background_loop.is_here else background_loop.run(self.load(name))

    def find_subjects(self, names: Collection[str]) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects, loaded now where they were not, and made where there are none."""
        found = super().find_subjects(names)
        if len(found) == len(names) or background_loop.is_here:
            return found
        return background_loop.run(self.load_subjects(names))

    def find_holder(self, key_id: int) -> Keyring | None:
        """Return the keyring that a data key is of, loaded now if it was not; None where there is none."""
        ring = super().find_holder(key_id)
        if ring is None and not background_loop.is_here:
            ring = background_loop.run(self.load_holders([key_id])).get(key_id)
        return ring

    def find_index(self, name: str) -> Keyring | None:
        """Return a keyring of index keys, loaded now if it was not."""
        ring = super().find_index(name)
        return ring if ring is not None or background_loop.is_here else background_loop.run(self.load_index(name))

    def find_former(self, name: str) -> Keyring | None:
        """Return a keyring that values were under before, loaded now if it was not; None where there is none."""
        try:
            return super().find_former(name) or (
                None if background_loop.is_here else background_loop.run(self.load_former(name))
            )
        except KeyNotFoundError:
            return None

    def fetch(self, ring: Keyring, key_id: int) -> bool:
        """Load a data key into ``ring`` now, with one store read; errors as ``decrypt_local``."""
        if background_loop.is_here:
            return False
        background_loop.run(self._fetch(ring, key_id))
        return True

    async def _fetch(self, ring: Keyring, key_id: int) -> None:
        await (await self._manager.session()).lifecycle.lookup.fetch(ring, key_id)

    def require_current_view(self) -> None:
        """Poll if this process has not for too long, or is no node yet."""
        if not background_loop.is_here:
            session = self._manager.require_session()
            if not session.has_current_view:
                background_loop.run(session.poll())
        super().require_current_view()
