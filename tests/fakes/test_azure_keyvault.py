"""The fake Azure through the vendor's own SDK, and its results against cryptography's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure, FakeVault, clear_challenges

MESSAGE = b"what is signed"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Sdk:
    """The blocking clients of the SDK on a fake."""

    def __init__(self, azure: FakeAzure, closing: ExitStack) -> None:
        self._closing = closing
        self._options: dict[str, Any] = {
            "verify_challenge_resource": False,
            "connection_verify": str(azure.ca_file),
            "retry_total": 0,
        }
        self.credential = closing.enter_context(
            ClientSecretCredential(
                TENANT,
                CLIENT,
                SECRET,
                authority=azure.authority,
                disable_instance_discovery=True,
                connection_verify=str(azure.ca_file),
            )
        )

    def keys(self, vault: FakeVault) -> KeyClient:
        return self._closing.enter_context(KeyClient(vault.url, self.credential, **self._options))

    def crypto(self, key: KeyVaultKey | str) -> CryptographyClient:
        return self._closing.enter_context(CryptographyClient(key, self.credential, **self._options))


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    clear_challenges()
    with FakeAzure(tmp_path_factory.mktemp("azure")) as fake:
        yield fake
    clear_challenges()


@pytest.fixture
def sdk(azure: FakeAzure) -> Iterator[Sdk]:
    azure.heal()
    with ExitStack() as closing:
        yield Sdk(azure, closing)


def public_key(key: KeyVaultKey) -> rsa.RSAPublicKey:
    jwk: Any = key.key
    return rsa.RSAPublicNumbers(int.from_bytes(jwk.e, "big"), int.from_bytes(jwk.n, "big")).public_key()


def inner_code(error: HttpResponseError) -> object:
    assert error.error is not None
    return error.error.innererror.get("code") if error.error.innererror else None


def test_what_is_encrypted_with_the_public_half_is_unwrapped(sdk: Sdk, azure: FakeAzure) -> None:
    key = sdk.keys(azure.vault).create_rsa_key("kek-wrap", size=2048)
    wrapped = public_key(key).encrypt(b"a key", OAEP)
    assert sdk.crypto(key).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped).key == b"a key"


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
        ("RS256", padding.PKCS1v15()),
    ],
)
def test_rsa_signatures_are_the_standards(
    sdk: Sdk, azure: FakeAzure, name: str, scheme: padding.AsymmetricPadding
) -> None:
    key = sdk.keys(azure.vault).create_rsa_key(f"signer-{name}", size=2048)
    digest = hashlib.sha256(MESSAGE).digest()
    signature = sdk.crypto(key).sign(SignatureAlgorithm(name), digest).signature
    public_key(key).verify(signature, MESSAGE, scheme, hashes.SHA256())


@dataclass(frozen=True)
class OnCurve:
    """An ECDSA algorithm by the service's name, and as cryptography has it."""

    name: str
    crv: str
    curve: ec.EllipticCurve
    digest: hashes.HashAlgorithm
    size: int


@pytest.mark.parametrize(
    "case",
    [
        OnCurve("ES256", "P-256", ec.SECP256R1(), hashes.SHA256(), 32),
        OnCurve("ES384", "P-384", ec.SECP384R1(), hashes.SHA384(), 48),
        OnCurve("ES512", "P-521", ec.SECP521R1(), hashes.SHA512(), 66),
    ],
    ids=lambda case: case.name,
)
def test_ecdsa_signatures_are_r_and_s_one_after_the_other(sdk: Sdk, azure: FakeAzure, case: OnCurve) -> None:
    key = sdk.keys(azure.vault).create_ec_key(f"signer-{case.name}", curve=case.crv)
    hashed = hashlib.new(case.digest.name, MESSAGE).digest()
    raw = sdk.crypto(key).sign(SignatureAlgorithm(case.name), hashed).signature
    assert len(raw) == 2 * case.size
    jwk: Any = key.key
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(jwk.x, "big"), int.from_bytes(jwk.y, "big"), case.curve)
    r, s = int.from_bytes(raw[: case.size], "big"), int.from_bytes(raw[case.size :], "big")
    numbers.public_key().verify(utils.encode_dss_signature(r, s), MESSAGE, ec.ECDSA(case.digest))


