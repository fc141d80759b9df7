"""No repr, text, pickle, copy or traceback shows a key."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import KMSError
from keystead.model import SecretBytes
from keystead.providers.guard import GuardedProvider
from keystead.providers.local.kek import KekVersion, LocalKek
from keystead.providers.local.kek_file import create_kek_file, read_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.uri import ProviderSettings
from keystead.testing import FakeKMS

KEY = b"a canary that must never be seen"
PASSPHRASE = "a canary that must never be seen"
SPELLINGS = (KEY.decode(), KEY.hex(), base64.b64encode(KEY).decode(), repr(bytearray(KEY)), str(list(KEY)))

HOLDERS: dict[str, Callable[[], Any]] = {
    "config": lambda: LocalKMSConfig(master_key=KEY),
    "config-passphrase": lambda: LocalKMSConfig(passphrase=PASSPHRASE, salt=KEY),
    "provider": lambda: LocalKMSProvider(LocalKMSConfig(master_key=KEY)),
    "guard": lambda: GuardedProvider(LocalKMSProvider(LocalKMSConfig(master_key=KEY)), "local"),
    "kek": lambda: LocalKek([KekVersion(1, SecretBytes(KEY))]),
    "kek-version": lambda: KekVersion(1, SecretBytes(KEY)),
    "fake": lambda: FakeKMS(random=lambda size: KEY[:size]),
    "settings": lambda: ProviderSettings(environ={"TEST_KEK": KEY.decode()}),
}


def assert_hidden(text: str) -> None:
    assert [spelling for spelling in SPELLINGS if spelling in text] == []


@pytest.mark.parametrize("name", HOLDERS)
def test_no_text_of_a_holder_shows_the_key(name: str) -> None:
    holder = HOLDERS[name]()
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
        assert_hidden(text)


@pytest.mark.parametrize("name", ["config", "config-passphrase", "provider", "guard", "kek-version"])
@pytest.mark.parametrize("copying", [pickle.dumps, copy.deepcopy])
def test_a_holder_is_not_pickled_or_copied(name: str, copying: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        copying(HOLDERS[name]())


@pytest.mark.parametrize("name", ["config", "provider", "kek-version"])
def test_a_holder_is_no_json(name: str) -> None:
    with pytest.raises(TypeError):
        json.dumps(HOLDERS[name]())


def test_a_config_is_not_turned_into_a_dict_with_the_key() -> None:
    with pytest.raises(TypeError):
        dataclasses.asdict(LocalKMSConfig(master_key=KEY))


async def test_a_data_key_pair_hides_its_key() -> None:
    pair = await LocalKMSProvider(random=lambda size: KEY[:size]).generate_data_key("default")
    for text in (repr(pair), str(pair), f"{pair}"):
        assert_hidden(text)
    with pytest.raises(TypeError):
        pickle.dumps(pair)


async def test_no_error_on_the_way_from_file_to_key_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_kek_file(path, random=lambda size: KEY[:size])
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha257"))
    with pytest.raises(KMSError) as caught:
        read_kek_file(str(path))
    assert_hidden(text_with_frames(caught.value))
    # Whoever shows what was suppressed too would show the frames of the parser.
    assert caught.value.__context__ is None


async def test_no_error_on_the_way_from_variable_to_key_shows_it() -> None:
    environ = Environment()
    provider = LocalKMSProvider(LocalKMSConfig(env="TEST_KEK"), environ=environ)
    with pytest.raises(KMSError) as caught:
        await provider.encrypt(b"", "default")
    assert_hidden(text_with_frames(caught.value))


class Environment(dict[str, str]):
    """An environment that does not show its values, as the process's own would in the traceback of a test."""

    def get(self, name: str, default: Any = None) -> Any:
        return KEY.hex() + "0"

    def __repr__(self) -> str:
        return "Environment()"


def text_with_frames(error: BaseException) -> str:
    """Return the traceback as an error tracker shows it: with the values of every frame's names."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


@pytest.mark.parametrize("key", [KEY + b"!", KEY[:31]])
def test_no_error_about_a_master_key_shows_it(key: bytes) -> None:
    with pytest.raises(KMSError) as caught:
        LocalKMSConfig(master_key=key)
    assert key.decode() not in str(caught.value)
