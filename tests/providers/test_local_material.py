"""A local KEK made of keys that somebody else keeps: in a variable, a file or a folder."""

from __future__ import annotations

import base64
import gc
import logging
import os
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError, DecryptionError, KeyNotFoundError, RotationNotSupportedError
from keystead.providers.key_material import KeyMaterial, fingerprint
from keystead.providers.local.kek import LocalKek
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.kek_material import kek_of, version_number
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings

OLD, NEW = bytes(range(32)), bytes(range(32, 63)) + b"\xff"


def lines(*keys: bytes) -> str:
    return "\n".join(base64.b64encode(key).decode() for key in keys)


def written(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    staged = path.with_name(f"{path.name}.new")
    staged.write_bytes(content.encode() if isinstance(content, str) else content)
    staged.chmod(mode)
    staged.rename(path)
    return path


def of_file(path: Path, *, allow_group_read: bool = False) -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(path=path, allow_group_read=allow_group_read))


def of_variable(environ: dict[str, str]) -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(env="A_KEK"), environ=environ)


async def test_the_same_key_is_the_same_kek_wherever_it_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder" / "v1", OLD)
    providers = [
        LocalKMSProvider(LocalKMSConfig(master_key=OLD)),
        of_variable({"A_KEK": OLD.hex()}),
        of_file(written(tmp_path / "raw", OLD)),
        of_file(written(tmp_path / "text", lines(OLD))),
        of_file(tmp_path / "folder"),
    ]
    for one in providers:
        sealed = await one.encrypt(b"value", "default")
        assert sealed.key_reference.key_version == str(version_number(fingerprint(OLD)))
        for other in providers:
            assert await other.decrypt(sealed) == b"value"


async def test_the_first_key_wraps_and_every_key_unwraps() -> None:
    environ = {"A_KEK": OLD.hex()}
    provider = of_variable(environ)
    old = await provider.encrypt(b"value", "default")
    environ["A_KEK"] = f"{NEW.hex()},{OLD.hex()}"
    new = await provider.encrypt(b"value", "default")
    assert new.key_reference.key_version != old.key_reference.key_version
    assert [await of_variable(environ).decrypt(each) for each in (old, new)] == [b"value", b"value"]


async def test_the_order_of_keys_does_not_change_their_numbers() -> None:
    old = await of_variable({"A_KEK": OLD.hex()}).encrypt(b"value", "default")
    for text in (f"{NEW.hex()},{OLD.hex()}", f"{OLD.hex()},{NEW.hex()}"):
        assert await of_variable({"A_KEK": text}).decrypt(old) == b"value"


async def test_a_key_that_was_taken_out_no_longer_opens_anything() -> None:
    old = await of_variable({"A_KEK": OLD.hex()}).encrypt(b"value", "default")
    with pytest.raises(DecryptionError, match="names KEK version"):
        await of_variable({"A_KEK": NEW.hex()}).decrypt(old)


async def test_rewrapping_moves_to_the_newest_key() -> None:
    provider = of_variable({"A_KEK": f"{NEW.hex()},{OLD.hex()}"})
    old = await of_variable({"A_KEK": OLD.hex()}).encrypt(b"value", "default")
    moved = await provider.rewrap(old)
    assert await of_variable({"A_KEK": NEW.hex()}).decrypt(moved) == b"value"


async def test_a_change_of_the_file_is_seen_at_the_next_wrap(tmp_path: Path) -> None:
    path = written(tmp_path / "kek", OLD)
    provider = of_file(path)
    old = await provider.encrypt(b"value", "default")
    written(path, lines(NEW, OLD))
    new = await provider.encrypt(b"value", "default")
    assert new.key_reference.key_version == str(version_number(fingerprint(NEW)))
    assert await provider.decrypt(old) == b"value"


async def test_a_new_file_in_the_folder_is_seen_at_the_next_wrap(tmp_path: Path) -> None:
    written(tmp_path / "v9", OLD)
    provider = of_file(tmp_path)
    old = await provider.encrypt(b"value", "default")
    written(tmp_path / "v10", NEW)
    assert (await provider.encrypt(b"value", "default")).key_reference.key_version != old.key_reference.key_version
    assert await provider.decrypt(old) == b"value"


