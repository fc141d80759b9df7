"""Fields whose index keys are rotated."""

from __future__ import annotations

from keystead.fields import Exact, Field
from keystead.lifecycle.index_rotation import IndexRotation
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState
from tests.fakes.world import World, session_of

EMAIL = Field("people", "email", indexes=(Exact(),))
PHONE = Field("people", "phone", indexes=(Exact(),))
SOURCE = "app:people"


async def prepare(km: KeyManager, *fields: Field) -> IndexRotation:
    """Load and register fields (EMAIL, if none is named), and return what rotates their index key."""
    fields = fields or (EMAIL,)
    await km.load_fields(*fields)
    for field in fields:
        await km.register_field(field, SOURCE)
    return (await session_of(km)).lifecycle.index_rotation


async def versions(world: World, name: str = "index") -> dict[int, DataKeyState]:
    return {row.version: row.state for row in await world.rows(name)}


def live(km: KeyManager) -> tuple[int, ...]:
    return km.field(EMAIL).index_versions
