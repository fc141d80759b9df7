"""What each version of a keyring still protects."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import KeyNotFoundError
from keystead.manager import admin
from keystead.manager.protected import protected
from tests.audit.worlds import entry_of
from tests.fakes.world import World


async def test_ciphertexts_are_counted_by_version_in_each_source_that_can_be_read(world: World, tmp_path: Path) -> None:
    async with world.open(audit=True) as km:
        await admin.create_keyring(km, "orders")
        ring = await km.keyring("orders", create=False)
        (tmp_path / "one").write_bytes(ring.local_encrypt(b"old"))
        await admin.rotate_keyring(km, "orders", promote="now")
        (tmp_path / "two").write_bytes(ring.local_encrypt(b"new"))
        await admin.rotate_keyring(km, "orders", promote="now")
        await admin.declare_use(km, "orders", "files", f"file:{tmp_path}/*")
        await admin.declare_use(km, "orders", "elsewhere", "app:unknown")
        found = await protected(km, "orders")
        assert [key.version for key in found.versions] == [1, 2, 3]
        assert [found.by_version(version) for version in (1, 2, 3)] == [[("files", 1)], [("files", 1)], []]
        assert not found.is_whole
        [refused] = [each for each in found.sources if each.error is not None]
        assert refused.use.name == "elsewhere"
        assert "key_sources=" in (refused.error or "")
        assert (await entry_of(world, "keyring.count_uses"))["details"] == {"sources": 2}
        await admin.drop_use(km, "orders", "elsewhere")
        assert (await protected(km, "orders")).is_whole


async def test_a_version_that_is_destroyed_is_not_looked_for(world: World) -> None:
    async with world.open() as km:
        first = await admin.create_keyring(km, "orders")
        await admin.rotate_keyring(km, "orders", promote="now")
        lifecycle = km.require_session().lifecycle
        async with world.store.reading() as work:
            row = await work.find_key(first.id)
        assert row is not None
        await lifecycle.destruction.destroy_now(row)
        found = await protected(km, "orders")
        assert [key.version for key in found.versions] == [2]
        assert found.sources == []


async def test_there_is_no_such_keyring(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError, match="none"):
            await protected(km, "none")
