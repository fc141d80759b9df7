"""What each version of a keyring still protects: how many ciphertexts of it each declared data source has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keystead.errors import KMSError
from keystead.lifecycle.creation import get_keyring
from keystead.manager.key_listing import newest_versions
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyInfo, DataKeyState
from keystead.ports import AuditEvent, KeyUse

MOST: Final = 100
"""How many versions, the newest, are looked for."""


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What was found in a data source.

    Attributes:
        counts: ciphertexts by the version that they are under; versions without any are left out.
        error: why it could not be looked through; None where it was.
    """

    use: KeyUse
    counts: Mapping[int, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Protected:
    """The newest versions of a keyring that are not destroyed, the oldest of them first, and where they are needed."""

    keyring: str
    versions: list[DataKeyInfo]
    sources: list[SourceCounts]

    @property
    def is_whole(self) -> bool:
        """Whether every declared source was looked through."""
        return all(each.error is None for each in self.sources)

    def by_version(self, version: int) -> list[tuple[str, int]]:
        """Return the sources that hold ciphertexts of a version, and how many."""
        return [(each.use.name, each.counts[version]) for each in self.sources if version in each.counts]


async def protected(km: KeyManager, keyring: str) -> Protected:
    """Look through every declared data source of a keyring, as a destroy does; one that cannot be read is told so.

    Each source is read once, whole: that takes as long as it takes.

    Raises:
        KeyNotFoundError: there is no such keyring.
    """
    session = await km.session()
    s = session.surroundings
    async with s.store.reading() as work:
        await get_keyring(work, keyring)
        uses = await work.key_uses(keyring)
    found = await newest_versions(km, keyring, limit=MOST)
    versions = [key for key in found if key.state is not DataKeyState.DESTROYED]
    by_id = {key.id: key.version for key in versions}
    sources = []
    for use in uses:
        try:
            hits = await session.lifecycle.destruction.look(use, tuple(by_id))
        except KMSError as exc:
            sources.append(SourceCounts(use, error=str(exc)))
        else:
            sources.append(SourceCounts(use, {by_id[key_id]: hit for key_id, hit in hits.items() if hit}))
    async with s.store.transaction() as work:
        await s.audit.record(work, AuditEvent("keyring.count_uses", keyring, details={"sources": len(uses)}))
    return Protected(keyring, versions, sources)