async def test_a_key_that_another_process_began_to_use_is_read_when_a_ciphertext_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "kek", OLD)
    reader = of_file(path)
    await reader.encrypt(b"warms up", "default")
    written(path, lines(NEW, OLD))
    assert await reader.decrypt(await of_file(path).encrypt(b"value", "default")) == b"value"


async def test_a_file_that_vanishes_stops_wrapping_and_not_reading(tmp_path: Path) -> None:
    path = written(tmp_path / "kek", OLD)
    provider = of_file(path)
    sealed = await provider.encrypt(b"value", "default")
    path.unlink()
    assert await provider.decrypt(sealed) == b"value"
    with pytest.raises(KeyNotFoundError, match="is gone"):
        await provider.encrypt(b"value", "default")


async def test_a_file_that_is_broken_stops_wrapping_and_not_reading(tmp_path: Path) -> None:
    path = written(tmp_path / "kek", OLD)
    provider = of_file(path)
    sealed = await provider.encrypt(b"value", "default")
    written(path, OLD[:31])
    assert await provider.decrypt(sealed) == b"value"
    with pytest.raises(ConfigurationError, match="restore it from its backup"):
        await provider.encrypt(b"value", "default")
    written(path, OLD)
    assert await provider.decrypt(await provider.encrypt(b"again", "default")) == b"again"


async def test_a_key_that_is_replaced_without_keeping_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "kek", OLD)
    provider = of_file(path)
    await provider.encrypt(b"value", "default")
    written(path, NEW)
    with caplog.at_level(logging.WARNING, logger="keystead.providers"):
        await provider.encrypt(b"value", "default")
    assert "no longer there" in caplog.text


@pytest.mark.parametrize("kept_in", ["file", "variable"])
async def test_a_process_that_read_a_key_opens_what_it_wrapped_after_it_was_replaced_and_can_rewrap_it(
    kept_in: str, tmp_path: Path
) -> None:
    environ, path = {"A_KEK": OLD.hex()}, written(tmp_path / "kek", OLD)
    provider = of_file(path) if kept_in == "file" else of_variable(environ)
    old = await provider.encrypt(b"value", "default")
    environ["A_KEK"] = NEW.hex()
    written(path, NEW)
    await provider.encrypt(b"another", "default")
    assert await provider.decrypt(old) == b"value"
    moved = await provider.rewrap(old)
    afterwards = of_file(path) if kept_in == "file" else of_variable(environ)
    assert await afterwards.decrypt(moved) == b"value"


async def test_what_was_read_before_is_forgotten_at_close(tmp_path: Path) -> None:
    environ = {"A_KEK": OLD.hex()}
    provider = of_variable(environ)
    old = await provider.encrypt(b"value", "default")
    environ["A_KEK"] = NEW.hex()
    await provider.encrypt(b"another", "default")
    await provider.aclose()
    with pytest.raises(DecryptionError, match="names KEK version"):
        await provider.decrypt(old)


async def test_a_clock_that_is_behind_the_files_does_not_make_every_wrap_keep_another_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = of_file(written(tmp_path / "kek", lines(NEW, OLD)))
    sealed = await provider.encrypt(b"value", "default")
    monkeypatch.setattr("keystead.providers.key_sources.time.time_ns", lambda: 0)
    for _ in range(50):
        await provider.encrypt(b"value", "default")
    keks = [
        each for each in gc.get_objects() if isinstance(each, LocalKek) and version_number(fingerprint(NEW)) in each
    ]
    assert len(keks) <= 2
    assert await provider.decrypt(sealed) == b"value"


async def test_a_kek_file_is_still_read_as_one(tmp_path: Path) -> None:
    create_kek_file(tmp_path / "kek")
    sealed = await of_file(tmp_path / "kek").encrypt(b"value", "default")
    assert sealed.key_reference.key_version == "1"


