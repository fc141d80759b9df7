"""A store under two KEKs, from its making to the loss of each of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.errors import KeyDecryptionFailError, KeyStateError, ProviderConnectionError
from keystead.manager import admin
from keystead.manager.findings import Health
from keystead.ports import KmsProvider
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock

CONTEXT = {"row": "42"}


class Installation:
    """A store on disk, a KEK file beside it, and a KMS elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kek = folder / "kek"
        create_kek_file(self.kek)
        self.cloud = FakeKMS()
        self.standby = FakeKMS()

    def provider(self, *names: str, policy: Any = "all") -> MultiKMSProvider:
        every: dict[str, KmsProvider] = {
            "cloud": self.cloud.provider(),
            "home": LocalKMSProvider(LocalKMSConfig(path=self.kek)),
            "standby": self.standby.provider(),
        }
        members = {name: every[name] for name in names or ("cloud", "home")}
        key_ids = dict.fromkeys(set(members) - {"home"}, "app")
        return MultiKMSProvider(members, policy=policy, key_ids=key_ids, patience_s=5.0, pause_s=0.02)

    def manager(self, *names: str, policy: Any = "all", **options: Any) -> KeyManager:
        store = f"sqlite:///{self.folder}/keys.db"
        return KeyManager({"both": self.provider(*names, policy=policy)}, store=store, background=False, **options)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


async def test_a_store_outlives_each_of_its_keks(installation: Installation) -> None:
    async with installation.manager() as km:
        blob = km.local_encrypt(b"ada@example.org", context=CONTEXT)
        token = await km.encrypt(b"4711", context=CONTEXT)

    installation.cloud.fail_always()
    async with installation.manager() as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"
        assert await km.decrypt(token, context=CONTEXT) == b"4711"
        with pytest.raises(ProviderConnectionError, match="cloud: "):
            await km.encrypt(b"x")
        await km.rotate_data_key()

    installation.cloud.heal()
    kept = installation.kek.read_bytes()
    installation.kek.unlink()
    async with installation.manager() as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"

    installation.cloud.fail_always()
    with pytest.raises(ProviderConnectionError):
        async with installation.manager():
            pass

    installation.kek.write_bytes(kept)
    installation.kek.chmod(0o600)
    async with installation.manager() as km:
        assert await km.decrypt_local(blob, context=CONTEXT) == b"ada@example.org"


async def test_a_kek_that_was_lost_for_ever_is_replaced_by_another(installation: Installation) -> None:
    async with installation.manager() as km:
        blob = km.local_encrypt(b"ada@example.org", context=CONTEXT)
    installation.cloud.destroy("app")

    async with installation.manager("home", "standby") as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"
        assert not (await admin.rewrap(km)).skipped
        status = await admin.store_status(km)
    assert {kek.key_id for kek in status.keks} == {"{home=default,standby=app}"}
    assert status.missing_wraps == {}

    installation.kek.unlink()
    async with installation.manager("standby") as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"


async def test_what_was_wrapped_during_an_outage_is_mended_after_it(installation: Installation) -> None:
    installation.cloud.fail_always()
    async with installation.manager(policy="any") as km:
        blob = km.local_encrypt(b"ada@example.org", context=CONTEXT)
        assert (await admin.store_status(km)).missing_wraps == {"cloud": 1}
        assert any(each.check == "wraps" and each.status is Health.WARN for each in (await km.doctor()).findings)
        installation.cloud.heal()
        assert (await km.perform_maintenance()).rewrapped == 1
        assert (await km.doctor()).is_well
    installation.kek.unlink()
    async with installation.manager() as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"


async def test_one_members_new_version_is_taken_up_by_a_rewrap_and_the_old_one_needed_no_more(
    installation: Installation,
) -> None:
    async with installation.manager() as km:
        blob = km.local_encrypt(b"ada@example.org", context=CONTEXT)
        home = LocalKMSProvider(LocalKMSConfig(path=installation.kek))
        await home.rotate_key("default")
        assert (await km.perform_maintenance()).rewrapped == 1
        [kek] = (await admin.store_status(km)).keks
        assert kek.version == "{cloud=1,home=2}"
        await home.retire_version(1, superseded_for_s=0.0)
    installation.cloud.fail_always()
    async with installation.manager() as km:
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"


async def test_all_keks_get_new_versions_by_one_command(installation: Installation) -> None:
    async with installation.manager() as km:
        blob = km.local_encrypt(b"ada@example.org", context=CONTEXT)
        await admin.rewrap(km, new_kek_version=True)
        assert {kek.version for kek in (await admin.store_status(km)).keks} == {"{cloud=2,home=2}"}
        assert km.local_decrypt(blob, context=CONTEXT) == b"ada@example.org"


async def test_another_kek_under_a_members_name_opens_nothing(installation: Installation) -> None:
    async with installation.manager("home"):
        pass
    installation.kek.unlink()
    create_kek_file(installation.kek)
    with pytest.raises(KeyDecryptionFailError, match="home: "):
        async with installation.manager("home"):
            pass


async def test_the_keys_stay_in_use_while_one_kek_says_yes_and_not_a_moment_longer(
    installation: Installation, clock: FakeClock
) -> None:
    spare = FakeKMS()
    members = {"cloud": installation.cloud.provider(), "spare": spare.provider()}
    provider = MultiKMSProvider(members, key_ids=dict.fromkeys(members, "app"), clock=clock)
    async with KeyManager({"both": provider}, store="memory://", clock=clock, background=False) as km:
        installation.cloud.deny()
        clock.advance(timedelta(hours=1, seconds=1))
        await km.run_due()
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        spare.disable()
        clock.advance(timedelta(hours=1, seconds=1))
        await km.run_due()
        with pytest.raises(KeyStateError):
            km.local_encrypt(b"x")
