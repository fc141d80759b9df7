from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    InvalidSaltError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.model import EncryptedData
from keystead.providers.local.kek_file import add_version, create_kek_file, remove_version
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.fakes.clock import START, FakeClock

KEY = bytes(range(32))


def of_file(path: Path, **options: Any) -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(path=path), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_kek_file(tmp_path / "kek", now=START)
    return tmp_path / "kek"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytearray(16), "x" * 32])
def test_a_master_key_is_exactly_32_bytes(key: Any) -> None:
    with pytest.raises(InvalidInputError, match="32 bytes"):
        LocalKMSConfig(master_key=key)


def test_a_master_key_may_be_a_bytearray() -> None:
    assert LocalKMSConfig(master_key=bytearray(KEY)).master_key == KEY


@pytest.mark.parametrize(
    "options",
    [{"master_key": KEY, "path": "kek"}, {"env": "A", "path": "kek"}, {"master_key": KEY, "root_key": bytes}],
)
def test_two_sources_at_once_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not several"):
        LocalKMSConfig(**options)


@pytest.mark.parametrize("options", [{"passphrase": "test"}, {"salt": KEY}, {"create": True}])
def test_half_of_a_source_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        LocalKMSConfig(**options)


@pytest.mark.parametrize("config", [None, LocalKMSConfig(master_key=KEY)])
def test_production_refuses_the_local_kms_and_says_what_to_do(config: LocalKMSConfig | None) -> None:
    with pytest.raises(ConfigurationError, match="allow_in_production"):
        LocalKMSProvider(config, production=True)


async def test_production_accepts_it_when_told_to() -> None:
    config = LocalKMSConfig(master_key=KEY, allow_in_production=True)
    assert (await LocalKMSProvider(config, production=True).encrypt(b"", "default")).algorithm == "aes256-gcm96"


async def test_without_a_source_the_kek_is_random_and_says_so() -> None:
    first, second = LocalKMSProvider(), LocalKMSProvider()
    assert first.is_ephemeral
    with pytest.raises(DecryptionError):
        await second.decrypt(await first.encrypt(b"value", "default"))


def test_with_a_source_the_kek_is_not_ephemeral(tmp_path: Path) -> None:
    assert not LocalKMSProvider(LocalKMSConfig(master_key=KEY)).is_ephemeral
    assert not of_file(tmp_path / "kek").is_ephemeral


def test_construction_opens_nothing_and_reads_no_environment(tmp_path: Path) -> None:
    of_file(tmp_path / "missing")
    LocalKMSProvider(LocalKMSConfig(env="KEYSTEAD_TEST_MISSING"))
    LocalKMSProvider(LocalKMSConfig(path=tmp_path / "made", create=True))
    assert list(tmp_path.iterdir()) == []


async def test_the_same_master_key_decrypts_in_another_provider() -> None:
    sealed = await LocalKMSProvider(LocalKMSConfig(master_key=KEY)).encrypt(b"value", "default", context={"a": "b"})
    assert await LocalKMSProvider(LocalKMSConfig(master_key=KEY)).decrypt(sealed) == b"value"


async def test_another_algorithm_does_not_decrypt() -> None:
    provider = LocalKMSProvider()
    sealed = await provider.encrypt(b"value", "default")
    other = EncryptedData(sealed.ciphertext, sealed.key_reference, "SYMMETRIC_DEFAULT", sealed.encrypted_at)
    with pytest.raises(DecryptionError):
        await provider.decrypt(other)


async def test_large_plaintexts_are_encrypted_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = LocalKMSProvider()
    await provider.encrypt(b"loads the primitives", "default")
    seen: list[str] = []

    def random(size: int) -> bytes:
        seen.append(threading.current_thread().name)
        return os.urandom(size)

    monkeypatch.setattr(provider, "_random", random)
    await provider.encrypt(b"small", "default")
    sealed = await provider.encrypt(bytes(1024 * 1024), "default")
    assert await provider.decrypt(sealed) == bytes(1024 * 1024)
    assert (seen[0], seen[1] == seen[0]) == (threading.main_thread().name, False)


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        KEY.hex().upper(),
        base64.b64encode(KEY).decode(),
        base64.b64encode(KEY).decode().rstrip("="),
        base64.urlsafe_b64encode(KEY).decode() + "\n",
    ],
)
async def test_a_variable_may_hold_base64_or_hex(text: str) -> None:
    sealed = await LocalKMSProvider(LocalKMSConfig(master_key=KEY)).encrypt(b"value", "default")
    provider = LocalKMSProvider(LocalKMSConfig(env="TEST_KEK"), environ={"TEST_KEK": text})
    assert await provider.decrypt(sealed) == b"value"


