"""A token's time: renewing it, replacing it, and what happens to it while nobody calls."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref

import pytest

from keystead.errors import ProviderAuthError
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from tests.fakes.clock import FakeClock
from tests.providers.stubs import until
from tests.providers.vault.making import Making

HOUR = 3600.0


def renewals(making: Making) -> int:
    return len(making.paths("renew-self"))


def logins(making: Making) -> int:
    return len(making.paths("/login"))


async def test_a_token_is_renewed_at_two_thirds_of_its_time_and_not_before(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    await provider.describe(key)
    clock.advance(HOUR * 0.66)
    await provider.describe(key)
    assert renewals(making) == 0
    clock.advance(HOUR * 0.01)
    await provider.describe(key)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (1, 1)
    clock.advance(HOUR * 0.67)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (2, 1)


async def test_many_calls_at_the_time_of_a_renewal_make_one_of_it(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    sealed = await provider.encrypt(b"value", key)
    clock.advance(HOUR * 0.7)
    await asyncio.gather(*(provider.decrypt(sealed) for _ in range(30)))
    assert (renewals(making), logins(making)) == (1, 1)


async def test_a_token_whose_maximum_comes_near_is_replaced_before_its_end(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    role = making.bao.app_role(token_ttl="1h")
    provider = making.by_role(role, clock=clock)
    await provider.describe(key)
    # The server gives less than it gave at first, as it does near the token's maximum.
    near_its_end = {"auth": {"client_token": "s.x", "lease_duration": 600, "renewable": True}}
    content = {"Content-Type": "application/json"}
    token = str.__str__(provider._client.login.token())
    near_its_end["auth"]["client_token"] = token
    making.proxy.fail_next(1, status=200, body=json.dumps(near_its_end).encode(), headers=content, path="renew-self")
    clock.advance(HOUR * 0.7)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (1, 1)
    clock.advance(401)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (1, 2)


async def test_a_token_that_is_not_renewable_is_replaced_by_another_login(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    role = making.bao.app_role(token_ttl="1h", token_type="batch")
    provider = making.by_role(role, clock=clock)
    await provider.describe(key)
    clock.advance(HOUR * 0.7)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (0, 2)
    await provider.aclose()
    assert making.paths("revoke") == []


async def test_a_renewal_that_fails_is_tried_again_while_the_token_is_good(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    await provider.describe(key)
    making.proxy.fail_next(1, status=503, body=b'{"errors":["Vault is sealed"]}', path="renew-self")
    making.proxy.drop_next(1, path="renew-self")
    clock.advance(HOUR * 0.7)
    for _ in range(3):
        await provider.describe(key)
    assert (renewals(making), logins(making)) == (1, 1)
    for _ in range(3):
        clock.advance(HOUR * 0.08)
        await provider.describe(key)
    assert renewals(making) >= 3
    assert logins(making) == 1


async def test_a_token_that_may_not_renew_itself_is_replaced_by_another_login(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="1h", token_no_default_policy=True), clock=clock)
    await provider.describe(key)
    clock.advance(HOUR * 0.7)
    await provider.describe(key)
    assert (renewals(making), logins(making)) == (1, 2)


async def test_a_given_token_is_renewed_as_well_where_it_can_be(making: Making, clock: FakeClock) -> None:
    bao = making.bao
    key, token = bao.new_key(), bao.new_token(bao.user_policy, ttl="1h")
    provider = making.provider(token=token, clock=clock)
    await provider.describe(key)
    clock.advance(HOUR * 0.7)
    await provider.describe(key)
    assert renewals(making) == 1


async def test_a_given_token_that_cannot_be_renewed_is_used_to_its_end(making: Making, clock: FakeClock) -> None:
    bao = making.bao
    key, token = bao.new_key(), bao.new_token(bao.user_policy, ttl="1h", renewable=False)
    provider = making.provider(token=token, clock=clock)
    await provider.describe(key)
    clock.advance(HOUR * 2)
    await provider.describe(key)
    assert renewals(making) == 0
    bao.revoke(token)
    with pytest.raises(ProviderAuthError):
        await provider.describe(key)


async def test_short_leases_and_a_near_maximum_are_lived_through_without_an_error(making: Making) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="2s", token_max_ttl="4s"))
    sealed = await provider.encrypt(b"value", key)
    until = time.monotonic() + 5.2
    while time.monotonic() < until:
        assert await provider.decrypt(sealed) == b"value"
        await asyncio.sleep(0.05)
    assert renewals(making) >= 1
    assert logins(making) >= 2


async def test_a_token_is_renewed_while_nobody_calls(making: Making) -> None:
    # A secret id for one login: without the renewal there would be no way back.
    role = making.bao.app_role(token_ttl="3s", secret_id_num_uses=1)
    provider = making.by_role(role)
    sealed = await provider.encrypt(b"value", making.bao.new_key())
    await until(lambda: renewals(making))
    assert (renewals(making), logins(making)) == (1, 1)
    assert await provider.decrypt(sealed) == b"value"


async def test_looking_after_a_token_leaves_no_task_behind(making: Making) -> None:
    provider = making.by_role(making.bao.app_role(token_ttl="1h"))
    await provider.describe(making.bao.new_key())
    assert len(asyncio.all_tasks()) == 1
    await provider.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_looking_after_a_token_keeps_no_provider_alive(making: Making) -> None:
    token = making.bao.new_token(making.bao.user_policy, ttl="1h")

    async def used_and_forgotten() -> weakref.ref[VaultKMSProvider]:
        provider = VaultKMSProvider(VaultConfig(making.proxy.url, token=token), environ={})
        await provider.describe(making.bao.new_key())
        provider._workers.close()
        provider._client.close()
        return weakref.ref(provider)

    alive = await used_and_forgotten()
    for _ in range(100):
        # The thread that made the last call may still be putting it away.
        await asyncio.sleep(0.01)
        gc.collect()
        if alive() is None:
            break
    assert alive() is None


async def test_a_renewal_that_comes_after_closing_does_nothing(making: Making, clock: FakeClock) -> None:
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    await provider.describe(making.bao.new_key())
    await provider.aclose()
    making.proxy.requests.clear()
    provider._keeper._begin()
    await provider.renew_login()
    assert making.paths() == []


async def test_a_renewal_under_way_in_another_thread_is_not_looked_for_again_and_again(
    making: Making, clock: FakeClock
) -> None:
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    await provider.describe(making.bao.new_key())
    clock.advance(HOUR * 0.7)
    with provider._client.login._once.lock:
        await provider.renew_login()
        timer = provider._keeper._timer
        assert timer is not None
        assert timer.when() > asyncio.get_running_loop().time() + 0.5
    await provider.renew_login()
    assert renewals(making) == 1