def test_aes_keys_of_a_managed_hsm_encrypt_with_their_context(sdk: Sdk, azure: FakeAzure) -> None:
    key = sdk.keys(azure.hsm).create_oct_key("aes", size=256, hardware_protected=True)
    assert getattr(key.key, "k", None) is None
    client, algorithm = sdk.crypto(key), EncryptionAlgorithm.a256_gcm
    sealed = client.encrypt(algorithm, b"value", additional_authenticated_data=b"context")
    given: dict[str, Any] = {"iv": sealed.iv, "authentication_tag": sealed.tag}
    opened = client.decrypt(algorithm, sealed.ciphertext, additional_authenticated_data=b"context", **given)
    assert opened.plaintext == b"value"
    with pytest.raises(HttpResponseError) as caught:
        client.decrypt(algorithm, sealed.ciphertext, additional_authenticated_data=b"another", **given)
    assert caught.value.status_code == 400


def test_hmac_keys_of_a_managed_hsm_sign_and_verify_digests(sdk: Sdk, azure: FakeAzure) -> None:
    keys = sdk.keys(azure.hsm)
    client = sdk.crypto(
        keys.create_oct_key("mac", size=256, hardware_protected=True, key_operations=["sign", "verify"])
    )
    digest = hashlib.sha256(MESSAGE).digest()
    made = client.sign(SignatureAlgorithm.hs256, digest).signature
    assert client.verify(SignatureAlgorithm.hs256, digest, made).is_valid
    assert not client.verify(SignatureAlgorithm.hs256, bytes(32), made).is_valid


def test_the_sdk_wraps_under_a_random_key_where_it_lacks_a_symmetric_keys_bytes(sdk: Sdk, azure: FakeAzure) -> None:
    """A fault of the SDK, and why A256KW is not used: two clients of one key cannot read each other's wraps."""
    key = sdk.keys(azure.hsm).create_oct_key("wrapper", size=256, hardware_protected=True)
    before = azure.hsm.calls()
    wrapped = sdk.crypto(key).wrap_key(KeyWrapAlgorithm.aes_256, bytes(32)).encrypted_key
    assert azure.hsm.calls() == before
    assert sdk.crypto(key).wrap_key(KeyWrapAlgorithm.aes_256, bytes(32)).encrypted_key != wrapped


def test_a_vault_has_no_symmetric_keys_and_a_managed_hsm_only_its_own(sdk: Sdk, azure: FakeAzure) -> None:
    with pytest.raises(HttpResponseError):
        sdk.keys(azure.vault).create_oct_key("aes", hardware_protected=True)
    with pytest.raises(HttpResponseError):
        sdk.keys(azure.hsm).create_rsa_key("soft")


def test_a_disabled_key_does_what_a_public_half_does_and_nothing_else(sdk: Sdk, azure: FakeAzure) -> None:
    keys = sdk.keys(azure.vault)
    key = keys.create_rsa_key("disabled", size=2048)
    jwk: Any = key.key
    # Without key_ops the SDK computes nothing itself.
    remote = sdk.crypto(KeyVaultKey(key.id, kty="RSA", n=jwk.n, e=jwk.e, key_ops=[]))
    wrapped = remote.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, b"a key").encrypted_key
    keys.update_key_properties("disabled", enabled=False)
    remote.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, b"a key")
    for call in (
        lambda: remote.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped),
        lambda: remote.decrypt(EncryptionAlgorithm.rsa_oaep_256, wrapped),
        lambda: remote.sign(SignatureAlgorithm.rs256, bytes(32)),
    ):
        with pytest.raises(HttpResponseError) as caught:
            call()
        assert (caught.value.status_code, inner_code(caught.value)) == (403, "KeyDisabled")
    assert keys.get_key("disabled").properties.enabled is False