@pytest.mark.parametrize("text", ["", "  ", "secret-text", "0" * 63, "g" * 64, base64.b64encode(bytes(16)).decode()])
async def test_a_variable_that_holds_no_key_is_named_and_its_value_is_not_shown(text: str) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(env="TEST_KEK"), environ={"TEST_KEK": text})
    with pytest.raises(ConfigurationError, match=r"TEST_KEK.*openssl rand") as caught:
        await provider.encrypt(b"value", "default")
    assert "secret-text" not in str(caught.value)


async def test_the_process_environment_is_read_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(env="KEYSTEAD_TEST_KEK"))
    monkeypatch.setenv("KEYSTEAD_TEST_KEK", KEY.hex())
    assert await provider.decrypt(await provider.encrypt(b"value", "default")) == b"value"


async def test_the_same_passphrase_and_salt_give_the_same_kek_off_the_event_loop() -> None:
    config = LocalKMSConfig(passphrase="a test passphrase", salt=KEY[:16])
    sealed = await LocalKMSProvider(config).encrypt(b"value", "default")
    assert await LocalKMSProvider(config).decrypt(sealed) == b"value"


async def test_a_short_salt_is_refused_at_the_first_call() -> None:
    provider = LocalKMSProvider(LocalKMSConfig(passphrase="a test passphrase", salt=b"short"))
    with pytest.raises(InvalidSaltError):
        await provider.encrypt(b"value", "default")


async def test_a_slow_root_key_is_derived_once_and_off_the_event_loop() -> None:
    derived: list[str] = []

    def root_key() -> bytes:
        derived.append(threading.current_thread().name)
        return KEY

    provider = LocalKMSProvider(LocalKMSConfig(root_key=root_key))
    await asyncio.gather(*(provider.encrypt(b"value", "default") for _ in range(20)))
    assert len(derived) == 1
    assert derived[0] != threading.main_thread().name


async def test_a_root_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="16 bytes"):
        await LocalKMSProvider(LocalKMSConfig(root_key=lambda: b"short")).encrypt(b"value", "default")


async def test_closing_does_not_hold_the_loop_up_while_the_file_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def slowly(*given: Any, **options: Any) -> Any:
        has_begun.set()
        may_end.wait(10)
        return add_version(*given, **options)

    monkeypatch.setattr("keystead.providers.local.kek_source.add_version", slowly)
    provider = of_file(path)
    rotating = asyncio.create_task(provider.rotate_key("default"))
    await asyncio.to_thread(has_begun.wait, 10)
    closing = asyncio.create_task(provider.aclose())
    (timer := threading.Timer(2.0, may_end.set)).start()
    await asyncio.sleep(0.01)
    assert not may_end.is_set()
    may_end.set()
    timer.cancel()
    await asyncio.gather(rotating, closing)


async def test_after_close_a_configured_kek_is_read_again(path: Path) -> None:
    for provider in (LocalKMSProvider(LocalKMSConfig(master_key=KEY)), of_file(path)):
        sealed = await provider.encrypt(b"value", "default")
        await provider.aclose()
        assert await provider.decrypt(sealed) == b"value"


async def test_after_close_a_random_kek_is_gone_and_not_replaced() -> None:
    provider = LocalKMSProvider()
    await provider.aclose()
    with pytest.raises(SystemShutdownError, match="random KEK"):
        await provider.encrypt(b"value", "default")


async def test_a_missing_file_is_made_at_the_first_wrap(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "kek", create=True))
    sealed = await provider.encrypt(b"value", "default")
    assert await of_file(tmp_path / "kek").decrypt(sealed) == b"value"


async def test_a_missing_file_is_never_made_by_a_decrypt_or_a_question(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "kek", create=True))
    sealed = await LocalKMSProvider().encrypt(b"value", "default")
    for call in (provider.decrypt(sealed), provider.describe("default"), provider.rotate_key("default")):
        with pytest.raises(KeyNotFoundError):
            await call
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_was_not_asked_for_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError, match="keystead init"):
        await of_file(tmp_path / "kek").encrypt(b"value", "default")


async def test_a_file_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=tmp_path / "missing" / "kek", create=True))
    with pytest.raises(ConfigurationError, match="cannot make the KEK file"):
        await provider.encrypt(b"value", "default")


async def test_whoever_comes_second_uses_the_file_the_first_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kek"

    def somebody_was_faster(path: str, **options: Any) -> None:
        create_kek_file(path)
        create_kek_file(path)

    monkeypatch.setattr("keystead.providers.local.kek_source.create_kek_file", somebody_was_faster)
    sealed = await LocalKMSProvider(LocalKMSConfig(path=path, create=True)).encrypt(b"value", "default")
    assert await of_file(path).decrypt(sealed) == b"value"


async def test_a_path_that_cannot_be_looked_at_is_a_connection_error(path: Path) -> None:
    with pytest.raises(ProviderConnectionError, match="Not a directory"):
        await of_file(path / "below a file").encrypt(b"value", "default")


async def test_a_kek_of_one_version_has_none_to_retire() -> None:
    with pytest.raises(KeyRotationError, match="one version"):
        await LocalKMSProvider().retire_version(1)


