"""Secret ids that come inside response-wrapping tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import ProviderAuthError
from keystead.providers.guard import GuardedProvider
from tests.providers.vault.making import Making


async def test_a_wrapped_secret_id_is_unwrapped_after_the_server_has_said_what_it_was_made_for(
    making: Making,
) -> None:
    role = making.bao.app_role()
    provider = making.by_role(role, wrapped_secret_id=role.wrapped_secret_id())
    await provider.describe(making.bao.new_key())
    assert making.paths()[:3] == ["sys/wrapping/lookup", "sys/wrapping/unwrap", f"auth/{role.mount}/login"]


async def test_it_serves_as_many_logins_as_it_is_good_for(making: Making) -> None:
    role, key = making.bao.app_role(secret_id_num_uses=2), making.bao.new_key()
    provider = making.by_role(role, wrapped_secret_id=role.wrapped_secret_id())
    await provider.describe(key)
    role.revoke_tokens()
    await provider.describe(key)
    role.revoke_tokens()
    making.proxy.requests.clear()
    with pytest.raises(ProviderAuthError, match="used up"):
        await provider.describe(key)
    # A login that cannot succeed is not tried.
    assert making.paths("login") == []


async def test_it_serves_any_number_of_logins_where_it_has_no_limit(making: Making) -> None:
    role, key = making.bao.app_role(), making.bao.new_key()
    provider = making.by_role(role, wrapped_secret_id=role.wrapped_secret_id())
    for _ in range(3):
        await provider.describe(key)
        role.revoke_tokens()
    assert len(making.paths("unwrap")) == 1


async def test_another_wrapping_token_in_the_file_is_taken_for_the_next_login(making: Making, tmp_path: Path) -> None:
    role, key, file = making.bao.app_role(secret_id_num_uses=1), making.bao.new_key(), tmp_path / "wrapped"
    file.write_text(role.wrapped_secret_id())
    provider = making.by_role(role, secret_id_file=file, secret_id_is_wrapped=True)
    await provider.describe(key)
    file.write_text(role.wrapped_secret_id())
    role.revoke_tokens()
    await provider.describe(key)
    assert len(making.paths("unwrap")) == 2


async def test_a_wrapping_token_of_something_else_is_not_opened(making: Making) -> None:
    role, other = making.bao.app_role(), making.bao.app_role()
    swapped = making.bao.ask("POST", "sys/wrapping/wrap", {"secret_id": "an attacker's"}, wrap_ttl="60s")
    planted = swapped.body["wrap_info"]["token"]
    provider = making.by_role(role, wrapped_secret_id=planted)
    with pytest.raises(ProviderAuthError, match="somebody may have put it in the place"):
        await GuardedProvider(provider, "vault").encrypt(b"value", making.bao.new_key())
    assert making.paths() == ["sys/wrapping/lookup"]
    assert making.bao.ask("POST", "sys/wrapping/unwrap", token=planted).status == 200
    # By its name the role is told from others of the same mount.
    named = making.by_role(role, vault_role=role.name, wrapped_secret_id=other.wrapped_secret_id())
    with pytest.raises(ProviderAuthError, match="not made for a secret id of this AppRole"):
        await named.describe(making.bao.new_key())
    right = making.by_role(role, vault_role=role.name, wrapped_secret_id=role.wrapped_secret_id())
    await right.describe(making.bao.new_key())


@pytest.mark.parametrize("where", ["namespace", "mount"])
async def test_a_stolen_secret_id_in_the_wrapping_of_another_mount_or_namespace_is_not_taken(
    making: Making, where: str
) -> None:
    # Whoever may enable auth methods there can have any text wrapped as a secret id, the stolen one too.
    bao, role = making.bao, making.bao.app_role()
    stolen = role.secret_id()
    namespace, mount = (bao.namespace(), role.mount) if where == "namespace" else (None, f"own/auth/{role.mount}")
    bao.do("POST", f"sys/auth/{mount}", {"type": "approle"}, namespace=namespace)
    bao.do("POST", f"auth/{mount}/role/{role.name}", {}, namespace=namespace)
    path = f"auth/{mount}/role/{role.name}/custom-secret-id"
    wrapped = bao.ask("POST", path, {"secret_id": stolen}, namespace=namespace, wrap_ttl="60s")
    provider = making.by_role(role, vault_role=role.name, wrapped_secret_id=wrapped.body["wrap_info"]["token"])
    with pytest.raises(ProviderAuthError, match="somebody may have put it in the place"):
        await provider.describe(bao.new_key())


async def test_a_wrapped_secret_id_of_a_namespace_serves_there(making: Making) -> None:
    bao, namespace = making.bao, making.bao.namespace()
    bao.do("POST", "sys/auth/approle", {"type": "approle"}, namespace=namespace)
    bao.do("POST", "auth/approle/role/orders", {"token_policies": "default"}, namespace=namespace)
    role_id = bao.do("GET", "auth/approle/role/orders/role-id", namespace=namespace)["role_id"]
    wrapped = bao.ask("POST", "auth/approle/role/orders/secret-id", namespace=namespace, wrap_ttl="60s")
    token = wrapped.body["wrap_info"]["token"]
    provider = making.provider(
        auth_method="approle", role="orders", role_id=role_id, namespace=namespace, wrapped_secret_id=token
    )
    with pytest.raises(ProviderAuthError, match="the capability read"):
        await provider.describe("orders")
    assert len(making.paths("/login")) == 1


async def test_a_wrapping_token_that_somebody_else_has_opened_is_reported_as_stolen(making: Making) -> None:
    role = making.bao.app_role()
    wrapping = role.wrapped_secret_id()
    making.bao.do("POST", "sys/wrapping/unwrap", token=wrapping)
    provider = making.by_role(role, wrapped_secret_id=wrapping)
    with pytest.raises(ProviderAuthError, match="take it for stolen"):
        await provider.describe(making.bao.new_key())


async def test_a_server_that_cannot_answer_about_a_wrapping_token_is_asked_again(making: Making) -> None:
    role = making.bao.app_role()
    provider = making.by_role(role, wrapped_secret_id=role.wrapped_secret_id())
    making.proxy.fail_next(1, status=503, body=b'{"errors":["Vault is sealed"]}', path="lookup")
    making.proxy.fail_next(1, status=503, body=b'{"errors":["Vault is sealed"]}', path="unwrap")
    await GuardedProvider(provider, "vault").encrypt(b"value", making.bao.new_key())
