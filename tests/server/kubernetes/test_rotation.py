"""Several plugins of one store: a new version is told by nobody before everybody can read it."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.kubernetes.plugins import SECRET, Installation, Plugin, named, until

SLOW_S = 2.0


async def _told(plugin: Plugin) -> str:
    return str((await plugin.status())["key_id"])


@pytest.mark.parametrize("promote", ["auto", "now"])
async def test_no_status_tells_of_a_new_version_before_both_nodes_have_it(cluster: Installation, promote: str) -> None:
    async with cluster.plugin("quick") as quick, cluster.plugin("slow", epoch_max_age_s=SLOW_S) as slow:
        before = await _told(quick)
        assert await _told(slow) == before
        old = await quick.encrypt()
        new = await cluster.rotate(promote=promote)
        changed = dict.fromkeys(("quick", "slow"), False)
        early = 0
        deadline = asyncio.get_running_loop().time() + 30
        while not all(changed.values()):
            assert asyncio.get_running_loop().time() < deadline
            for name, plugin in (("quick", quick), ("slow", slow)):
                key_id = await _told(plugin)
                made = await plugin.encrypt()
                assert made["key_id"] == key_id
                both_have_it = all(new in each.ring().snapshot.keys for each in (quick, slow))
                if key_id.endswith(named(new)):
                    assert both_have_it
                    changed[name] = True
                else:
                    assert key_id == before
                    early += not both_have_it
                for reader in (quick, slow):
                    assert (await reader.decrypt(made))["plaintext"] == SECRET
        assert early > 0
        assert await _told(quick) == await _told(slow)
        for reader in (quick, slow):
            assert (await reader.decrypt(old))["plaintext"] == SECRET


async def test_a_version_that_is_active_already_is_told_when_status_is_asked_and_not_between(
    cluster: Installation, plugin: Plugin
) -> None:
    before = await _told(plugin)
    new = await cluster.rotate()
    await until(lambda: _is_active(plugin, new))
    await asyncio.sleep(1.5)  # what follows the rotation has looked by then
    made = await plugin.encrypt()
    assert made["key_id"] == before
    assert (await plugin.decrypt(made))["plaintext"] == SECRET
    await until(lambda: _has_moved(plugin, before))
    assert (await plugin.encrypt())["key_id"] == await _told(plugin)


async def test_a_plugin_that_starts_again_tells_the_same_key_id_and_reads_what_the_one_before_has_written(
    cluster: Installation,
) -> None:
    async with cluster.plugin() as first:
        told, made = await _told(first), await first.encrypt()
        new = await cluster.rotate()
        await until(lambda: _has_moved(first, told))
        later = await first.encrypt()
    for _ in range(2):
        async with cluster.plugin() as again:
            assert (await _told(again)).endswith(named(new))
            assert (await again.encrypt())["key_id"] == later["key_id"]
            for each in (made, later):
                assert (await again.decrypt(each))["plaintext"] == SECRET


async def test_a_node_that_died_holds_a_rotation_up_until_its_heartbeat_ends(cluster: Installation) -> None:
    async with cluster.plugin("living") as living, cluster.plugin("dead", epoch_max_age_s=0.3) as dead:
        session = dead.manager.require_session()
        assert session._task is not None
        session._task.cancel()
        await asyncio.wait({session._task})
        before = await _told(living)
        new = await cluster.rotate()
        await asyncio.sleep(1.0)
        assert await _told(living) == before
        await until(lambda: _has_moved(living, before))
        assert (await _told(living)).endswith(named(new))
        # What it has not loaded it fetches.
        assert (await dead.decrypt(await living.encrypt()))["plaintext"] == SECRET


async def test_a_version_that_is_out_of_use_is_told_no_more(cluster: Installation) -> None:
    async with cluster.plugin("quick") as quick, cluster.plugin("slow", epoch_max_age_s=SLOW_S):
        before = await _told(quick)
        old = quick.ring().snapshot.active
        assert old is not None
        new = await cluster.rotate(promote="now")
        await quick.manager.require_session().lifecycle.destruction.disable(old)
        refused = await quick.encrypt()
        while not refused["code"]:
            refused = await quick.encrypt()
        assert (refused["code"], "status" in refused["message"]) == ("FailedPrecondition", True)
        assert (await _told(quick)).endswith(named(new))
        assert (await quick.encrypt())["key_id"] != before


async def _is_active(plugin: Plugin, data_key_id: int) -> bool:
    return plugin.ring().snapshot.active == data_key_id


async def _has_moved(plugin: Plugin, before: str) -> bool:
    return await _told(plugin) != before