async def test_a_file_that_vanishes_stops_wrapping_and_not_reading(path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=path, create=True))
    sealed = await provider.encrypt(b"value", "default")
    path.rename(path.with_name("away"))
    assert await provider.decrypt(sealed) == b"value"
    with pytest.raises(KeyNotFoundError, match="is gone"):
        await provider.encrypt(b"value", "default")
    path.with_name("away").rename(path)
    assert await provider.decrypt(await provider.encrypt(b"again", "default")) == b"again"


async def test_a_file_that_vanished_is_not_replaced_after_close_either(path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(path=path, create=True))
    await provider.encrypt(b"value", "default")
    await provider.aclose()
    path.unlink()
    with pytest.raises(KeyNotFoundError):
        await provider.encrypt(b"value", "default")
    assert not path.exists()


async def test_another_kek_under_the_same_name_is_refused(path: Path) -> None:
    provider = of_file(path)
    await provider.encrypt(b"value", "default")
    path.unlink()
    create_kek_file(path)
    with pytest.raises(ConfigurationError, match="another KEK"):
        await provider.encrypt(b"value", "default")


async def test_an_older_copy_of_the_file_is_refused(path: Path) -> None:
    backup = path.read_bytes()
    provider = of_file(path)
    await provider.rotate_key("default")
    path.write_bytes(backup)
    with pytest.raises(ConfigurationError, match="restore the newest"):
        await provider.encrypt(b"value", "default")


async def test_a_version_made_by_another_process_is_read_when_a_ciphertext_names_it(path: Path) -> None:
    reader, writer = of_file(path), of_file(path)
    await reader.encrypt(b"warms up", "default")
    await writer.rotate_key("default")
    assert await reader.decrypt(await writer.encrypt(b"value", "default")) == b"value"


async def test_wrapping_uses_the_newest_version_of_the_file_at_once(path: Path) -> None:
    first, second = of_file(path), of_file(path)
    await first.encrypt(b"warms up", "default")
    rotated = await second.rotate_key("default")
    assert (await first.encrypt(b"value", "default")).key_reference.key_version == rotated.key_version


async def test_nothing_is_wrapped_under_a_version_that_another_process_retired(path: Path) -> None:
    first = of_file(path)
    await first.encrypt(b"warms up", "default")
    add_version(str(path), random=os.urandom, now=START)
    remove_version(str(path), 1, now=START, superseded_for_s=0)
    assert (await first.encrypt(b"value", "default")).key_reference.key_version == "2"


async def test_unknown_versions_do_not_make_it_read_an_unchanged_file_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = of_file(path)
    sealed = await provider.encrypt(b"value", "default")
    bogus = sealed.ciphertext[:2] + bytes([0, 0, 0, 99]) + sealed.ciphertext[6:]
    monkeypatch.setattr("keystead.providers.local.kek_source.read_kek_file", lambda path: pytest.fail("read again"))
    with pytest.raises(DecryptionError, match="version 99"):
        await provider.decrypt(EncryptedData(bogus, sealed.key_reference, sealed.algorithm, sealed.encrypted_at))


async def test_a_retired_version_no_longer_decrypts(path: Path, clock: FakeClock) -> None:
    provider = of_file(path, clock=clock)
    old = await provider.encrypt(b"value", "default")
    await provider.rotate_key("default")
    with pytest.raises(KeyStateError):
        await provider.retire_version(1)
    clock.advance(timedelta(minutes=5))
    await provider.retire_version(1)
    with pytest.raises(DecryptionError):
        await provider.decrypt(old)


async def test_describe_tells_when_the_kek_was_made(path: Path, clock: FakeClock) -> None:
    provider = of_file(path, clock=clock)
    clock.advance(timedelta(days=1))
    await provider.rotate_key("default")
    description = await provider.describe("default")
    assert (description.created_at, description.current_version) == (START, "2")
    assert (await provider.get_rotation_policy("default")).last_rotation == START + timedelta(days=1)


async def test_the_file_is_found_after_the_process_changes_its_folder(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    provider = LocalKMSProvider(LocalKMSConfig(path="kek"))
    monkeypatch.chdir("/")
    assert await provider.decrypt(await provider.encrypt(b"value", "default")) == b"value"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_fork_is_not_stopped_by_a_lock_its_parent_held(path: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider\n"
        "provider = LocalKMSProvider(LocalKMSConfig(path=sys.argv[1]))\n"
        "provider._source._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    asyncio.run(provider.encrypt(b'value', 'default')); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], timeout=30, check=False).returncode == 0


def test_importing_the_provider_loads_no_cryptography() -> None:
    modules = "sys, keystead.providers.local.provider, keystead.providers.registry"
    script = f"import {modules}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


async def test_a_key_id_that_is_not_text_is_refused(path: Path) -> None:
    with pytest.raises(InvalidInputError):
        await of_file(path).describe(cast(str, 7))
