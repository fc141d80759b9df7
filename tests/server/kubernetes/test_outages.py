"""A KMS and a database that are away, at the start and later: told by Status and codes, and over without restart."""

from __future__ import annotations

import asyncio

import pytest

from keystead.errors import CouldNotVerifyError, KMSError, ProviderAuthError, ProviderConnectionError
from keystead.server.kubernetes.checking import Checked, check
from tests.fakes.postgres import PostgresServer
from tests.server.kubernetes.plugins import POLL_S, SECRET, Installation, Plugin, healthy, named, until

SECRET_TEXT = "https://ada:canary-password@canary-host/"


async def _is_unhealthy(plugin: Plugin) -> bool:
    return not await healthy(plugin.client)


@pytest.mark.parametrize(
    ("error", "code", "grace_s"),
    [
        (ProviderConnectionError(SECRET_TEXT), "provider_connection", 0.3),
        (ProviderAuthError(SECRET_TEXT), "provider_auth", 3600.0),
    ],
    ids=["away", "denied"],
)
async def test_a_kms_that_confirms_its_key_no_more_ends_use_until_it_does(
    cluster: Installation, error: KMSError, code: str, grace_s: float
) -> None:
    async with cluster.plugin(kek_recheck_s=0.3, grace_s=grace_s) as plugin:
        told, made = await plugin.status(), await plugin.encrypt()
        cluster.kms.fail_always(error)
        await until(lambda: _is_unhealthy(plugin))
        refused = await plugin.status()
        assert refused["version"] == "v2"
        assert refused["healthz"].startswith(f"{code}: ")
        assert "the plugin then goes on by itself" in refused["healthz"]
        # With the key id it had an API server writes on under what it has already.
        assert refused["key_id"] == told["key_id"]
        answers = [refused, await plugin.encrypt(), await plugin.decrypt(made)]
        assert [each["code"] for each in answers[1:]] == ["Unavailable", "Unavailable"]
        assert "canary" not in str(answers)
        cluster.kms.heal()
        await until(lambda: healthy(plugin.client))
        assert (await plugin.status())["key_id"] == told["key_id"]
        assert (await plugin.decrypt(made))["plaintext"] == SECRET
        assert (await plugin.decrypt(await plugin.encrypt()))["plaintext"] == SECRET


async def test_a_kms_that_is_away_for_less_than_the_grace_is_not_missed(cluster: Installation) -> None:
    async with cluster.plugin(kek_recheck_s=0.2) as plugin:
        before = cluster.kms.calls.total()
        cluster.kms.fail_always(ProviderConnectionError(SECRET_TEXT))
        await until(lambda: _asked(cluster, before))
        assert await healthy(plugin.client)
        assert (await plugin.decrypt(await plugin.encrypt()))["plaintext"] == SECRET


async def test_a_plugin_starts_before_its_kms_and_says_so(cluster: Installation) -> None:
    cluster.kms.fail_always(ProviderAuthError(SECRET_TEXT))
    async with cluster.starting() as (_, _, client):
        await until(lambda: _says(client, "provider_auth: "))
        told = await client.ask("status")
        assert (told["version"], told["key_id"]) == ("v2", "")
        answers = [await client.ask("encrypt", plaintext=SECRET), await client.ask("decrypt", ciphertext=b"x")]
        assert [each["code"] for each in answers] == ["Unavailable", "Unavailable"]
        assert "canary" not in str([told, *answers])
        cluster.kms.heal()
        await until(lambda: healthy(client))
        assert (await client.ask("encrypt", plaintext=SECRET))["key_id"]


ON_POSTGRESQL = pytest.mark.parametrize("cluster", ["postgresql"], indirect=True)


