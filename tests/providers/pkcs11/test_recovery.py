"""A token that goes away and comes back, sessions that end, and telling a bad ciphertext from a bad token."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast

import pytest

from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.model import EncryptedData
from keystead.ports import RotatesKeys
from keystead.providers.guard import GuardedProvider
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import SoftHsm

STALE = [
    "SessionHandleInvalid",
    "SessionClosed",
    "KeyHandleInvalid",
    "ObjectHandleInvalid",
    "UserNotLoggedIn",
    "OperationActive",
    "0x68",
]
GONE = ["DeviceRemoved", "TokenNotPresent", "DeviceError", "SlotIDInvalid", "0x80000001"]


def altered(sealed: EncryptedData) -> EncryptedData:
    return replace(sealed, ciphertext=sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1]))


async def away(provider: Pkcs11KMSProvider, sealed: EncryptedData, key: str) -> None:
    for call in (provider.decrypt(sealed), provider.encrypt(b"value", key), provider.describe(key)):
        with pytest.raises(ProviderConnectionError) as caught:
            await call
        assert caught.value.retryable
        assert not isinstance(caught.value, ProviderAuthError)


async def test_a_token_that_was_taken_away_is_a_connection_error_and_works_again_when_it_is_back(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    softhsm.remove_tokens()
    await away(provider, sealed, key)
    await away(provider, sealed, key)
    softhsm.insert_tokens()
    assert await provider.decrypt(sealed) == b"value"
    await provider.encrypt(b"value", key)


async def test_a_token_that_was_not_there_at_first_works_when_it_comes(softhsm: SoftHsm, key: str) -> None:
    softhsm.remove_tokens()
    provider = Pkcs11KMSProvider(softhsm.config())
    with pytest.raises(ProviderConnectionError, match="shows none"):
        await provider.encrypt(b"value", key)
    softhsm.insert_tokens()
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"
    await provider.aclose()


async def test_a_token_that_is_back_within_the_guards_patience_is_not_noticed(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    softhsm.remove_tokens()

    def random(size: int) -> bytes:
        softhsm.insert_tokens()  # while the guard draws its pause
        return bytes(size)

    assert await GuardedProvider(provider, "hsm", random=random).decrypt(sealed) == b"value"


async def test_a_token_that_is_away_does_not_disturb_another_of_its_module(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    sealed = await provider.encrypt(b"value", key)
    never = Pkcs11KMSProvider(softhsm.config(token_label="never there"))
    for _ in range(3):
        with pytest.raises(ProviderConnectionError):
            await never.encrypt(b"value", key)
    assert faults.calls["finalize"] == 0
    assert await provider.decrypt(sealed) == b"value"


async def test_of_two_tokens_one_comes_back_while_the_other_is_in_use(
    softhsm: SoftHsm, key: str, monkeypatch: pytest.MonkeyPatch, provider: Pkcs11KMSProvider
) -> None:
    other = Pkcs11KMSProvider(softhsm.config(token_label="other"))
    with pytest.raises(KeyNotFoundError):
        await other.describe("none")
    sealed = await provider.encrypt(b"value", key)
    hidden = softhsm.in_turn(lambda: [token for token in softhsm.module._tokens if token.token.label == "other"])
    softhsm.in_turn(lambda: softhsm.module._drop(hidden[0]))
    softhsm.remove_tokens()
    with pytest.raises(ProviderConnectionError):
        await other.describe("none")
    softhsm.insert_tokens()
    monkeypatch.setattr(softhsm.module, "shared_restart_s", 0.0)
    with pytest.raises(KeyNotFoundError):
        await other.describe("none")
    assert await provider.decrypt(sealed) == b"value"
    await other.aclose()


@pytest.mark.parametrize("code", STALE)
async def test_a_session_or_handle_that_has_passed_is_renewed_without_an_error(
    softhsm: SoftHsm, key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    before = faults.calls["open"]
    faults.fail("decrypt", code)
    assert await provider.decrypt(sealed) == b"value"
    faults.fail("encrypt", code)
    await provider.encrypt(b"value", key)
    assert faults.calls["open"] == before + 2


@pytest.mark.parametrize(
    ("code", "error"), [("SessionHandleInvalid", ProviderConnectionError), ("UserNotLoggedIn", ProviderAuthError)]
)
async def test_a_session_that_is_always_bad_is_an_error_after_one_renewal(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str, error: type[KMSError]
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.calls.clear()
    faults.fail("decrypt", code, 2)
    with pytest.raises(error):
        await provider.decrypt(sealed)
    assert faults.calls["decrypt"] == 2
    assert await provider.decrypt(sealed) == b"value"


@pytest.mark.parametrize("code", GONE)
async def test_a_device_that_has_gone_is_a_connection_error_and_the_next_call_opens_it_anew(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    for method, call in (("encrypt", provider.encrypt(b"value", key)), ("sign", provider.describe(key))):
        faults.fail(method if method == "encrypt" else "get_objects", code)
        with pytest.raises(ProviderConnectionError) as caught:
            await call
        assert caught.value.retryable
        assert caught.value.__context__ is None
    before = faults.calls["open"]
    assert await provider.decrypt(sealed) == b"value"
    assert faults.calls["open"] == before + 1


async def test_a_module_that_says_it_is_not_initialized_is_initialized(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    softhsm.in_turn(lambda: softhsm.module._library().finalize())
    with pytest.raises(ProviderConnectionError):
        await provider.decrypt(sealed)
    assert await provider.decrypt(sealed) == b"value"


async def test_a_wrong_tag_is_a_decryption_error_although_the_token_calls_it_a_general_one(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.calls.clear()
    with pytest.raises(DecryptionError):
        await provider.decrypt(altered(sealed))
    assert await provider.decrypt(sealed) == b"value"
    assert faults.calls["open"] == 0


@pytest.mark.parametrize("code", ["GeneralError", "FunctionFailed", "DeviceError", "HostMemory"])
async def test_a_general_error_of_a_token_that_fails_is_no_decryption_error(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.fail("decrypt", code, 2)
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.decrypt(sealed)
    assert caught.value.retryable
    assert await provider.decrypt(sealed) == b"value"


@pytest.mark.parametrize("code", ["GeneralError", "FunctionFailed", "DeviceError", "HostMemory"])
async def test_a_general_error_that_passes_does_not_condemn_a_good_ciphertext(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.fail("decrypt", code)
    assert await provider.decrypt(sealed) == b"value"


async def test_a_general_error_that_passes_does_not_condemn_the_ciphertext_of_a_retired_key(
    softhsm: SoftHsm, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    material, names = os.urandom(32), [f"used-{os.urandom(4).hex()}", f"retired-{os.urandom(4).hex()}"]
    for name, uses in zip(names, ("ENCRYPT DECRYPT", "DECRYPT"), strict=True):
        softhsm.import_aes(name, "01", material, uses)
    lenient = Pkcs11KMSProvider(softhsm.config(allow_extractable=True))
    made = await lenient.encrypt(b"value", names[0])
    await lenient.aclose()
    sealed = replace(made, key_reference=replace(made.key_reference, key_id=names[1]))
    faults.fail("decrypt", "GeneralError")
    assert await provider.decrypt(sealed) == b"value"
    with pytest.raises(DecryptionError):
        await provider.decrypt(altered(sealed))


async def test_a_general_error_of_a_token_that_has_gone_is_no_decryption_error(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.fail("decrypt", "GeneralError")
    faults.fail("get_token", "GeneralError")
    with pytest.raises(ProviderConnectionError):
        await provider.decrypt(sealed)


@pytest.mark.parametrize("code", ["EncryptedDataInvalid", "EncryptedDataLenRange", "0x42"])
async def test_a_token_that_names_the_fault_of_a_ciphertext_is_believed(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.calls.clear()
    faults.fail("decrypt", code)
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed)
    assert faults.calls["decrypt"] == 1


async def test_a_version_that_only_decrypts_tells_a_bad_ciphertext_too(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    softhsm.set_attributes(key, ENCRYPT=False)
    reader = Pkcs11KMSProvider(softhsm.config())
    await provider.aclose()
    assert await reader.decrypt(sealed) == b"value"
    with pytest.raises(DecryptionError):
        await reader.decrypt(altered(sealed))
    await reader.aclose()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("MechanismInvalid", InvalidInputError),
        ("KeySizeRange", InvalidInputError),
        ("DataLenRange", InvalidInputError),
        ("0x1b", ProviderAuthError),
        ("SessionCount", ProviderConnectionError),
        ("ArgumentsBad", ProviderConnectionError),
    ],
)
async def test_what_a_token_says_of_an_encryption_keeps_its_meaning(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str, error: type[KMSError]
) -> None:
    await provider.encrypt(b"value", key)
    faults.fail("encrypt", code)
    with pytest.raises(error):
        await provider.encrypt(b"value", key)


async def test_a_use_that_the_token_does_not_permit_is_a_key_state_error(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    faults.fail("decrypt", "0x68", 2)
    with pytest.raises(KeyStateError):
        await provider.decrypt(sealed)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("TokenWriteProtected", RotationNotSupportedError),
        ("SessionReadOnly", RotationNotSupportedError),
        ("AttributeValueInvalid", KeyRotationError),
        ("TemplateInconsistent", KeyRotationError),
        ("DeviceError", ProviderConnectionError),
    ],
)
async def test_what_a_token_says_of_a_rotation_keeps_its_meaning(
    key: str, faults: Faults, provider: Pkcs11KMSProvider, code: str, error: type[KMSError]
) -> None:
    before = (await provider.describe(key)).current_version
    faults.fail("generate_key", code)
    with pytest.raises(error) as caught:
        await provider.rotate_key(key)
    assert type(caught.value) is error
    assert (await provider.describe(key)).current_version == before


async def test_an_unclear_rotation_is_decided_by_looking(key: str, faults: Faults, provider: Pkcs11KMSProvider) -> None:
    def made_and_lost(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        method(*args, **kwargs)
        raise faults.p11.exceptions.DeviceError

    faults.changes["generate_key"] = made_and_lost
    rotated = await cast(RotatesKeys, GuardedProvider(provider, "hsm")).rotate_key(key)
    assert faults.calls["generate_key"] == 1
    assert rotated.key_version == (await provider.describe(key)).current_version != "01"


async def test_a_login_that_ended_unseen_is_renewed_before_a_key_is_called_absent(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softhsm.module, "_rechecked_at", float("-inf"))
    sealed = await provider.encrypt(b"value", key)

    def log_out() -> None:
        token = softhsm.module._tokens[0]
        stranger = token.token.open()
        token.session.close()
        token.session = stranger  # a session that is open and not logged in: private keys are not to be seen
        token.listings.clear()

    softhsm.in_turn(log_out)
    assert await provider.decrypt(sealed) == b"value"


async def test_absent_keys_do_not_make_a_login_each(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    await provider.encrypt(b"value", key)
    before = faults.calls["open"]
    for _ in range(5):
        with pytest.raises(KeyNotFoundError):
            await provider.describe("absent")
    assert faults.calls["open"] <= before + 1
