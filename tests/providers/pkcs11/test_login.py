"""Logging in: a wrong PIN costs one try, whoever asks again and in whatever way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, ProviderAuthError, ProviderConnectionError
from keystead.providers.guard import GuardedProvider
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from keystead.providers.pkcs11.token import Module
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import PIN, SoftHsm

COUNT_LOW, FINAL_TRY, LOCKED = 0x10000, 0x20000, 0x40000


@pytest.fixture(autouse=True)
def _no_pin_was_refused_yet(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softhsm.module, "_refused", set())


async def refused(provider: Pkcs11KMSProvider | GuardedProvider, match: str) -> None:
    with pytest.raises(ProviderAuthError, match=match) as caught:
        await provider.encrypt(b"value", "kek")
    assert not caught.value.retryable


async def test_a_wrong_pin_is_tried_once_and_never_again(softhsm: SoftHsm, faults: Faults) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(pin="wrong"))
    await refused(provider, "PinIncorrect")
    for _ in range(3):
        await refused(provider, "not tried again")
    assert faults.calls["open"] == 1
    await provider.aclose()


async def test_the_guard_does_not_try_it_again_either(softhsm: SoftHsm, faults: Faults) -> None:
    provider = GuardedProvider(Pkcs11KMSProvider(softhsm.config(pin="wrong")), "hsm")
    await refused(provider, "PinIncorrect")
    assert faults.calls["open"] == 1


async def test_another_provider_does_not_try_the_same_wrong_pin(softhsm: SoftHsm, faults: Faults) -> None:
    await refused(Pkcs11KMSProvider(softhsm.config(pin="wrong")), "PinIncorrect")
    await refused(Pkcs11KMSProvider(softhsm.config(pin="wrong")), "not tried again")
    assert faults.calls["open"] == 1


async def test_a_corrected_pin_file_is_tried(softhsm: SoftHsm, key: str, tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text("wrong")
    file.chmod(0o600)
    provider = Pkcs11KMSProvider(softhsm.config(pin=None, pin_file=file))
    await refused(provider, "PinIncorrect")
    file.write_text(PIN)
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"
    await provider.aclose()


@pytest.mark.parametrize("pin", ["x", "x" * 255])
async def test_a_pin_of_an_impossible_length_is_a_wrong_one(softhsm: SoftHsm, pin: str) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(pin=pin))
    await refused(provider, "Pin")
    await refused(provider, "not tried again")


async def test_a_locked_token_is_not_logged_in_to_and_the_cure_is_named(softhsm: SoftHsm, faults: Faults) -> None:
    faults.flags = LOCKED
    await refused(Pkcs11KMSProvider(softhsm.config()), "security officer unlocks")
    assert faults.calls["open"] == 0


async def test_a_token_that_says_at_login_that_it_is_locked_names_the_cure(softhsm: SoftHsm, faults: Faults) -> None:
    faults.fail("open", "PinLocked")
    await refused(Pkcs11KMSProvider(softhsm.config()), "security officer unlocks")


async def test_the_last_try_before_a_lock_is_left_to_a_person(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    faults.flags = FINAL_TRY | COUNT_LOW
    await refused(provider, "pkcs11-tool")
    assert faults.calls["open"] == 0
    faults.flags = COUNT_LOW
    await provider.encrypt(b"value", key)
    await provider.aclose()


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("PinExpired", "set first"),
        ("UserPinNotInitialized", "set first"),
        ("AnotherUserAlreadyLoggedIn", "somebody else"),
        ("UserTooManyTypes", "somebody else"),
    ],
)
async def test_what_else_keeps_a_user_out_is_told(softhsm: SoftHsm, faults: Faults, code: str, match: str) -> None:
    faults.fail("open", code)
    await refused(Pkcs11KMSProvider(softhsm.config()), match)


async def test_a_login_that_failed_for_a_passing_reason_may_be_tried_again(
    softhsm: SoftHsm, faults: Faults, key: str
) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    faults.fail("open", "SessionCount")
    with pytest.raises(ProviderConnectionError, match="SessionCount") as caught:
        await provider.encrypt(b"value", key)
    assert caught.value.retryable
    await provider.encrypt(b"value", key)
    await provider.aclose()


async def test_a_login_that_was_left_behind_is_used(softhsm: SoftHsm, key: str, faults: Faults) -> None:
    first = Pkcs11KMSProvider(softhsm.config())
    await first.encrypt(b"value", key)
    faults.fail("close", "GeneralError")
    await first.aclose()
    second = Pkcs11KMSProvider(softhsm.config())
    sealed = await second.encrypt(b"value", key)
    assert await second.decrypt(sealed) == b"value"
    await second.aclose()
    softhsm.in_turn(lambda: _log_out(softhsm.module))


def _log_out(module: Module) -> None:
    """Start the module anew: nobody else knows of the session that was not closed."""
    real: Any = module._library()._real
    module._restart(real)


async def test_two_tokens_of_one_module_have_logins_of_their_own(softhsm: SoftHsm, key: str) -> None:
    first = Pkcs11KMSProvider(softhsm.config())
    second = Pkcs11KMSProvider(softhsm.config(token_label="other"))
    await first.encrypt(b"value", key)
    assert (await second.rotate_key(await _made_in(softhsm, "other"))).key_version
    await second.aclose()
    await first.encrypt(b"value", key)
    await first.aclose()
    softhsm.administer(lambda token, session: [each.destroy() for each in session.get_objects()], "other")


async def _made_in(softhsm: SoftHsm, label: str) -> str:
    def job(token: Any, session: Any) -> None:
        p11 = token.p11
        session.generate_key(p11.KeyType.AES, 256, label="elsewhere", id=b"\x01", store=True)

    softhsm.administer(job, label)
    return "elsewhere"


@pytest.mark.parametrize(
    "settings", [{"token_label": "none"}, {"token_serial": "none"}, {"token_model": "none"}, {"token_label": "KMS"}]
)
async def test_a_token_that_is_not_there_is_a_connection_error_that_names_those_that_are(
    softhsm: SoftHsm, settings: dict[str, Any]
) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(**settings))
    with pytest.raises(ProviderConnectionError, match=r"it shows 'kms', 'other'|it shows 'other', 'kms'") as caught:
        await provider.encrypt(b"value", "kek")
    assert caught.value.retryable
    await provider.aclose()


async def test_a_token_is_found_by_its_serial_number(softhsm: SoftHsm, key: str) -> None:
    serial = softhsm.administer(lambda token, session: token.token.serial.decode())
    provider = Pkcs11KMSProvider(softhsm.config(token_label=None, token_serial=serial))
    await provider.encrypt(b"value", key)
    await provider.aclose()


async def test_a_name_that_fits_two_tokens_is_refused(softhsm: SoftHsm) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(token_label=None, token_manufacturer="SoftHSM project"))
    with pytest.raises(ConfigurationError, match="serial="):
        await provider.encrypt(b"value", "kek")
    await provider.aclose()


async def test_providers_of_one_token_with_different_pins_are_told_so_without_a_try(
    softhsm: SoftHsm, faults: Faults, key: str
) -> None:
    first = Pkcs11KMSProvider(softhsm.config())
    await first.encrypt(b"value", key)
    before = faults.calls["open"]
    await refused(Pkcs11KMSProvider(softhsm.config(pin="wrong")), "another PIN")
    assert faults.calls["open"] == before
    await first.aclose()
