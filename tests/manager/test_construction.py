"""What a manager is made of: nothing is touched, and what cannot work is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, InvalidInputError, StoreNotFoundError
from keystead.manager import assembly
from keystead.manager.manager import KeyManager
from keystead.model import EncryptedData
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.memory import MemoryKeyStore
from keystead.testing import FakeKMS
from tests.fakes.world import World
from tests.manager.providers import BareProvider, KeyedProvider

TEST_KEY = bytes(range(32))


def test_a_manager_without_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        KeyManager({})


def test_several_providers_need_a_default() -> None:
    kms = FakeKMS()
    with pytest.raises(ConfigurationError, match="default_provider"):
        KeyManager({"a": kms, "b": kms})
    assert "'b'" in repr(KeyManager({"a": kms, "b": kms}, "b"))


def test_a_default_that_is_no_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'elsewhere'"):
        KeyManager({"a": FakeKMS()}, "elsewhere")


@pytest.mark.parametrize("option", ["initialization_timeout", "epoch_max_age_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_not_above_zero_is_refused(option: str, seconds: float) -> None:
    options: dict[str, Any] = {option: seconds}
    with pytest.raises(ConfigurationError, match=option):
        KeyManager({"a": FakeKMS()}, **options)


@pytest.mark.parametrize(
    "name", ["keystead.wrap", "keystead.mine", "", "x" * 201, None, "a\nb", "a\ud800b", "a\u202eb"]
)
async def test_a_name_that_no_keyring_may_have_is_refused(world: World, name: Any) -> None:
    with pytest.raises(InvalidInputError, match="keyring"):
        KeyManager({"a": FakeKMS()}, keyring=name)
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="keyring"):
            await km.keyring(name)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_provider_instance_without_a_proper_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="colon"):
        KeyManager({name: FakeKMS()})


def test_an_alias_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="provider_aliases"):
        KeyManager({"new": FakeKMS()}, provider_aliases={"old": "newer"})


def test_a_master_key_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="32"):
        LocalKMSProvider(LocalKMSConfig(master_key=b"short"))


def test_making_one_touches_nothing(tmp_path: Path) -> None:
    kms = FakeKMS()
    KeyManager({"cloud": kms}, default_key_id="app", store=f"sqlite:///{tmp_path}/keys.db", state_dir=tmp_path / "s")
    KeyManager.open(f"local:{tmp_path}/keystead.kek", store=f"sqlite:///{tmp_path}/keys.db")
    assert list(tmp_path.iterdir()) == []
    assert kms.calls.total() == 0


async def test_a_manager_opened_by_uri_makes_its_kek_and_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with KeyManager.open("local:", store="sqlite:///keys.db", background=False) as km:
        sealed = km.local_encrypt(b"x")
    assert {path.name for path in tmp_path.iterdir()} >= {"keystead.kek", "keys.db"}
    async with KeyManager.open("local:", store="sqlite:///keys.db", background=False) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_manager_that_makes_no_store_refuses_one_that_is_not_there_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    km = KeyManager.open("local:", store="sqlite:///keys.db", create_store=False)
    with pytest.raises(StoreNotFoundError, match=f"{tmp_path}/keys.db"):
        await km.initialize()
    await km.close()
    assert list(tmp_path.iterdir()) == []
    async with KeyManager.open("local:", store="sqlite:///keys.db", background=False) as made:
        blob = made.local_encrypt(b"x")
    async with KeyManager.open("local:", store="sqlite:///keys.db", create_store=False, background=False) as again:
        assert again.local_decrypt(blob) == b"x"


def test_an_unknown_uri_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        KeyManager.open("nobody://here")


async def test_a_manager_is_made_from_a_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keystead.yaml").write_text("store: memory://\nkms: 'local:'\n")
    async with KeyManager.from_config(tmp_path / "keystead.yaml", background=False) as km:
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"


async def test_what_a_store_needs_a_random_kek_cannot_give(tmp_path: Path) -> None:
    km = KeyManager({"local": LocalKMSProvider()}, store=f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(ConfigurationError, match="master_key"):
        await km.initialize()
    assert not km.is_initialized
    assert list(tmp_path.iterdir()) == []


async def test_an_ephemeral_provider_that_does_not_wrap_is_no_obstacle(tmp_path: Path) -> None:
    providers = {"kept": LocalKMSProvider(LocalKMSConfig(master_key=TEST_KEY)), "lost": LocalKMSProvider()}
    store = f"sqlite:///{tmp_path}/keys.db"
    async with KeyManager(providers, "kept", store=store, background=False) as km:
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"


async def test_a_manager_without_store_warns_that_keys_are_lost() -> None:
    km = KeyManager({"local": LocalKMSProvider()}, background=False)
    with pytest.warns(UserWarning, match="lost when the process ends") as caught:
        await km.initialize()
    assert caught[0].filename == __file__
    assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    await km.close()


async def test_who_asks_for_a_store_in_memory_is_not_warned() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with KeyManager({"local": LocalKMSProvider()}, store=MemoryKeyStore(), background=False) as km:
            assert km.is_initialized


async def test_a_key_id_is_asked_for_at_the_first_need() -> None:
    km = KeyManager({"cloud": FakeKMS()}, store=MemoryKeyStore())
    with pytest.raises(ConfigurationError, match="default_key_id"):
        await km.encrypt(b"x")
    with pytest.raises(ConfigurationError, match="default_key_id"):
        await km.initialize()
    assert (await km.encrypt(b"x", key_id="app")).key_reference.key_id == "app"
    await km.close()


async def test_the_local_provider_uses_its_default_key() -> None:
    km = KeyManager({"local": LocalKMSProvider()})
    assert (await km.encrypt(b"x")).key_reference.key_id == "default"
    assert (await km.encrypt(b"x", key_id="anything")).key_reference.key_id == "anything"
    await km.close()


async def test_a_providers_own_key_id_is_the_default() -> None:
    km = KeyManager({"mine": KeyedProvider(FakeKMS())})
    assert (await km.encrypt(b"x")).key_reference.key_id == "own"
    await km.close()


async def test_a_provider_that_only_encrypts_and_decrypts_is_enough(world: World) -> None:
    async with world.open(providers={"mine": BareProvider(world.kms)}) as km:
        sealed = km.local_encrypt(b"x")
        pair = await km.generate_data_key(key_spec="AES_128")
        assert len(pair.plaintext_key) == 16
        assert isinstance(pair.encrypted_key, EncryptedData)
        assert (await km.open_data_key(pair.encrypted_key)).plaintext_key == pair.plaintext_key
    assert world.kms.calls["generate_data_key"] == 0
    async with world.open(providers={"mine": BareProvider(world.kms)}) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_manager_says_what_it_is_and_no_more(world: World) -> None:
    km = world.manager()
    assert repr(km) == "<KeyManager not initialized providers=['cloud'] keyring='default'>"
    await km.initialize()
    assert "initialized" in repr(km)
    assert "not" not in repr(km)
    assert "'default' versions=1 active=1" in repr(km.default)
    await km.close()
    assert "closed" in repr(km)


async def test_what_is_drawn_comes_from_the_given_source(world: World) -> None:
    drawn: list[int] = []

    def draw(size: int) -> bytes:
        drawn.append(size)
        return bytes(len(drawn) % 256 for _ in range(size))

    async with world.open(random=draw) as km:
        before = len(drawn)
        km.local_encrypt(b"x")
        assert len(drawn) > before


def test_a_journal_lies_where_it_was_told_or_beside_the_store(tmp_path: Path) -> None:
    told = assembly.journal_for(None, tmp_path / "told")
    told.append("ab" * 16, epoch=3)
    assert assembly.journal_for("memory://", tmp_path / "told").read("ab" * 16).epoch == 3
    beside = assembly.journal_for(f"sqlite:///{tmp_path}/keys.db", None)
    beside.append("ab" * 16, epoch=4)
    assert (tmp_path / ".keystead").is_dir()
    for without in (None, "memory://", "postgresql://user@host/database", MemoryKeyStore()):
        nowhere = assembly.journal_for(without, None)
        nowhere.append("ab" * 16, epoch=5)
        assert nowhere.read("ab" * 16).epoch == 0
