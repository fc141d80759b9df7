"""The key manager end to end on the real server: start, rotate, rewrap, restart, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from keystead import KeyManager
from keystead.errors import (
    DecryptionError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.manager.admin import rewrap
from keystead.model import WRAP_KEYRING, KeyRecord
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making
from tests.providers.vault.test_context import written_by_fraiseql
from tests.providers.vault.test_permissions import policy_of_page
from tests.services.openbao import OpenBao, SealableBao

CONTEXT = {"row": "42"}
MANAGER_NEEDS = {
    False: {"keys/{}", "encrypt/{}", "decrypt/{}", "keys/{}/rotate"},
    True: {"keys/{}", "datakey/plaintext/{}", "encrypt/{}", "decrypt/{}", "rewrap/{}", "keys/{}/rotate"},
}
"""What the page says a manager needs, by whether the key is derived."""


@pytest.fixture(params=[False, True], ids=["plain", "derived"])
def key(request: pytest.FixtureRequest, bao: OpenBao) -> str:
    return bao.new_key(derived=request.param)


@pytest.fixture
def environ(bao: OpenBao, key: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The environment of an application whose token may do what the page says a manager needs, and nothing more."""
    needs = MANAGER_NEEDS[bao.key(key)["derived"]]
    policy = {path: given for path, given in policy_of_page().items() if path in needs}
    rules = [
        f'path "transit/{path.format(key)}" {{ capabilities = ["{given.pop()}"] }}' for path, given in policy.items()
    ]
    environ = {"VAULT_ADDR": bao.url, "VAULT_TOKEN": bao.new_token(bao.policy("\n".join(rules)))}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def opened(key: str, folder: Path, **options: object) -> KeyManager:
    return KeyManager.open(f"hashivault://transit/{key}", store=f"sqlite:///{folder / 'keys.db'}", **options)


async def wrap_rows(km: KeyManager) -> list[KeyRecord]:
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        return await work.keys(keyring=WRAP_KEYRING)


