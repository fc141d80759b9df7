"""Every refusal of the server becomes an error of ours, with its cure and without its text."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
    SigningError,
)
from keystead.providers.guard import GuardedProvider
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.providers.vault.making import Making
from tests.services.openbao import SealableBao

JSON = {"Content-Type": "application/json"}
ENCRYPT, DECRYPT, ROTATE, HMAC, VERIFY, SIGN = "encrypt", "decrypt", "rotate", "hmac", "verify", "sign"


def plain(text: str) -> list[str]:
    return [text]


def wrapped(text: str) -> list[str]:
    return [f"1 error occurred:\n\t* {text}\n\n"]


CASES: list[tuple[str, int, list[str], type[KMSError], bool]] = [
    # What a passing failure says.
    (DECRYPT, 500, wrapped("transaction commit failed"), ProviderConnectionError, True),
    (DECRYPT, 500, wrapped("leadership lost while committing log"), ProviderConnectionError, True),
    (ENCRYPT, 500, wrapped("local node not active but active cluster node not found"), ProviderConnectionError, True),
    (ENCRYPT, 500, wrapped("dial tcp 10.0.0.1:5432: connect: connection refused"), ProviderConnectionError, True),
    (DECRYPT, 500, [], ProviderConnectionError, True),
    (DECRYPT, 502, [], ProviderConnectionError, True),
    (DECRYPT, 503, plain("Vault is sealed"), ProviderConnectionError, True),
    (DECRYPT, 504, [], ProviderConnectionError, True),
    (DECRYPT, 412, plain("required index state not present"), ProviderConnectionError, True),
    (DECRYPT, 429, plain("rate limit quota exceeded"), ProviderConnectionError, True),
    (DECRYPT, 472, [], ProviderConnectionError, True),
    (DECRYPT, 473, [], ProviderConnectionError, True),
    (DECRYPT, 307, [], ProviderConnectionError, True),
    (
        ENCRYPT,
        400,
        plain("requested version for encryption is higher than the latest key version"),
        ProviderConnectionError,
        True,
    ),
    # What altered bytes, another key or another context say: with 500 too, on older servers.
    (DECRYPT, 400, plain("cipher: message authentication failed"), DecryptionError, False),
    (DECRYPT, 500, wrapped("cipher: message authentication failed"), DecryptionError, False),
    (DECRYPT, 400, plain("chacha20poly1305: message authentication failed"), DecryptionError, False),
    (DECRYPT, 400, plain("invalid ciphertext: could not decode base64"), DecryptionError, False),
    # What a key's absence or state says.
    (DECRYPT, 400, plain("encryption key not found"), KeyNotFoundError, False),
    (SIGN, 400, plain("signing key not found"), KeyNotFoundError, False),
    (VERIFY, 400, plain("signature verification key not found"), KeyNotFoundError, False),
    (HMAC, 400, plain("no such key version"), KeyNotFoundError, False),
    (DECRYPT, 404, [], KeyNotFoundError, False),
    (DECRYPT, 400, plain("refusing to use soft-deleted key"), KeyStateError, False),
    (SIGN, 500, wrapped("refusing to use soft-deleted key"), KeyStateError, False),
    (DECRYPT, 400, plain("ciphertext or signature version is disallowed by policy (too old)"), KeyStateError, False),
    (VERIFY, 400, plain("cannot verify HMAC: version is too old (disallowed by policy)"), KeyStateError, False),
    (SIGN, 500, wrapped("requested version for signing does not contain a private part"), KeyStateError, False),
    (
        DECRYPT,
        500,
        wrapped("cannot decrypt ciphertext, key version does not have a private counterpart"),
        KeyStateError,
        False,
    ),
    (SIGN, 400, plain("key type aes256-gcm96 does not support signing"), InvalidInputError, False),
    # What the set-up says.
    (
        DECRYPT,
        404,
        plain('no handler for route "transit/decrypt/k". route entry not found.'),
        ConfigurationError,
        False,
    ),
    (DECRYPT, 404, plain("namespace not found"), ConfigurationError, False),
    (DECRYPT, 404, wrapped("unsupported path"), ConfigurationError, False),
    (DECRYPT, 405, wrapped("unsupported operation"), ConfigurationError, False),
    (DECRYPT, 403, wrapped("permission denied"), ProviderAuthError, False),
    (DECRYPT, 403, plain("permission denied"), ProviderAuthError, False),
    (DECRYPT, 403, ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"], ProviderAuthError, False),
    (DECRYPT, 413, plain("http: request body too large"), InvalidInputError, False),
    (
        ENCRYPT,
        400,
        plain("refused JSON input due to high complexity: exceeded maximum number of strings"),
        InvalidInputError,
        False,
    ),
    # What nobody knows yet.
    (ENCRYPT, 400, plain("something new"), EncryptionError, False),
    (DECRYPT, 400, plain("something new"), DecryptionError, False),
    (SIGN, 400, plain("something new"), SigningError, False),
    (ROTATE, 400, plain("something new"), KeyRotationError, True),
    (ROTATE, 500, wrapped("imported key k does not allow rotation within Vault"), RotationNotSupportedError, False),
]


async def calls(making: Making) -> Mapping[str, Callable[[], Coroutine[Any, Any, object]]]:
    """Return for each verb a call of it, everything before it done."""
    bao, provider = making.bao, making.provider()
    key, signer = bao.new_key(), bao.shared_key(type="ed25519")
    sealed = await provider.encrypt(b"value", key)
    mac = await provider.mac(b"value", key)
    await provider.sign(b"value", signer)
    return {
        ENCRYPT: lambda: provider.encrypt(b"value", key),
        DECRYPT: lambda: provider.decrypt(sealed),
        ROTATE: lambda: provider.rotate_key(key),
        HMAC: lambda: provider.mac(b"value", key),
        VERIFY: lambda: provider.verify_mac(b"value", mac),
        SIGN: lambda: provider.sign(b"value", signer),
    }


@pytest.mark.parametrize(("verb", "status", "errors", "kind", "retryable"), CASES)
async def test_a_refusal_becomes_an_error_in_words_of_our_own(
    making: Making, verb: str, status: int, errors: list[str], kind: type[KMSError], *, retryable: bool
) -> None:
    call = (await calls(making))[verb]
    body = json.dumps({"errors": errors}).encode()
    making.proxy.fail_next(5, status=status, body=body, path=f"/{verb}", headers=JSON)
    with pytest.raises(KMSError) as caught:
        await call()
    assert type(caught.value) is kind or (kind is InvalidInputError and isinstance(caught.value, kind))
    assert caught.value.retryable is retryable
    assert not any(error.strip() in str(caught.value) for error in errors)
    assert caught.value.__cause__ is None


async def test_a_throttled_call_says_how_long_to_wait(making: Making) -> None:
    call = (await calls(making))[DECRYPT]
    for value, seconds in (("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("-1", None)):
        making.proxy.fail_next(1, status=429, path="decrypt", headers={"Retry-After": value})
        with pytest.raises(ProviderConnectionError) as caught:
            await call()
        assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("status", [429, 503])
async def test_an_outage_does_not_have_the_key_read_again(making: Making, status: int) -> None:
    provider, key = making.provider(), making.bao.new_key()
    sealed = await provider.encrypt(b"value", key)
    before = len(making.paths("/keys/"))
    for verb, call in (
        ("encrypt", lambda: provider.encrypt(b"value", key)),
        ("decrypt", lambda: provider.decrypt(sealed)),
    ):
        making.proxy.fail_next(1, status=status, path=f"/{verb}/")
        with pytest.raises(ProviderConnectionError):
            await call()
        await call()
    assert len(making.paths("/keys/")) == before


async def test_a_real_quota_throttles_with_the_time_to_wait(making: Making) -> None:
    bao = making.bao
    mount = bao.mount_transit()
    key = bao.new_key(mount=mount)
    provider = making.provider(mount_path=mount, token=bao.new_token())
    await provider.encrypt(b"value", key)
    # Off by default: without it nobody is told how long to wait.
    bao.do("POST", "sys/quotas/config", {"enable_rate_limit_response_headers": True})
    bao.do("POST", f"sys/quotas/rate-limit/{mount}", {"path": f"{mount}/", "rate": 1, "interval": "1h"})
    try:
        with pytest.raises(ProviderConnectionError, match="429") as caught:
            for _ in range(3):
                await provider.encrypt(b"value", key)
        assert caught.value.retry_after_s is not None
        assert 3000 < caught.value.retry_after_s <= 3600
    finally:
        bao.do("DELETE", f"sys/quotas/rate-limit/{mount}")


async def test_nothing_mounted_and_no_such_namespace_are_told_apart_from_a_missing_key(making: Making) -> None:
    token = making.bao.new_token()
    with pytest.raises(ConfigurationError, match="nothing is mounted"):
        await making.provider(token=token, mount_path="nowhere").encrypt(b"value", "orders")
    with pytest.raises(ConfigurationError, match="no such namespace"):
        await making.provider(token=token, namespace="nowhere").encrypt(b"value", "orders")
    with pytest.raises(KeyNotFoundError, match="no key of that name"):
        await making.provider(token=token).encrypt(b"value", "orders")


async def test_a_soft_deleted_key_is_disabled_and_works_again_when_it_is_restored(
    making: Making, provider: VaultKMSProvider
) -> None:
    key, signer = making.bao.new_key(), making.bao.new_key(type="ed25519")
    sealed, mac = await provider.encrypt(b"value", key), await provider.mac(b"value", key)
    for name in (key, signer):
        making.bao.soft_delete_key(name)
    for call in (
        provider.encrypt(b"value", key),
        provider.decrypt(sealed),
        provider.rewrap(sealed),
        provider.generate_data_key(key),
        provider.rotate_key(key),
        provider.mac(b"value", key),
        provider.verify_mac(b"value", mac),
        provider.sign(b"value", signer),
    ):
        with pytest.raises(KeyStateError, match="soft-delete-restore"):
            await call
    making.bao.restore_key(key)
    assert await provider.decrypt(sealed) == b"value"


async def test_answers_that_are_not_vaults_are_an_outage(making: Making) -> None:
    decrypt = (await calls(making))[DECRYPT]
    for status, body in (
        (200, b"<html>a login page</html>"),
        (200, b'{"data": {"plaintext": 5}}'),
        (200, b'{"data": {"plaintext": "!"}}'),
        (200, b"{}"),
        (200, b"[]"),
        (200, b""),
        (502, b"<html>bad gateway</html>"),
    ):
        making.proxy.fail_next(1, status=status, body=body, path="decrypt")
        with pytest.raises(ProviderConnectionError):
            await decrypt()


async def test_answers_that_are_cut_or_never_come_are_an_outage_that_is_tried_again(making: Making) -> None:
    key = making.bao.new_key()
    provider = making.provider(timeout=1.0)
    sealed = await provider.encrypt(b"value", key)
    making.proxy.truncate_next(path="decrypt")
    with pytest.raises(ProviderConnectionError):
        await provider.decrypt(sealed)
    making.proxy.drop_next(path="decrypt")
    with pytest.raises(ProviderConnectionError):
        await provider.decrypt(sealed)
    making.proxy.black_hole()
    with pytest.raises(ProviderConnectionError, match=r"within 1\.?0? s"):
        await provider.decrypt(sealed)
    making.proxy.heal()
    making.proxy.drop_next(2, path="decrypt")
    assert await GuardedProvider(provider, "vault").decrypt(sealed) == b"value"


async def test_no_server_at_all_is_an_outage() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    provider = VaultKMSProvider(VaultConfig(address, token="s.x"), environ={})
    with pytest.raises(ProviderConnectionError, match="VAULT_ADDR") as caught:
        await provider.encrypt(b"value", "orders")
    assert caught.value.retryable
    assert caught.value.__context__ is None
    await provider.aclose()


async def test_a_redirect_is_not_followed_with_the_token(making: Making) -> None:
    call = (await calls(making))[DECRYPT]
    with FaultProxy(making.bao.url) as elsewhere:
        making.proxy.fail_next(1, status=307, path="decrypt", headers={"Location": f"{elsewhere.url}/v1/x"})
        with pytest.raises(ProviderConnectionError):
            await call()
        assert elsewhere.requests == []


async def test_a_certificate_of_an_unknown_authority_is_named_as_the_cause(
    sealable_openbao: SealableBao, making: Making
) -> None:
    bao = sealable_openbao
    key = bao.new_key()
    with pytest.raises(ProviderConnectionError, match="tls_ca_cert"):
        await making.provider(vault_addr=bao.url, token=bao.token).encrypt(b"value", key)
    trusting = making.provider(vault_addr=bao.url, token=bao.token, tls_ca_cert=bao.ca)
    assert await trusting.decrypt(await trusting.encrypt(b"value", key)) == b"value"
    named = making.provider(vault_addr=bao.url, token=bao.token, environ={"VAULT_CACERT": str(bao.ca)})
    await named.describe(key)


async def test_a_bundle_of_the_environment_does_not_replace_the_configured_authority(
    sealable_openbao: SealableBao, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    bao = sealable_openbao
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().openssl_cafile)
    trusting = making.provider(vault_addr=bao.url, token=bao.token, tls_ca_cert=bao.ca)
    await trusting.describe(bao.new_key())


@pytest.mark.filterwarnings("ignore:tls_verify=False")
async def test_verification_that_is_off_is_warned_about_by_us_alone(
    sealable_openbao: SealableBao, making: Making
) -> None:
    bao = sealable_openbao
    provider = making.provider(vault_addr=bao.url, token=bao.token, tls_verify=False)
    await provider.describe(bao.new_key())


async def test_a_sealed_server_is_an_outage_that_ends_when_it_is_unsealed(
    sealable_openbao: SealableBao, making: Making
) -> None:
    bao = sealable_openbao
    key = bao.new_key()
    provider = making.provider(vault_addr=bao.url, token=bao.token, tls_ca_cert=bao.ca)
    sealed = await provider.encrypt(b"value", key)
    bao.seal()
    try:
        with pytest.raises(ProviderConnectionError, match="bao operator unseal") as caught:
            await provider.decrypt(sealed)
        assert caught.value.retryable
        assert (await provider.service_time()).tzinfo is not None
    finally:
        bao.unseal()
    assert await provider.decrypt(sealed) == b"value"


async def test_the_servers_time_is_told_without_a_token(making: Making) -> None:
    provider = making.provider(token="s.worthless")
    told = await provider.service_time()
    assert told.utcoffset() is not None
    making.proxy.fail_next(1, status=200, body=b"{}", headers={"Date": "some day"})
    with pytest.raises(ProviderConnectionError, match="no time"):
        await provider.service_time()
