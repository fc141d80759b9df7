"""Nothing that an operator or an error tracker sees holds the PIN, or what the binding's exceptions hold."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, DecryptionError, KMSError, ProviderAuthError
from keystead.model import SecretBytes
from keystead.providers.guard import GuardedProvider
from keystead.providers.pkcs11.config import Pin, PinSource
from keystead.providers.pkcs11.provider import Pkcs11KMSConfig, Pkcs11KMSProvider
from tests.canary.watch import SecretWatch, listening
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import P256, SoftHsm

CANARY = "canary-pin-5b0a0c1f77"

HOLDERS: dict[str, Callable[[], Any]] = {
    "config": lambda: Pkcs11KMSConfig("/lib.so", pin=CANARY),
    "provider": lambda: Pkcs11KMSProvider(Pkcs11KMSConfig("/lib.so", pin=CANARY)),
    "guard": lambda: GuardedProvider(Pkcs11KMSProvider(Pkcs11KMSConfig("/lib.so", pin=CANARY)), "hsm"),
    "source": lambda: PinSource(Pkcs11KMSConfig(pin=partial(str, CANARY))),
    "pin": lambda: Pin(CANARY),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_no_text_of_a_holder_shows_the_pin(name: str) -> None:
    holder = HOLDERS[name]()
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
        assert CANARY not in text


@pytest.mark.parametrize("name", ["config", "provider", "guard", "pin"])
@pytest.mark.parametrize("copying", [pickle.dumps, copy.deepcopy, json.dumps])
def test_a_holder_is_not_pickled_copied_or_turned_into_json(name: str, copying: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        copying(HOLDERS[name]())


def test_a_config_is_not_turned_into_a_dict_with_the_pin() -> None:
    assert CANARY not in repr(dataclasses.asdict(Pkcs11KMSConfig("/lib.so", pin=CANARY)))


def shown(error: BaseException) -> str:
    """Return the traceback as an error tracker shows it, below this test's own frame, with every frame's values."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


async def failure_of(provider: Pkcs11KMSProvider) -> KMSError:
    with pytest.raises(KMSError) as caught:
        await provider.encrypt(b"value", "kek")
    await provider.aclose()
    return caught.value


@pytest.mark.parametrize("how", ["text", "function", "file"])
async def test_no_error_of_a_login_shows_the_pin_in_message_frames_or_context(
    softhsm: SoftHsm, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softhsm.module, "_refused", set())
    file = tmp_path / "pin"
    file.write_text(CANARY)
    file.chmod(0o600)
    settings: dict[str, dict[str, Any]] = {
        "text": {"pin": CANARY},
        "function": {"pin": partial(str, CANARY)},
        "file": {"pin": None, "pin_file": file},
    }
    for _ in range(2):  # the refusal, and the refusal to try again
        error = await failure_of(Pkcs11KMSProvider(softhsm.config(**settings[how])))
        assert isinstance(error, ProviderAuthError)
        assert CANARY not in shown(error)
        assert error.__context__ is None
        assert error.__cause__ is None


def test_no_error_on_the_way_to_the_pin_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text(f"{CANARY}\n{CANARY}")
    file.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        PinSource(Pkcs11KMSConfig(pin_file=file)).read()
    assert CANARY not in shown(caught.value)
    with pytest.raises(ProviderAuthError) as refused:
        PinSource(Pkcs11KMSConfig(pin=partial(str, CANARY * 20))).read()
    assert CANARY not in shown(refused.value)


async def test_no_error_of_the_token_travels_on_with_what_the_call_was_about(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    for code in ("DeviceError", "MechanismInvalid", "ArgumentsBad"):
        faults.fail("encrypt", code, 5)
        with pytest.raises(KMSError) as caught:
            await provider.encrypt(b"value", key)
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("uses", ["ENCRYPT DECRYPT", "WRAP UNWRAP"])
async def test_no_error_shows_what_was_to_be_encrypted_or_is_inside_a_ciphertext(
    softhsm: SoftHsm, faults: Faults, provider: Pkcs11KMSProvider, uses: str
) -> None:
    secret = SecretBytes(b"a plaintext that nobody may see!")
    key = softhsm.make_aes(uses=uses)
    sealed = await provider.encrypt(secret, key, context={"row": "1"})
    with pytest.raises(DecryptionError) as refused:
        await provider.decrypt(sealed, context={"row": "2"})
    assert secret.decode() not in shown(refused.value)
    for method, code in (("encrypt", "DeviceError"), ("wrap_key", "DeviceError"), ("create_object", "HostMemory")):
        faults.fail(method, code, 5)
    with pytest.raises(KMSError) as failed:
        await provider.encrypt(secret, key)
    assert secret.decode() not in shown(failed.value)


async def test_showing_an_error_with_its_frames_asks_the_token_nothing(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    # The binding's objects ask the token for their repr, and whoever shows a traceback is a second thread in it.
    wrapping = softhsm.make_aes(uses="WRAP UNWRAP")
    sealed = [await provider.encrypt(b"value", each, context={"a": "b"}) for each in (key, wrapping)]
    errors = []
    pair = softhsm.make_pair("EC", P256)
    softhsm.destroy(pair, public_only=True)
    for call in (
        provider.decrypt(sealed[0], context={"a": "c"}),
        provider.decrypt(sealed[1], context={"a": "c"}),
        provider.public_key(pair),
        provider.sign(b"message", key),
        provider.describe("absent"),
        provider.rotate_key("absent"),
    ):
        with pytest.raises(KMSError) as caught:
            await call
        errors.append(caught.value)
    softhsm.destroy(wrapping)
    softhsm.destroy(pair)
    softhsm.in_turn(lambda: softhsm.module._restart(softhsm.module._library()))
    for error in errors:
        assert "ObjectHandleInvalid" not in shown(error)  # which every question would end with now


async def test_nothing_is_logged_of_pin_or_plaintext(
    softhsm: SoftHsm, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch, plaintext = SecretWatch(), b"a plaintext that nobody logs"
    watch.learn(CANARY.encode())
    watch.learn(plaintext)
    with caplog.at_level(logging.DEBUG), listening(watch, ("", logging.DEBUG)):
        provider = Pkcs11KMSProvider(softhsm.config())
        await provider.decrypt(await provider.encrypt(plaintext, key))
        await provider.aclose()
        await failure_of(Pkcs11KMSProvider(softhsm.config(pin=CANARY)))
    assert watch.hits() == []
    assert CANARY not in caplog.text
    assert plaintext.decode() not in caplog.text
