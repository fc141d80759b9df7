"""Subjects for code that is not async; see ``keystead.KeyManager``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.blocking.handle import KeyringHandle
from keystead.manager import manager
from keystead.runtime.loop import background_loop

if TYPE_CHECKING:
    from keystead.erasure.receipts import Erasure, ErasureReceipt


class SubjectMembers:
    """Keyrings of subjects, and what became of them."""

    _manager: manager.KeyManager

    def subject(self, subject: str, *, create: bool = True, tenant_wrap: str | None = None) -> KeyringHandle:
        """Return the keyring of a subject, mostly a person, whose keys ``forget`` destroys for good."""
        asked = self._manager.subject(subject, create=create, tenant_wrap=tenant_wrap)
        return KeyringHandle(background_loop.run(asked))

    def forget(self, subject: str) -> ErasureReceipt:
        """Destroy the keys of a subject for good, and return a signed receipt."""
        return background_loop.run(self._manager.forget(subject))

    def erasures(self) -> list[Erasure]:
        """Return every erasure that the log has, oldest first: keyrings by their random names, and nobody's own."""
        return background_loop.run(self._manager.erasures())

    def erasure_receipt(self, keyring: str) -> ErasureReceipt:
        """Return a receipt of an erasure by the keyring that it erased, where the first one was lost."""
        return background_loop.run(self._manager.erasure_receipt(keyring))

    def receipt_keys(self) -> list[str]:
        """Return the public keys that receipts are verified by, as PEM, the one that signs now first."""
        return background_loop.run(self._manager.receipt_keys())
