"""Telling an audit trail of keys that were unwrapped, before anybody uses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keystead.ports import AuditEvent, AuditTrail, Detail, NotesUses


class Uses:
    """Collects what a KMS has unwrapped, and tells of it together with the data keys that it was needed for."""

    def __init__(self, audit: AuditTrail) -> None:
        self._audit = audit if isinstance(audit, NotesUses) else None
        self._wrap_keys: list[int] = []

    def unwrapped(self, wrap_key: int) -> None:
        """Take a WRAP key that the KMS has unwrapped; it is told with the next data keys, or by ``loaded`` alone."""
        if self._audit is not None:
            self._wrap_keys.append(wrap_key)

    async def loaded(self, keyring: str, versions: Iterable[int] = (), failed: Mapping[int, str] | None = None) -> None:
        """Tell that versions of a keyring were unwrapped, and which were not, by id and error code.

        Raises:
            KMSError: it cannot be recorded: they must not be used.
        """
        if self._audit is None:
            return
        # Another one may be unwrapped while these are told.
        wrap_keys, self._wrap_keys = self._wrap_keys, []
        details: dict[str, Detail] = {
            "versions": sorted(versions),
            "wrap_keys": [str(each) for each in wrap_keys],
            "failed": {str(key_id): code for key_id, code in (failed or {}).items()},
        }
        told = {name: value for name, value in details.items() if value}
        if not told:
            return
        try:
            await self._audit.note(AuditEvent("key.load", keyring, details=told))
        except BaseException:
            self._wrap_keys[:0] = wrap_keys
            raise

    async def note(self, action: str, **details: Detail) -> None:
        """Tell of another use; errors as ``loaded``."""
        if self._audit is not None:
            await self._audit.note(AuditEvent(action, details=details))