@ON_POSTGRESQL
async def test_a_database_that_is_away_is_told_of_while_keys_in_memory_go_on(
    cluster: Installation, postgres_server: PostgresServer
) -> None:
    async with cluster.plugin() as plugin, cluster.plugin("other", epoch_max_age_s=3600.0) as other:
        told, made = await plugin.status(), await plugin.encrypt()
        new = await cluster.rotate(promote="now")
        await until(lambda: _has(plugin, new))
        postgres_server.stop()
        await until(lambda: _is_unhealthy(plugin))
        unhealthy = await plugin.status()
        assert unhealthy["healthz"].startswith("store_unavailable: the database cannot be reached; bring it back")
        assert unhealthy["key_id"] == told["key_id"]
        assert (await plugin.decrypt(made))["plaintext"] == SECRET
        later = await plugin.encrypt()
        assert later["key_id"] == told["key_id"]
        # A key that is not in memory cannot be had, and that is told from one that is not there.
        unknown = later["ciphertext"][:2] + new.to_bytes(8, "big") + later["ciphertext"][10:]
        key_id = later["key_id"].rpartition("/")[0] + named(new)
        refused = await other.decrypt(later, ciphertext=unknown, key_id=key_id)
        assert refused["code"] == "Unavailable"
        assert "postgres" not in str([unhealthy, refused])
        postgres_server.start()
        await until(lambda: healthy(plugin.client))
        assert (await other.decrypt(later))["plaintext"] == SECRET


@ON_POSTGRESQL
async def test_a_database_that_says_nothing_holds_up_no_status_and_no_key_in_memory(
    cluster: Installation, postgres_server: PostgresServer
) -> None:
    async with cluster.plugin() as plugin:
        made = await plugin.encrypt()
        with postgres_server.silent():
            for _ in range(3):
                await asyncio.sleep(2 * POLL_S)
                told = await plugin.client.ask("status", timeout_ms=200)
                answers = [
                    told,
                    await plugin.client.ask("encrypt", plaintext=SECRET, timeout_ms=200),
                    await plugin.decrypt(made, timeout_ms=200),
                ]
                assert [each["code"] for each in answers] == [""] * 3
                assert answers[1]["key_id"] == told["key_id"]
            await until(lambda: _is_unhealthy(plugin))
        await until(lambda: healthy(plugin.client))


@ON_POSTGRESQL
async def test_a_plugin_starts_before_its_database(cluster: Installation, postgres_server: PostgresServer) -> None:
    postgres_server.stop()
    async with cluster.starting() as (_, _, client):
        await until(lambda: _says(client, "store_unavailable: "))
        assert (await client.ask("encrypt", plaintext=SECRET))["code"] == "Unavailable"
        postgres_server.start()
        await until(lambda: healthy(client))


async def test_a_restored_store_encrypts_nothing_until_it_is_recovered_and_says_how(
    cluster: Installation, plugin: Plugin
) -> None:
    made = await plugin.encrypt()
    async with plugin.manager.require_session().surroundings.store.transaction() as work:
        await work.set_restored(True)
    await until(lambda: _is_unhealthy(plugin))
    told = await plugin.status()
    assert "keystead store recover" in told["healthz"]
    refused = await plugin.encrypt()
    assert (refused["code"], "recover" in refused["message"]) == ("FailedPrecondition", True)
    assert (await plugin.decrypt(made))["plaintext"] == SECRET


async def _asked(cluster: Installation, before: int) -> bool:
    return cluster.kms.calls.total() > before


async def _says(client: object, text: str) -> bool:
    told: dict[str, str] = await client.ask("status")  # type: ignore[attr-defined]
    return told["healthz"].startswith(text)


async def _has(plugin: Plugin, data_key_id: int) -> bool:
    return data_key_id in plugin.ring().snapshot.keys


async def test_a_check_tells_what_is_wrong_and_that_something_answers_as_no_plugin_does(cluster: Installation) -> None:
    async with cluster.plugin(kek_recheck_s=0.3, grace_s=3600.0) as plugin:
        assert await check(plugin.path) == Checked("ok", (await plugin.status())["key_id"])
        cluster.kms.fail_always(ProviderAuthError(SECRET_TEXT))
        await until(lambda: _is_unhealthy(plugin))
        checked = await check(plugin.path)
        assert checked.healthz.startswith("provider_auth: ")
        assert not checked.is_healthy
    with pytest.raises(CouldNotVerifyError, match="nobody listens there"):
        await check(plugin.path)
