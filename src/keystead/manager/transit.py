"""The Transit engine over a manager's store."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.manager.manager import KeyManager
from keystead.transit.administration import Administration
from keystead.transit.imports import Imports
from keystead.transit.room import Transit
from keystead.transit.uses import Uses


@dataclass(frozen=True, slots=True)
class TransitEngine:
    """Keys for operations, and their administration."""

    keys: Transit
    administration: Administration
    imports: Imports
    uses: Uses


async def transit(km: KeyManager) -> TransitEngine:
    """Return the engine; nothing is made in the store before the first key is."""
    session = await km.session()
    keys = Transit(session.live, random=session.surroundings.random)
    administration = Administration(keys, session.lifecycle.rotation, session.consent)
    return TransitEngine(keys, administration, Imports(keys, administration), Uses(session.surroundings))
