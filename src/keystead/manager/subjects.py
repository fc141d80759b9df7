"""Subjects, each with a keyring of its own that can be erased; see ``KeyManager``."""

from __future__ import annotations

from keystead.erasure.receipts import Erasure, ErasureReceipt
from keystead.manager.core import check_keyring_name
from keystead.manager.fields import FieldMembers
from keystead.manager.handle import KeyringHandle
from keystead.model import WRAP_KEYRING, Act, Action


class SubjectMembers(FieldMembers):
    """Keyrings of subjects."""

    async def subject(self, subject: str, *, create: bool = True, tenant_wrap: str | None = None) -> KeyringHandle:
        """Return the keyring of a subject, mostly a person, whose keys ``forget`` destroys for good.

        Neither the store nor a ciphertext, a log or the KMS learns the subject's name: the keyring has a random one.
        Ask again whenever it is needed: a handle whose subject was erased refuses, and asking gives the next one.

        Args:
            subject: what the application calls it: text of 1 to 1 000 characters.
            create: False raises ``KeyNotFoundError`` where it has none, instead of making it.
            tenant_wrap: name of a WRAP keyring of its own, for one that is made.

        Raises:
            ConfigurationError: the manager was given no ``erasures``.
            ErasureLogError: the log of erasures is missing, shorter than it was, or another one.
        """
        if tenant_wrap is not None:
            check_keyring_name(tenant_wrap)
        keys = (await self.session()).subjects
        ring = await keys.ring(subject, create=create, wrap_keyring=tenant_wrap or WRAP_KEYRING)
        return KeyringHandle(ring, self.session, self._policy)

    async def forget(self, subject: str) -> ErasureReceipt:
        """Destroy the keys of a subject for good, and return a signed receipt.

        It is in the log of erasures first, and then in the store: a backup of the store that is put back brings nothing
        back. Returns once every other process of the store has acknowledged it, or after 5 seconds, from when on a
        process that has not looked refuses to use keyrings of subjects.

        Raises:
            KeyNotFoundError: nothing is under keys of that subject; or not any more.
            ApprovalRequiredError: the store asks for two people.
            ErasureLogError, StoreFullError, StoreUnavailableError: the log or the store cannot be written. What is in
                the log already is done as soon as the store can be.
        """
        session = await self.session()
        if not await session.consent.holds():
            return await session.subjects.erase(subject)
        keyring = await session.subjects.subjects.keyring_of(subject)
        async with session.consent.given(Act(Action.SUBJECT_FORGET, keyring)):
            return await session.subjects.erase(subject)

    async def erasures(self) -> list[Erasure]:
        """Return every erasure that the log has, oldest first: keyrings by their random names, and nobody's own.

        Raises:
            ConfigurationError, ErasureLogError: as ``subject``.
        """
        return await (await self.session()).subjects.erasures()

    async def erasure_receipt(self, keyring: str) -> ErasureReceipt:
        """Return a receipt of an erasure by the keyring that it erased, where the first one was lost.

        Args:
            keyring: its random name, as ``erasures``, the audit trail and the first receipt have it.

        Raises:
            KeyNotFoundError: the log has no erasure of it.
            ConfigurationError, ErasureLogError: as ``subject``.
        """
        return await (await self.session()).subjects.receipt(keyring)

    async def receipt_keys(self) -> list[str]:
        """Return the public keys that receipts are verified by, as PEM, the one that signs now first."""
        return (await (await self.session()).subjects.signer()).public_keys()
