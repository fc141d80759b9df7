"""Encrypting inside a token: limits, tokens that do it wrongly, and what is left behind."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any, cast

import pytest

from keystead.errors import DecryptionError, EncryptionError, InvalidInputError, KeyNotFoundError, KeyStateError
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import P256, SoftHsm


async def test_no_more_is_encrypted_under_a_version_than_its_nonces_allow(softhsm: SoftHsm, key: str) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(messages_per_key=4))
    another = Pkcs11KMSProvider(softhsm.config(messages_per_key=4))
    sealed = [await provider.encrypt(b"value", key), await another.encrypt(b"value", key)]
    sealed.append(await provider.encrypt(b"value", key))  # the fourth was the token's own test
    with pytest.raises(KeyStateError, match="rotate_key"):
        await another.encrypt(b"value", key)
    assert [await provider.decrypt(each) for each in sealed] == [b"value"] * 3
    await provider.rotate_key(key)
    await provider.encrypt(b"value", key)
    await provider.aclose()
    await another.aclose()


async def test_the_count_of_a_version_outlives_the_session(softhsm: SoftHsm, key: str) -> None:
    for _ in range(2):
        provider = Pkcs11KMSProvider(softhsm.config(messages_per_key=4))
        await provider.encrypt(b"value", key)
        await provider.aclose()
    last = Pkcs11KMSProvider(softhsm.config(messages_per_key=4))
    with pytest.raises(KeyStateError, match="rotate_key"):
        await last.encrypt(b"value", key)
    await last.aclose()


async def test_a_token_that_uses_another_nonce_than_it_is_given_is_found_out(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    def own_nonce(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = kwargs["mechanism_param"]
        return method(*args, **{**kwargs, "mechanism_param": faults.p11.GCMParams(bytes(12), given.aad)})

    await provider.encrypt(b"value", key)
    faults.changes["encrypt"] = own_nonce
    with pytest.raises(EncryptionError, match="nonce"):
        await provider.encrypt(b"value", key)


async def test_a_nonce_that_the_token_writes_over_the_given_one_is_the_one_that_counts(
    softhsm: SoftHsm, key: str, faults: Faults
) -> None:
    given = bytes(range(12))

    def writes_its_own(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonce = kwargs["mechanism_param"].nonce
        ctypes.memmove(id(nonce) + bytes.__basicsize__ - 1, b"the token's!", 12)  # into the memory pIv points at
        return method(*args, **kwargs)

    faults.changes["encrypt"] = writes_its_own
    provider = Pkcs11KMSProvider(softhsm.config(), random=lambda size: given[:size])
    sealed = await provider.encrypt(b"value", key)
    faults.changes.clear()
    assert await provider.decrypt(sealed) == b"value"
    assert sealed.ciphertext[5:17] == b"the token's!"
    assert given == bytes(range(12))
    await provider.aclose()


async def test_a_token_that_does_not_authenticate_the_context_is_not_used(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    def without_aad(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = kwargs["mechanism_param"]
        return method(*args, **{**kwargs, "mechanism_param": faults.p11.GCMParams(given.nonce, b"")})

    faults.changes.update(encrypt=without_aad, decrypt=without_aad)
    for failures in (0, 1):  # a fault that passes is no refusal
        faults.fail("decrypt", "GeneralError", failures)
        with pytest.raises(EncryptionError, match="authenticate"):
            await provider.encrypt(b"value", key, context={"a": "b"})


async def test_a_session_that_ends_during_the_first_test_of_a_token_is_renewed(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    faults.fail("decrypt", "SessionHandleInvalid")
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


async def test_without_aes_gcm_a_key_that_may_do_both_wraps(
    softhsm: SoftHsm, labels: list[str], faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_aes(uses="ENCRYPT DECRYPT WRAP UNWRAP"))
    faults.missing_mechanisms = {faults.p11.Mechanism.AES_GCM}
    sealed = await provider.encrypt(b"value", labels[0], context={"a": "b"})
    assert sealed.algorithm == "CKM_AES_KEY_WRAP"
    assert await provider.decrypt(sealed) == b"value"


async def test_a_token_without_a_mechanism_for_the_key_says_which_it_lacks(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    faults.missing_mechanisms = {faults.p11.Mechanism.AES_GCM}
    with pytest.raises(InvalidInputError, match="CKM_AES_GCM"):
        await provider.encrypt(b"value", key)


async def test_a_wrapping_key_leaves_nothing_behind_in_the_token(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_aes(uses="WRAP UNWRAP"))

    def session_objects() -> int:
        token = softhsm.module._tokens[0]
        return len(list(token.session.get_objects({token.p11.Attribute.TOKEN: False})))

    sealed = await provider.encrypt(b"value", labels[0])
    await provider.decrypt(sealed)
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, ciphertext=sealed.ciphertext[:-8]))
    assert softhsm.in_turn(session_objects) == 0


async def test_bytes_like_plaintexts_are_taken(key: str, provider: Pkcs11KMSProvider) -> None:
    for plaintext in (bytearray(b"value"), memoryview(b"value")):
        assert await provider.decrypt(await provider.encrypt(cast(bytes, plaintext), key)) == b"value"


async def test_too_much_is_refused_with_the_way_out(key: str, provider: Pkcs11KMSProvider) -> None:
    with pytest.raises(InvalidInputError, match="local_encrypt"):
        await provider.encrypt(bytes(64 * 1024 + 1), key)


async def test_a_key_can_leave_the_token_while_one_of_its_versions_can(
    softhsm: SoftHsm, key: str, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels += [softhsm.make_aes(EXTRACTABLE=True), softhsm.make_aes(SENSITIVE=False), softhsm.make_pair("EC", P256)]
    assert [await provider.is_extractable(each) for each in (key, *labels)] == [False, True, True, False]
    await provider.rotate_key(labels[0])
    assert await provider.is_extractable(labels[0])
    with pytest.raises(KeyNotFoundError):
        await provider.is_extractable("no such key")


async def test_permissions_are_what_the_attributes_say(
    softhsm: SoftHsm, key: str, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels += [softhsm.make_secret(uses="VERIFY"), softhsm.make_pair("EC", P256), softhsm.make_aes(EXTRACTABLE=True)]
    encrypts = {"encrypt": True, "generate_data_key": True, "decrypt": True, "rotate_key": True}
    assert await provider.check_permissions(key) == encrypts
    softhsm.set_attributes(key, ENCRYPT=False)
    assert await provider.check_permissions(key) == {**encrypts, "encrypt": False, "generate_data_key": False}
    assert await provider.check_permissions(labels[0]) == {"mac": False, "verify_mac": True, "rotate_key": True}
    assert await provider.check_permissions(labels[1]) == {"sign": True, "rotate_key": True}
    assert not (await provider.check_permissions(labels[2]))["encrypt"]


async def test_a_batch_longer_than_a_turn_keeps_its_order(key: str, provider: Pkcs11KMSProvider) -> None:
    values = [str(number).encode() for number in range(300)]
    sealed = await provider.encrypt_batch(values, key)
    assert [await provider.decrypt(each) for each in sealed] == values
    assert await provider.encrypt_batch([], key) == []
