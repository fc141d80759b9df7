"""What `keystead transit config` and `soft-delete` say of the key holds for a running plugin, and one that starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keystead.manager.transit import TransitEngine, transit
from keystead.transit.administration import KeyChanges
from tests.fakes.postgres import PostgresServer
from tests.server.kubernetes.plugins import KEY, SECRET, Installation, Plugin, healthy, until


@asynccontextmanager
async def _elsewhere(cluster: Installation) -> AsyncIterator[TransitEngine]:
    async with cluster.manager(background=False) as km:
        yield await transit(km)


async def _code(plugin: Plugin, made: dict[str, Any]) -> str:
    return str((await plugin.decrypt(made))["code"])


async def _refused(plugin: Plugin, made: dict[str, Any]) -> bool:
    return await _code(plugin, made) == "FailedPrecondition"


async def _read(plugin: Plugin, made: dict[str, Any]) -> bool:
    return not await _code(plugin, made)


async def _moved(plugin: Plugin, made: dict[str, Any]) -> bool:
    return bool((await plugin.status())["key_id"] != made["key_id"])


async def test_a_version_before_the_oldest_that_decrypts_is_refused_until_that_is_taken_back(
    cluster: Installation,
) -> None:
    async with _elsewhere(cluster) as engine:
        async with cluster.plugin() as plugin:
            old = await plugin.encrypt()
            await cluster.rotate()
            await until(lambda: _moved(plugin, old))
            new = await plugin.encrypt()
            await engine.administration.configure("", KEY, KeyChanges(min_decryption=2))
            await until(lambda: _refused(plugin, old))
            refused = await plugin.decrypt(old)
            assert "--min-decryption" in refused["message"]
            assert "plaintext" not in refused or not refused["plaintext"]
            assert (await plugin.decrypt(new))["plaintext"] == SECRET
        async with cluster.plugin() as again:
            assert await _refused(again, old)
            assert (await again.decrypt(new))["plaintext"] == SECRET
            await engine.administration.configure("", KEY, KeyChanges(min_decryption=1))
            await until(lambda: _read(again, old))


async def test_nothing_is_encrypted_under_a_version_that_decrypts_no_more(cluster: Installation) -> None:
    async with _elsewhere(cluster) as engine, cluster.plugin() as plugin:
        first = await plugin.encrypt()
        await engine.administration.rotate("", KEY)
        await engine.administration.configure("", KEY, KeyChanges(min_decryption=2))
        await until(lambda: _refused(plugin, first))
        made = await plugin.encrypt()
        assert made["code"] == "FailedPrecondition" or made["key_id"] != first["key_id"]
        await until(lambda: healthy(plugin.client))
        assert (await plugin.decrypt(await plugin.encrypt()))["plaintext"] == SECRET


async def test_a_soft_deleted_key_is_out_of_use_until_it_is_restored(cluster: Installation) -> None:
    async with _elsewhere(cluster) as engine, cluster.plugin() as plugin:
        made = await plugin.encrypt()
        await engine.administration.soft_delete("", KEY)
        await until(lambda: _refused(plugin, made))
        told = await plugin.status()
        assert told["healthz"].startswith("key_state: ")
        assert told["key_id"] == made["key_id"]
        refused = await plugin.encrypt()
        assert (refused["code"], "keystead transit restore" in refused["message"]) == ("FailedPrecondition", True)
        await engine.administration.soft_delete("", KEY, deleted=False)
        await until(lambda: healthy(plugin.client))
        assert (await plugin.decrypt(made))["plaintext"] == SECRET


async def test_a_plugin_starts_under_a_soft_deleted_key_and_says_so(cluster: Installation) -> None:
    async with _elsewhere(cluster) as engine:
        async with cluster.plugin() as plugin:
            made = await plugin.encrypt()
        await engine.administration.soft_delete("", KEY)
        async with cluster.starting() as (_, _, client):
            await until(lambda: _says(client, "key_state: "))
            await engine.administration.soft_delete("", KEY, deleted=False)
            await until(lambda: healthy(client))
            read = await client.ask("decrypt", **{name: made[name] for name in ("ciphertext", "key_id", "annotations")})
            assert read["plaintext"] == SECRET


async def _says(client: Any, text: str) -> bool:
    return str((await client.ask("status"))["healthz"]).startswith(text)


@pytest.mark.parametrize("cluster", ["postgresql"], indirect=True)
async def test_what_was_allowed_last_holds_while_the_database_is_away(
    cluster: Installation, postgres_server: PostgresServer
) -> None:
    async with cluster.plugin() as plugin:
        old = await plugin.encrypt()
        async with _elsewhere(cluster) as engine:
            await cluster.rotate()
            await until(lambda: _moved(plugin, old))
            new = await plugin.encrypt()
            await engine.administration.configure("", KEY, KeyChanges(min_decryption=2))
            await until(lambda: _refused(plugin, old))
        postgres_server.stop()
        assert await _refused(plugin, old)
        assert (await plugin.decrypt(new))["plaintext"] == SECRET
        postgres_server.start()
        await until(lambda: healthy(plugin.client))
