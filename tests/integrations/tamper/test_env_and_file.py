"""``EnvKeyProvider`` and ``FileKeyProvider``."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, KeyNotFoundError
from keystead.integrations.tamper import EnvKeyProvider, FileKeyProvider
from keystead.providers.key_material import fingerprint
from tests.fakes.clock import FakeClock

KEY, OLDER = bytes(range(32)), bytes(range(100, 132))
MESSAGE = b"what happened"
TEXT = "0123456789abcdef" * 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "key", KEY)


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    staged = path.with_suffix(".new")
    staged.write_bytes(content)
    staged.chmod(mode)
    staged.rename(path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        KEY + b"\n",
        KEY + b"\r\n",
        base64.b64encode(KEY),
        base64.b64encode(KEY).rstrip(b"="),
        base64.b64encode(KEY).rstrip(b"=") + b"\n",
        base64.urlsafe_b64encode(KEY) + b"\r\n",
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\n",
    ],
)
async def test_a_key_is_read_in_every_way_to_write_it(path: Path, content: bytes) -> None:
    written(path, content)
    assert await FileKeyProvider(path).get_key("audit") == KEY
    if b"\x00" not in content:
        assert await EnvKeyProvider("A_KEY", environ={"A_KEY": content.decode()}).get_key("audit") == KEY


async def test_the_variable_of_the_process_is_read_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = EnvKeyProvider("KEYSTEAD_TEST_AUDIT_KEY")
    with pytest.raises(ConfigurationError, match="KEYSTEAD_TEST_AUDIT_KEY holds no key"):
        await provider.get_key("audit")
    monkeypatch.setenv("KEYSTEAD_TEST_AUDIT_KEY", KEY.hex())
    assert await provider.sign("audit", MESSAGE) == hmac.digest(KEY, MESSAGE, "sha256")


async def test_several_keys_verify_and_the_first_signs(path: Path) -> None:
    written(path, f"{KEY.hex()}\n{OLDER.hex()}\n".encode())
    for provider in (FileKeyProvider(path), EnvKeyProvider("A_KEY", environ={"A_KEY": f"{KEY.hex()},{OLDER.hex()}"})):
        assert await provider.sign("audit", MESSAGE) == hmac.digest(KEY, MESSAGE, "sha256")
        assert await provider.verify("audit", MESSAGE, hmac.digest(OLDER, MESSAGE, "sha256"))
        assert await provider.get_key(f"audit#{fingerprint(OLDER)}") == OLDER


async def test_a_folder_of_keys_is_read_and_a_new_file_is_a_rotation(tmp_path: Path, clock: FakeClock) -> None:
    written(tmp_path / "2026-09.key", OLDER)
    provider = FileKeyProvider(tmp_path, clock=clock)
    old = await provider.sign("audit", MESSAGE)
    written(tmp_path / "2026-10.key", KEY)
    assert await provider.rotate_check()
    assert await provider.sign("audit", MESSAGE) == hmac.digest(KEY, MESSAGE, "sha256")
    assert await provider.verify("audit", MESSAGE, old)


async def test_a_change_is_seen_a_second_later(path: Path, clock: FakeClock) -> None:
    provider = FileKeyProvider(path, clock=clock)
    await provider.sign("audit", MESSAGE)
    written(path, OLDER)
    clock.advance(1)
    assert await provider.sign("audit", MESSAGE) == hmac.digest(OLDER, MESSAGE, "sha256")


async def test_a_file_its_group_may_read_is_accepted_when_told(path: Path) -> None:
    path.chmod(0o440)
    with pytest.raises(ConfigurationError, match="allow_group_read"):
        await FileKeyProvider(path).get_key("audit")
    assert await FileKeyProvider(path, allow_group_read=True).get_key("audit") == KEY


async def test_ed25519_keys_are_seeds(path: Path) -> None:
    provider = FileKeyProvider(path, algorithm="Ed25519")
    signature = await provider.sign("audit", MESSAGE)
    assert len(signature) == 64
    assert await provider.verify("audit", MESSAGE, signature)
    assert not await FileKeyProvider(path).verify("audit", MESSAGE, signature)


async def test_what_looks_like_a_password_is_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"A_KEY": TEXT}
    with pytest.warns(UserWarning, match="looks like a password"):
        assert await EnvKeyProvider("A_KEY", environ=environ).get_key("audit") == TEXT.encode()
    monkeypatch.setenv("KEYSTEAD_ENV", "production")
    with pytest.raises(ConfigurationError, match="refused in production"):
        await EnvKeyProvider("A_KEY", environ=environ).get_key("audit")
    encoded = {"A_KEY": base64.b64encode(TEXT.encode()).decode()}
    assert await EnvKeyProvider("A_KEY", environ=encoded).get_key("audit") == TEXT.encode()


def test_f11_construction_reads_nothing(tmp_path: Path) -> None:
    FileKeyProvider(tmp_path / "missing")
    EnvKeyProvider("KEYSTEAD_TEST_MISSING")


async def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError):
        await FileKeyProvider(tmp_path / "missing").verify("audit", MESSAGE, b"signature")


@pytest.mark.parametrize("name", ["", "A=B", None])
def test_what_is_no_name_of_a_variable_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name of an environment variable"):
        EnvKeyProvider(name)


def test_no_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="path"):
        FileKeyProvider("")


def test_an_unknown_algorithm_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HMAC-SHA256 or Ed25519"):
        FileKeyProvider(path, algorithm="MD5")


async def test_f23_a_key_for_each_purpose(path: Path) -> None:
    provider = FileKeyProvider(path, stream="app")
    keys = {await provider.derive_key("audit", purpose) for purpose in ("record", "manifest")}
    assert len(keys | {await provider.get_key("audit")}) == 3
