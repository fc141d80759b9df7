"""Tokens and logins, on the real server."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import uuid4

import pytest

from keystead.errors import ProviderAuthError, ProviderConnectionError
from keystead.providers.guard import GuardedProvider
from tests.fakes.clock import FakeClock
from tests.providers.stubs import until
from tests.providers.vault.making import Making
from tests.services.kubernetes import Issuer
from tests.services.kubernetes import TokenReviews as Reviews
from tests.services.openbao import OpenBao


def logins(making: Making) -> int:
    return len(making.paths("/login"))


async def test_the_token_is_looked_for_in_the_order_of_the_documentation(making: Making, tmp_path: Path) -> None:
    bao = making.bao
    key = bao.new_key()
    good, bad = bao.new_token(bao.user_policy), "s.notatokenatall"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".vault-token").write_text(f"{good}\n")
    (tmp_path / "token").write_text(good)
    (tmp_path / "bad").write_text(bad)
    named = {"VAULT_TOKEN_FILE": str(tmp_path / "token")}
    everywhere = {"VAULT_TOKEN": bad, "VAULT_TOKEN_FILE": str(tmp_path / "bad"), "HOME": str(home)}
    for provider in (
        making.provider(token=good, environ=everywhere),
        making.provider(token_file=tmp_path / "token", environ=everywhere),
        making.provider(environ={**everywhere, "VAULT_TOKEN": good}),
        making.provider(environ={**everywhere, **named, "VAULT_TOKEN": ""}),
        making.provider(environ={"HOME": str(home)}),
        making.provider(environ={"BAO_TOKEN": good}),
    ):
        assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


async def test_a_worthless_token_is_an_authentication_error_that_is_not_repeated(making: Making) -> None:
    provider = making.provider(token="s.notatokenatall")
    with pytest.raises(ProviderAuthError, match="refused the token") as caught:
        await GuardedProvider(provider, "vault").encrypt(b"value", "orders")
    assert not caught.value.retryable
    # Looking itself up was refused as well, and one request made it sure.
    assert making.paths() == ["auth/token/lookup-self", "transit/keys/orders"]


async def test_a_token_file_is_read_again_once_when_its_token_is_refused(making: Making, tmp_path: Path) -> None:
    bao = making.bao
    key, file = bao.new_key(), tmp_path / "token"
    first = bao.new_token(bao.user_policy)
    file.write_text(first)
    provider = making.provider(token_file=file)
    sealed = await provider.encrypt(b"value", key)
    file.write_text(bao.new_token(bao.user_policy))
    bao.revoke(first)
    assert await provider.decrypt(sealed) == b"value"
    bao.revoke(file.read_text())
    making.proxy.requests.clear()
    with pytest.raises(ProviderAuthError):
        await provider.decrypt(sealed)
    assert making.paths("decrypt") == [f"transit/decrypt/{key}"]


async def test_approle_takes_its_secret_id_from_configuration_file_or_environment(
    making: Making, tmp_path: Path
) -> None:
    bao, role = making.bao, making.bao.app_role()
    key, file = bao.new_key(), tmp_path / "secret-id"
    file.write_text(role.secret_id() + "\n")
    from_environment = {
        "VAULT_AUTH_METHOD": "approle",
        "VAULT_AUTH_MOUNT": role.mount,
        "VAULT_ROLE_ID": role.role_id,
    }
    for provider in (
        making.by_role(role),
        making.by_role(role, secret_id_file=file),
        making.provider(auth_method="approle", auth_mount=role.mount, role=role.role_id, secret_id=role.secret_id()),
        making.provider(environ={**from_environment, "VAULT_SECRET_ID": role.secret_id()}),
        making.provider(environ={**from_environment, "VAULT_SECRET_ID_FILE": str(file)}),
    ):
        assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


async def test_a_role_may_need_no_secret_id(making: Making) -> None:
    role = making.bao.app_role(bind_secret_id=False, token_bound_cidrs="127.0.0.1/32")
    provider = making.provider(auth_method="approle", auth_mount=role.mount, role_id=role.role_id)
    await provider.describe(making.bao.new_key())


@pytest.mark.parametrize("wrong", ["role_id", "secret_id"])
async def test_a_refused_approle_login_says_what_may_be_wrong(making: Making, wrong: str) -> None:
    role = making.bao.app_role()
    provider = making.by_role(role, **{wrong: "wrong"})
    with pytest.raises(ProviderAuthError, match="role id or secret id is wrong"):
        await GuardedProvider(provider, "vault").encrypt(b"value", "orders")
    assert logins(making) == 1


async def test_fifty_calls_at_the_start_log_in_once(making: Making) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role())
    await asyncio.gather(*(provider.encrypt(b"value", key) for _ in range(50)))
    assert logins(making) == 1


async def test_a_login_that_fails_fails_for_everybody_who_waited_for_it(making: Making) -> None:
    provider = making.by_role(making.bao.app_role(), secret_id="wrong")
    making.proxy.delay_s = 0.2
    results = await asyncio.gather(*(provider.describe("orders") for _ in range(8)), return_exceptions=True)
    assert all(isinstance(result, ProviderAuthError) for result in results)
    # Those who came while it was under way share it; a thread that was slower to begin makes its own.
    assert logins(making) < 8


async def test_a_revoked_token_is_replaced_by_one_login_however_many_calls_meet_it(making: Making) -> None:
    role, key = making.bao.app_role(), making.bao.new_key()
    provider = making.by_role(role)
    sealed = await provider.encrypt(b"value", key)
    role.revoke_tokens()
    assert await asyncio.gather(*(provider.decrypt(sealed) for _ in range(20))) == [b"value"] * 20
    assert logins(making) == 2


async def test_a_server_that_refuses_every_token_is_logged_in_to_once_more_and_not_again(making: Making) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role())
    sealed = await provider.encrypt(b"value", key)
    refusal = json.dumps({"errors": ["permission denied"]}).encode()
    making.proxy.fail_next(9, status=403, body=refusal, path="decrypt", headers={"Content-Type": "application/json"})
    making.proxy.requests.clear()
    with pytest.raises(ProviderAuthError, match="refused the token"):
        await GuardedProvider(provider, "vault").decrypt(sealed)
    assert (logins(making), len(making.paths("decrypt"))) == (1, 2)


async def test_an_operation_that_a_policy_denies_is_no_reason_to_log_in(making: Making) -> None:
    policy = making.bao.policy('path "transit/keys/+" { capabilities = ["read"] }')
    provider = making.by_role(making.bao.app_role(policies=policy))
    key = making.bao.new_key()
    for _ in range(3):
        with pytest.raises(ProviderAuthError, match=f"update on transit/encrypt/{key}"):
            await provider.encrypt(b"value", key)
    assert logins(making) == 1


async def test_after_a_minute_a_denied_operation_is_tried_with_another_login_as_roles_may_have_changed(
    making: Making, clock: FakeClock
) -> None:
    bao = making.bao
    policy = bao.policy('path "transit/keys/+" { capabilities = ["read"] }')
    role, key = bao.app_role(policies=policy), bao.new_key()
    provider = making.by_role(role, clock=clock)
    with pytest.raises(ProviderAuthError):
        await provider.encrypt(b"value", key)
    bao.do("POST", f"auth/{role.mount}/role/{role.name}", {"token_policies": bao.user_policy})
    clock.advance(61)
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


async def test_a_denied_operation_does_not_cost_a_token_that_is_good_for_others(
    making: Making, clock: FakeClock
) -> None:
    bao = making.bao
    policy = bao.policy('path "transit/keys/+" { capabilities = ["read"] }')
    role, key = bao.app_role(policies=policy, secret_id_num_uses=1), bao.new_key()
    provider = making.by_role(role, clock=clock)
    await provider.describe(key)
    clock.advance(61)
    for _ in range(3):
        with pytest.raises(ProviderAuthError, match="policy"):
            await provider.encrypt(b"value", key)
    # The secret id was good for one login: another was tried once, and the token is as good as before.
    assert logins(making) == 2
    assert (await provider.describe(key)).current_version == "1"


async def test_an_operation_that_stays_denied_uses_up_neither_secret_ids_nor_tokens(
    making: Making, clock: FakeClock
) -> None:
    # As with a signer that may wrap and not unwrap, which asks every few minutes.
    bao = making.bao
    policy = bao.policy('path "transit/keys/+" { capabilities = ["read"] }')
    role, key = bao.app_role(policies=policy, token_ttl="24h"), bao.new_key()
    provider = making.by_role(role, clock=clock)
    tokens = set()
    for _ in range(60):
        with pytest.raises(ProviderAuthError):
            await provider.encrypt(b"value", key)
        tokens.add(str.__str__(provider._client.login.token()))
        clock.advance(120)
    assert 1 < logins(making) <= 7
    assert [bao.is_valid(token) for token in tokens].count(True) == 1


async def test_closing_during_the_first_login_gives_its_token_back(making: Making) -> None:
    provider, key = making.by_role(making.bao.app_role()), making.bao.new_key()
    making.proxy.delay_s = 0.2
    call = asyncio.create_task(provider.describe(key))
    await until(lambda: logins(making))
    call.cancel()
    await provider.aclose()
    await until(lambda: making.paths("revoke-self"))
    assert len(making.paths("revoke-self")) == 1


async def test_kubernetes_logs_in_with_the_token_of_the_service_account_and_reads_it_each_time(
    making: Making, kubernetes: str, tmp_path: Path, token_reviews: Reviews, issuer: Issuer
) -> None:
    bao = making.bao
    file, key = tmp_path / "token", bao.new_key()
    file.write_text(issuer.service_account())
    provider = making.provider(auth_method="kubernetes", role="web", auth_mount=kubernetes, jwt_path=file)
    sealed = await provider.encrypt(b"value", key)
    first = token_reviews.seen[-1]
    assert first == file.read_text()
    file.write_text(issuer.service_account())
    token_reviews.refused.add(first)
    bao.do("POST", f"sys/leases/revoke-prefix/auth/{kubernetes}/login", {"sync": True})
    assert await provider.decrypt(sealed) == b"value"
    assert token_reviews.seen[-1] == file.read_text() != first


async def test_a_refused_kubernetes_login_says_what_may_be_wrong(
    making: Making, kubernetes: str, tmp_path: Path, issuer: Issuer
) -> None:
    file = tmp_path / "token"
    file.write_text(issuer.service_account("another audience"))
    provider = making.provider(auth_method="kubernetes", role="web", auth_mount=kubernetes, jwt_path=file)
    with pytest.raises(ProviderAuthError, match="audience"):
        await provider.describe("orders")


async def test_the_document_spells_the_kubernetes_role_as_role_id(
    making: Making, bao: OpenBao, kubernetes: str, tmp_path: Path, issuer: Issuer
) -> None:
    file = tmp_path / "token"
    file.write_text(issuer.service_account())
    provider = making.provider(auth_method="kubernetes", role_id="web", auth_mount=kubernetes, jwt_path=file)
    await provider.describe(bao.new_key())


async def test_jwt_logs_in_with_the_token_of_an_issuer(
    making: Making, bao: OpenBao, tmp_path: Path, issuer: Issuer
) -> None:
    mount = bao.enable("jwt")
    bao.do("POST", f"auth/{mount}/config", {"bound_issuer": "us", "jwt_validation_pubkeys": [issuer.public_pem]})
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["keystead"], "token_policies": bao.user_policy}
    name = f"app-{uuid4()}"
    bao.do("POST", f"auth/{mount}/role/{name}", role)
    file = tmp_path / "jwt"
    file.write_text(issuer.sign({"iss": "us", "sub": "app", "aud": "keystead"}))
    provider = making.provider(auth_method="jwt", role=name, auth_mount=mount, jwt_path=file)
    await provider.describe(bao.new_key())
    file.write_text(issuer.sign({"iss": "somebody else", "sub": "app", "aud": "keystead"}))
    refused = making.provider(auth_method="jwt", role=name, auth_mount=mount, jwt_path=file)
    with pytest.raises(ProviderAuthError, match="issuer, audience and claims"):
        await refused.describe("orders")


async def test_a_namespace_is_logged_in_to_and_its_keys_are_its_own(making: Making, bao: OpenBao) -> None:
    name = bao.namespace()
    mount = bao.mount_transit(name)
    auth = bao.enable("approle", namespace=name)
    rules = f'path "{mount}/*" {{ capabilities = ["read", "update"] }}'
    bao.do("POST", "sys/policies/acl/app", {"policy": rules}, namespace=name)
    bao.do("POST", f"auth/{auth}/role/app", {"token_policies": "app"}, namespace=name)
    role_id = bao.do("GET", f"auth/{auth}/role/app/role-id", namespace=name)["role_id"]
    wrapped = bao.ask("POST", f"auth/{auth}/role/app/secret-id", namespace=name, wrap_ttl="60s")
    login = {"auth_method": "approle", "auth_mount": auth, "role_id": role_id}
    key = bao.new_key(mount=mount, namespace=name)
    provider = making.provider(
        mount_path=mount, namespace=name, wrapped_secret_id=wrapped.body["wrap_info"]["token"], **login
    )
    sealed = await provider.encrypt(b"value", key)
    assert await provider.decrypt(sealed) == b"value"
    assert (await provider.service_time()).tzinfo is not None
    elsewhere = making.provider(mount_path=mount, secret_id="x", **login)
    with pytest.raises(ProviderAuthError):
        await elsewhere.decrypt(sealed)


async def test_a_login_that_the_server_cannot_make_now_is_made_again(making: Making) -> None:
    provider = making.by_role(making.bao.app_role())
    making.proxy.fail_next(2, status=503, body=b'{"errors":["Vault is sealed"]}', path="login")
    await GuardedProvider(provider, "vault").encrypt(b"value", making.bao.new_key())
    assert logins(making) == 3


async def test_a_login_without_an_answer_is_an_outage(making: Making) -> None:
    provider = making.by_role(making.bao.app_role())
    making.proxy.fail_next(1, status=500, body=b'{"errors":["1 error occurred:\\n\\t* internal error\\n\\n"]}')
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.describe("orders")
    assert caught.value.retryable


async def test_closing_gives_back_the_token_that_was_logged_in_for(making: Making) -> None:
    role, key = making.bao.app_role(), making.bao.new_key()
    provider = making.by_role(role)
    await provider.describe(key)
    token = provider._client.login.token()
    assert making.bao.is_valid(str.__str__(token))
    await provider.aclose()
    assert not making.bao.is_valid(str.__str__(token))


async def test_closing_leaves_a_token_alone_that_was_given(making: Making) -> None:
    bao = making.bao
    token = bao.new_token(bao.user_policy)
    provider = making.provider(token=token)
    await provider.describe(bao.new_key())
    await provider.aclose()
    assert bao.is_valid(token)


async def test_closing_does_not_wait_for_a_server_that_says_nothing(making: Making) -> None:
    provider = making.by_role(making.bao.app_role(), timeout=30)
    await provider.describe(making.bao.new_key())
    making.proxy.black_hole()
    started = time.monotonic()
    await provider.aclose()
    assert time.monotonic() - started < 20  # the time limit of other calls is 30 s