@pytest.mark.usefixtures("environ")
async def test_everything_stays_readable_through_rotations_rewrap_and_restart(
    key: str, bao: OpenBao, tmp_path: Path
) -> None:
    sealed: list[bytes] = []
    async with opened(key, tmp_path) as km:
        sealed.append(km.local_encrypt(b"first", context=CONTEXT))
        await km.rotate_data_key(promote="now")
        sealed.append(km.local_encrypt(b"second", context=CONTEXT))
        before = await wrap_rows(km)
        assert {(row.kek_provider, row.kek_key_id, row.kek_version) for row in before} == {("vault", key, "1")}
        await rewrap(km, new_kek_version=True, new_wrap_key=False)
        assert {row.kek_version for row in await wrap_rows(km)} == {"2"}
        sealed.append(km.local_encrypt(b"third", context=CONTEXT))
        per_request = await km.encrypt(b"fourth", context=CONTEXT)
        assert (per_request.key_reference.key_version, per_request.algorithm) == ("2", "aes256-gcm96")
        pair = await km.generate_data_key(context=CONTEXT)
    # The version that wrapped the first WRAP key is not needed any more.
    bao.do("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    async with opened(key, tmp_path) as km:
        values = [km.local_decrypt(one, context=CONTEXT) for one in sealed]
        assert values == [b"first", b"second", b"third"]
        assert await km.decrypt(per_request, context=CONTEXT) == b"fourth"
        again = await km.open_data_key(pair.encrypted_key, context=CONTEXT)
        assert again.plaintext_key == pair.plaintext_key
        with pytest.raises(DecryptionError):
            await km.decrypt(per_request, context={"row": "43"})
        report = await km.perform_maintenance()
        assert (report.rewrapped, report.failures) == (0, {})


@pytest.mark.usefixtures("environ")
async def test_another_kek_than_the_stores_own_is_an_error_at_start_that_says_so(
    key: str, bao: OpenBao, tmp_path: Path
) -> None:
    async with opened(key, tmp_path) as km:
        sealed = km.local_encrypt(b"value", context=CONTEXT)
    # Somebody destroyed the key and made another of its name.
    derived = bao.key(key)["derived"]
    bao.destroy_key(key)
    with pytest.raises(KeyNotFoundError):
        async with opened(key, tmp_path):
            pass
    bao.do("POST", f"transit/keys/{key}", {"derived": derived})
    with pytest.raises(KeyDecryptionFailError, match="another KEK"):
        async with opened(key, tmp_path):
            pass
    assert sealed


@pytest.mark.usefixtures("environ")
async def test_a_kek_that_is_disabled_stops_a_start_and_is_named(key: str, bao: OpenBao, tmp_path: Path) -> None:
    async with opened(key, tmp_path):
        pass
    bao.soft_delete_key(key)
    with pytest.raises(KeyStateError, match="soft-delete-restore"):
        async with opened(key, tmp_path):
            pass
    bao.restore_key(key)
    async with opened(key, tmp_path):
        pass


async def test_a_token_that_is_denied_stops_a_start_at_once(
    key: str, environ: Mapping[str, str], bao: OpenBao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environ
    async with opened(key, tmp_path):
        pass
    monkeypatch.setenv("VAULT_TOKEN", bao.new_token("default"))
    with pytest.raises(ProviderAuthError, match="read on transit/keys/"):
        async with opened(key, tmp_path):
            pass


async def test_a_server_that_is_sealed_at_the_start_is_an_outage_and_the_same_manager_starts_when_it_is_not(
    sealable_openbao: SealableBao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bao = sealable_openbao
    key = bao.new_key()
    for name, value in (("VAULT_ADDR", bao.url), ("VAULT_TOKEN", bao.token), ("VAULT_CACERT", str(bao.ca))):
        monkeypatch.setenv(name, value)
    async with opened(key, tmp_path) as km:
        sealed = km.local_encrypt(b"value", context=CONTEXT)
    bao.seal()
    km = opened(key, tmp_path, initialization_timeout=5)
    try:
        with pytest.raises(ProviderConnectionError, match="sealed") as caught:
            await km.initialize()
        assert caught.value.retryable
    finally:
        bao.unseal()
    await km.initialize()
    assert km.local_decrypt(sealed, context=CONTEXT) == b"value"
    await km.close()


async def test_two_processes_rotate_the_kek_at_once_and_one_version_is_made(
    bao: OpenBao, making: Making, tmp_path: Path
) -> None:
    key = bao.new_key()

    def manager() -> KeyManager:
        store = f"sqlite:///{tmp_path / 'keys.db'}"
        return KeyManager({"vault": making.provider()}, default_key_id=key, store=store, background=False)

    async with manager() as one, manager() as two:
        making.proxy.delay_s = 0.3
        await asyncio.gather(*(rewrap(km, new_kek_version=True, new_wrap_key=False) for km in (one, two)))
    assert bao.key(key)["latest_version"] == 2
    assert len(making.paths("/rotate")) == 1


async def test_what_fraiseql_kept_is_opened_by_the_manager(bao: OpenBao, making: Making) -> None:
    key = bao.new_key(derived=True)
    kept = written_by_fraiseql(making, key, CONTEXT)
    document = {
        "ciphertext": kept.ciphertext.hex(),
        "key_id": f"vault:{key}",
        "algorithm": kept.algorithm,
        "encrypted_at": kept.encrypted_at.isoformat(),
        "context": dict(kept.context),
    }
    async with KeyManager({"vault": making.provider()}, default_key_id=key, store="memory://") as km:
        assert await km.decrypt(document, context=CONTEXT) == b"value"
        with pytest.raises(DecryptionError):
            await km.decrypt({**document, "context": {"row": "43"}})


async def test_a_manager_outlives_its_tokens(bao: OpenBao, making: Making) -> None:
    key, role = bao.new_key(), bao.app_role()
    async with KeyManager({"vault": making.by_role(role)}, default_key_id=key, store="memory://") as km:
        sealed = await km.encrypt(b"value", context=CONTEXT)
        role.revoke_tokens()
        assert await km.decrypt(sealed, context=CONTEXT) == b"value"
        assert isinstance(km, KeyManager)


def test_the_name_is_exported_and_its_provider_is_the_registrys() -> None:
    import keystead

    assert keystead.VaultKMSProvider is VaultKMSProvider
    assert keystead.VaultConfig().mount_path == "transit"
