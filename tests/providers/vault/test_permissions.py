"""The policies of the documentation page suffice, and every line of them is needed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

import pytest

from keystead.errors import ProviderAuthError
from keystead.providers.vault.provider import VaultKMSProvider
from tests.docs.blocks import ROOT, read_blocks
from tests.providers.vault.making import Making

PAGE = ROOT / "docs" / "kms" / "vault.md"
CONTEXT = {"tenant": "north"}

NEEDS: Mapping[str, set[str]] = {
    "encrypt": {"keys/{}", "encrypt/{}"},
    "encrypt_batch": {"keys/{}", "encrypt/{}"},
    "decrypt": {"keys/{}", "decrypt/{}"},
    "generate_data_key": {"keys/{}", "encrypt/{}"},
    "generate_data_key (derived)": {"keys/{}", "datakey/plaintext/{}"},
    "rewrap": {"keys/{}", "encrypt/{}", "decrypt/{}"},
    "rewrap (derived)": {"keys/{}", "rewrap/{}"},
    "rewrap (no context)": {"keys/{}", "rewrap/{}"},
    "rotate_key": {"keys/{}", "keys/{}/rotate"},
    "describe": {"keys/{}"},
    "get_rotation_policy": {"keys/{}"},
    "is_extractable": {"keys/{}"},
    "mac": {"hmac/{}"},
    "mac_batch": {"hmac/{}"},
    "verify_mac": {"verify/{}"},
    "sign": {"keys/{}", "sign/{}"},
    "sign_batch": {"keys/{}", "sign/{}"},
    "public_key": {"keys/{}"},
}
"""What each operation needs, as the page's table says."""


def policy_of_page() -> dict[str, set[str]]:
    """Return paths and capabilities of the page's complete policy, for the key ``orders``."""
    blocks = read_blocks(PAGE.read_text(encoding="utf-8"))
    (policy,) = [block.text for block in blocks if "bao policy write" in block.text]
    rules = re.findall(r'path "transit/([^"]+)" *\{ capabilities = \[([^\]]+)\] \}', policy)
    return {path.replace("orders", "{}"): set(re.findall(r'"(\w+)"', given)) for path, given in rules}


def rules(making: Making, paths: Mapping[str, set[str]], *keys: str) -> str:
    lines = [
        f'path "transit/{path.format(key)}" {{ capabilities = {sorted(given)!r} }}'.replace("'", '"')
        for path, given in paths.items()
        for key in keys
    ]
    return making.bao.new_token(making.bao.policy("\n".join(lines)))


async def operations(
    making: Making, key: str, derived: str, signer: str
) -> Mapping[str, Callable[[VaultKMSProvider], Awaitable[object]]]:
    """Return for each operation a call of it, on whichever provider."""
    allowed = making.provider()
    sealed = await allowed.encrypt(b"value", key, context=CONTEXT)
    sealed_derived = await allowed.encrypt(b"value", derived, context=CONTEXT)
    sealed_bare = await allowed.encrypt(b"value", key)
    mac = await allowed.mac(b"value", key)
    return {
        "encrypt": lambda provider: provider.encrypt(b"value", key, context=CONTEXT),
        "encrypt_batch": lambda provider: provider.encrypt_batch([b"value"], key, context=CONTEXT),
        "decrypt": lambda provider: provider.decrypt(sealed),
        "generate_data_key": lambda provider: provider.generate_data_key(key, context=CONTEXT),
        "generate_data_key (derived)": lambda provider: provider.generate_data_key(derived, context=CONTEXT),
        "rewrap": lambda provider: provider.rewrap(sealed),
        "rewrap (derived)": lambda provider: provider.rewrap(sealed_derived),
        "rewrap (no context)": lambda provider: provider.rewrap(sealed_bare),
        "rotate_key": lambda provider: provider.rotate_key(key),
        "describe": lambda provider: provider.describe(key),
        "get_rotation_policy": lambda provider: provider.get_rotation_policy(key),
        "is_extractable": lambda provider: provider.is_extractable(key),
        "mac": lambda provider: provider.mac(b"value", key),
        "mac_batch": lambda provider: provider.mac_batch([b"value"], key),
        "verify_mac": lambda provider: provider.verify_mac(b"value", mac),
        "sign": lambda provider: provider.sign(b"value", signer),
        "sign_batch": lambda provider: provider.sign_batch([b"value"], signer),
        "public_key": lambda provider: provider.public_key(signer),
    }


def test_the_page_grants_update_and_read_and_never_create() -> None:
    policy = policy_of_page()
    assert set(policy) == set().union(*NEEDS.values())
    assert policy.pop("keys/{}") == {"read"}
    assert all(given == {"update"} for given in policy.values())


@pytest.mark.parametrize("removed", [None, *sorted(set().union(*NEEDS.values()))])
async def test_without_one_line_of_the_policy_exactly_the_operations_fail_that_need_it(
    making: Making, removed: str | None
) -> None:
    bao = making.bao
    key, derived, signer = bao.new_key(), bao.new_key(derived=True), bao.new_key(type="ed25519")
    policy = {path: given for path, given in policy_of_page().items() if path != removed}
    token = rules(making, policy, key, derived, signer)
    expected = {name for name, needs in NEEDS.items() if removed in needs}
    failed = set()
    for name, call in (await operations(making, key, derived, signer)).items():
        try:
            # Each operation is the first one of its provider: what it looks at before is part of it.
            await call(making.provider(token=token))
        except ProviderAuthError:
            failed.add(name)
    assert failed == expected
    provider = making.provider(token=token)
    told = await provider.check_permissions(key)
    assert {name for name, is_allowed in told.items() if not is_allowed} == {
        name for name in expected if "(" not in name
    }


@pytest.mark.parametrize("name", NEEDS)
async def test_what_the_page_says_of_an_operation_is_all_that_it_needs(making: Making, name: str) -> None:
    bao = making.bao
    key, derived, signer = bao.new_key(), bao.new_key(derived=True), bao.new_key(type="ed25519")
    policy = {path: given for path, given in policy_of_page().items() if path in NEEDS[name]}
    provider = making.provider(token=rules(making, policy, key, derived, signer))
    await (await operations(making, key, derived, signer))[name](provider)


async def test_what_a_derived_key_needs_to_be_rewrapped_is_told(making: Making) -> None:
    key = making.bao.new_key(derived=True)
    for path, allowed in (("rewrap/{}", True), ("encrypt/{}", False)):
        token = rules(making, {"keys/{}": {"read"}, path: {"update"}}, key)
        assert (await making.provider(token=token).check_permissions(key))["rewrap"] is allowed


async def test_a_token_without_the_default_policy_may_not_ask_what_it_may(making: Making) -> None:
    token = making.bao.new_token(making.bao.user_policy, no_default_policy=True)
    with pytest.raises(ProviderAuthError, match="sys/capabilities-self"):
        await making.provider(token=token).check_permissions("orders")


async def test_a_root_token_may_do_everything(making: Making) -> None:
    told = await making.provider(token=making.bao.new_token()).check_permissions(making.bao.new_key())
    assert all(told.values())
    assert set(told) == {name for name in NEEDS if "(" not in name}


async def test_a_denied_operation_names_capability_and_path(making: Making) -> None:
    key = making.bao.new_key()
    token = making.bao.new_token("default")
    with pytest.raises(ProviderAuthError, match=f"the capability read on transit/keys/{key}"):
        await making.provider(token=token).describe(key)