async def test_a_kek_file_with_a_broken_first_line_is_not_taken_for_a_key(tmp_path: Path) -> None:
    create_kek_file(tmp_path / "kek")
    content = (tmp_path / "kek").read_bytes()
    (tmp_path / "kek").write_bytes(b"K" + content[1:])
    with pytest.raises(ConfigurationError, match="KEK file"):
        await of_file(tmp_path / "kek").encrypt(b"value", "default")


async def test_a_file_that_others_may_read_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="others") as caught:
        await of_file(written(tmp_path / "kek", OLD, 0o644)).encrypt(b"value", "default")
    assert "backup" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="restore it from its backup") as caught:
        await of_file(written(tmp_path / "kek", b"no key")).encrypt(b"value", "default")
    assert str(caught.value).count("backup") == 1


async def test_a_kek_file_its_group_may_read_keeps_that_when_it_rotates(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_kek_file(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="allow_group_read"):
        await of_file(path).encrypt(b"value", "default")
    provider = of_file(path, allow_group_read=True)
    old = await provider.encrypt(b"value", "default")
    await provider.rotate_key("default")
    assert path.stat().st_mode & 0o777 == 0o640
    assert await of_file(path, allow_group_read=True).decrypt(old) == b"value"


@pytest.mark.parametrize("kept_in", ["file", "variable"])
async def test_keys_that_somebody_else_keeps_are_neither_rotated_nor_retired_here(kept_in: str, tmp_path: Path) -> None:
    written(tmp_path / "kek", OLD)
    provider = of_file(tmp_path / "kek") if kept_in == "file" else of_variable({"A_KEK": OLD.hex()})
    with pytest.raises(RotationNotSupportedError, match="in front of the others"):
        await provider.rotate_key("default")
    with pytest.raises(RotationNotSupportedError, match="take it out"):
        await provider.retire_version(1)
    assert (tmp_path / "kek").read_bytes() == OLD


async def test_after_close_the_keys_are_read_again(tmp_path: Path) -> None:
    for provider in (of_file(written(tmp_path / "kek", OLD)), of_variable({"A_KEK": OLD.hex()})):
        sealed = await provider.encrypt(b"value", "default")
        await provider.aclose()
        assert await provider.decrypt(sealed) == b"value"


def test_two_keys_that_would_have_one_number_are_refused() -> None:
    first, second = KeyMaterial.of(OLD), KeyMaterial.of(NEW)
    twin = KeyMaterial(second.key, first.fingerprint[:8] + "00000000")
    with pytest.raises(ConfigurationError, match="31 bits"):
        kek_of([first, twin])


async def test_a_uri_allows_a_reading_group(tmp_path: Path) -> None:
    path = written(tmp_path / "kek", OLD, 0o440)
    with pytest.raises(ConfigurationError, match="open to others"):
        await open_provider(f"file:{path}").provider.encrypt(b"value", "default")
    await open_provider(f"file:{path}?allow_group_read=true").provider.encrypt(b"value", "default")


def test_a_reading_group_is_about_a_file() -> None:
    with pytest.raises(ConfigurationError, match="give path"):
        LocalKMSConfig(env="A_KEK", allow_group_read=True)
    with pytest.raises(ConfigurationError, match="no option 'allow_group_read'"):
        open_provider("env:A_KEK?allow_group_read=true")


async def test_what_looks_like_a_password_is_no_kek_in_production() -> None:
    environ = {"A_KEK": "0123456789abcdef" * 2}
    with pytest.warns(UserWarning, match="looks like a password"):
        await open_provider("env:A_KEK", ProviderSettings(environ=environ)).provider.encrypt(b"value", "default")
    production = ProviderSettings(production=True, environ=environ)
    with pytest.raises(ConfigurationError, match="refused in production"):
        await open_provider("env:A_KEK?allow_in_production=true", production).provider.encrypt(b"value", "default")


async def test_many_keys_have_numbers_of_their_own() -> None:
    keys = [os.urandom(32) for _ in range(64)]
    provider = of_variable({"A_KEK": ",".join(key.hex() for key in keys)})
    for key in keys:
        sealed = await of_variable({"A_KEK": key.hex()}).encrypt(b"value", "default")
        assert await provider.decrypt(sealed) == b"value"