@pytest.mark.parametrize(
    ("ahead", "code"), [(timedelta(hours=1), "KeyNotYetValid"), (timedelta(hours=-1), "KeyExpired")]
)
def test_outside_its_time_a_key_only_undoes_what_it_did(
    sdk: Sdk, azure: FakeAzure, ahead: timedelta, code: str
) -> None:
    keys, moment = sdk.keys(azure.hsm), datetime.now(UTC) + ahead
    name = f"timed-{code}"
    key = keys.create_oct_key(name, size=256, hardware_protected=True)
    client = sdk.crypto(key)
    sealed = client.encrypt(EncryptionAlgorithm.a256_gcm, b"value")
    if code == "KeyNotYetValid":
        keys.update_key_properties(name, not_before=moment)
    else:
        keys.update_key_properties(name, expires_on=moment)
    with pytest.raises(HttpResponseError) as caught:
        client.encrypt(EncryptionAlgorithm.a256_gcm, b"value")
    assert (caught.value.status_code, inner_code(caught.value)) == (403, code)
    given: dict[str, Any] = {"iv": sealed.iv, "authentication_tag": sealed.tag}
    assert client.decrypt(EncryptionAlgorithm.a256_gcm, sealed.ciphertext, **given).plaintext == b"value"


def test_versions_rotate_and_old_ones_go_on(sdk: Sdk, azure: FakeAzure) -> None:
    keys = sdk.keys(azure.vault)
    old = keys.create_rsa_key("rotated", size=2048)
    new = keys.rotate_key("rotated")
    assert keys.get_key("rotated").id == new.id != old.id
    wrapped = public_key(old).encrypt(b"a key", OAEP)
    assert sdk.crypto(old).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped).key == b"a key"
    with pytest.raises(HttpResponseError) as caught:
        sdk.crypto(new).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped)
    assert caught.value.status_code == 400
    listed = {each.version for each in keys.list_properties_of_key_versions("rotated")}
    assert listed == {old.properties.version, new.properties.version}


def test_a_deleted_key_is_recoverable_until_it_is_purged(sdk: Sdk, azure: FakeAzure) -> None:
    keys = sdk.keys(azure.vault)
    keys.create_ec_key("deleted")
    azure.vault.state.delete("deleted")
    with pytest.raises(ResourceNotFoundError):
        keys.get_key("deleted")
    assert keys.get_deleted_key("deleted").name == "deleted"
    with pytest.raises(HttpResponseError) as caught:
        keys.create_ec_key("deleted")
    assert (caught.value.status_code, inner_code(caught.value)) == (409, "ObjectIsDeletedButRecoverable")
    keys.purge_deleted_key("deleted")
    with pytest.raises(ResourceNotFoundError):
        keys.get_deleted_key("deleted")


def test_a_version_that_is_not_there_is_told_from_one_that_cannot_be(sdk: Sdk, azure: FakeAzure) -> None:
    keys = sdk.keys(azure.vault)
    keys.create_ec_key("versions")
    with pytest.raises(ResourceNotFoundError):
        keys.get_key("versions", "0" * 32)
    with pytest.raises(HttpResponseError) as caught:
        keys.get_key("versions", "1")
    assert caught.value.status_code == 400


def test_a_key_does_only_what_its_operations_say(sdk: Sdk, azure: FakeAzure) -> None:
    key = sdk.keys(azure.vault).create_rsa_key("signs-only", size=2048, key_operations=["sign"])
    with pytest.raises(HttpResponseError) as caught:
        sdk.crypto(key).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, bytes(256))
    assert (caught.value.status_code, inner_code(caught.value)) == (403, "KeyOperationForbidden")


def test_a_token_for_a_vault_is_none_for_a_managed_hsm(sdk: Sdk, azure: FakeAzure) -> None:
    class ForVaults:
        def get_token(self, *scopes: str, **given: Any) -> Any:
            return sdk.credential.get_token("https://vault.azure.net/.default")

    options: dict[str, Any] = {"verify_challenge_resource": False, "connection_verify": str(azure.ca_file)}
    with (
        KeyClient(azure.hsm.url, ForVaults(), retry_total=0, **options) as client,
        pytest.raises(ClientAuthenticationError),
    ):
        client.get_key("any")


def test_a_wrong_secret_gets_no_token(azure: FakeAzure) -> None:
    with (
        ClientSecretCredential(
            TENANT,
            CLIENT,
            "wrong",
            authority=azure.authority,
            disable_instance_discovery=True,
            connection_verify=str(azure.ca_file),
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        credential.get_token("https://vault.azure.net/.default")


def test_it_starts_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fakes.azure_keyvault", "--folder", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(4)]
        finally:
            process.terminate()
            process.wait(10)
    assert "azurekms://127.0.0.1:" in told[2]
    assert (tmp_path / "azure-ca.pem").exists()
