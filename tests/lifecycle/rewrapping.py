"""A store with several keyrings to rewrap, and what is asked of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from keystead.lifecycle.rewrap import Rewrap
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING
from tests.fakes.world import World, session_of


async def rewrap_of(km: KeyManager) -> Rewrap:
    return (await session_of(km)).lifecycle.rewrap


async def filled(world: World, km: KeyManager) -> dict[str, bytes]:
    """Three keyrings with two versions each, and a ciphertext of every version."""
    sealed = {}
    for name in ("default", "a", "b"):
        ring = await km.keyring(name)
        sealed[f"{name} 1"] = ring.local_encrypt(b"x")
        await ring.rotate()
        sealed[f"{name} 2"] = ring.local_encrypt(b"x")
    return sealed


async def readable(km: KeyManager, sealed: Mapping[str, bytes]) -> bool:
    return all([await (await km.keyring(name.split()[0])).decrypt_local(blob) == b"x" for name, blob in sealed.items()])


async def wrapped_by(world: World) -> set[int | None]:
    return {row.wrapped_by for row in await world.rows() if row.keyring != WRAP_KEYRING}
