"""``VaultProvider`` on a real OpenBao server."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    HardcodedCredentialWarning,
    InvalidInputError,
    KeyNotExportableError,
    KeyNotFoundError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.integrations.tamper import VaultProvider
from keystead.integrations.tamper_faces import KeyFace
from keystead.model import SignatureAlgorithm
from tests.integrations.tamper.places import Place, vault_place
from tests.services.kubernetes import ACCOUNT, NAMESPACE, Issuer, TokenReviews
from tests.services.openbao import OpenBao

MESSAGE = b"what happened"
Make = Callable[..., KeyFace]


@pytest.fixture
def bao(own_openbao: OpenBao) -> Iterator[OpenBao]:
    """The server, its proxy healed in the end."""
    yield own_openbao
    own_openbao.proxy.heal()


@pytest.fixture
def here(bao: OpenBao) -> Callable[[str], Place]:
    """Make places on the server."""
    return lambda way: vault_place(bao, way)


@pytest.fixture(scope="module")
def kubernetes(own_openbao: OpenBao, token_reviews: TokenReviews) -> str:
    """The mount of a Kubernetes auth method with the role ``web``."""
    mount = own_openbao.enable("kubernetes")
    api = {"kubernetes_host": token_reviews.url, "kubernetes_ca_cert": token_reviews.ca, "disable_local_ca_jwt": True}
    own_openbao.do("POST", f"auth/{mount}/config", api)
    bound = {"bound_service_account_names": [ACCOUNT], "bound_service_account_namespaces": [NAMESPACE]}
    role = {**bound, "audience": "keystead", "token_policies": own_openbao.user_policy, "token_ttl": "1h"}
    own_openbao.do("POST", f"auth/{mount}/role/web", role)
    return mount


async def works(provider: KeyFace) -> bool:
    async with provider:
        return await provider.verify("", MESSAGE, await provider.sign("", MESSAGE))


async def test_vault_provider_token_auth(bao: OpenBao, tmp_path: Path) -> None:
    name = bao.new_key(type="ed25519")
    token = bao.new_token(bao.user_policy)
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    for environ in ({"VAULT_TOKEN": token}, {"VAULT_TOKEN_FILE": str(path)}):
        assert await works(VaultProvider(bao.url, f"{bao.mount}/keys/{name}", environ=environ))
    with pytest.warns(HardcodedCredentialWarning, match="token"):
        provider = VaultProvider(bao.url, f"{bao.mount}/keys/{name}", token=token, environ={})
    assert await works(provider)


async def test_vault_provider_approle(bao: OpenBao) -> None:
    name = bao.new_key(type="ed25519")
    role = bao.app_role(token_ttl="1h")
    options = {"auth_mount": role.mount}
    environ = {"VAULT_SECRET_ID": role.secret_id()}
    provider = VaultProvider(
        bao.url, f"{bao.mount}/{name}", "approle", role_id=role.role_id, vault=options, environ=environ
    )
    assert await works(provider)
    with pytest.warns(HardcodedCredentialWarning, match="secret_id"):
        provider = VaultProvider(
            bao.url, f"{bao.mount}/{name}", "approle", None, role.role_id, role.secret_id(), vault=options, environ={}
        )
    assert await works(provider)


async def test_f16_a_wrapped_secret_id_in_a_file_logs_in(bao: OpenBao, tmp_path: Path) -> None:
    name = bao.new_key(type="ed25519")
    role = bao.app_role(token_ttl="1h")
    (tmp_path / "wrapped").write_text(role.wrapped_secret_id())
    options = {"auth_mount": role.mount, "secret_id_file": tmp_path / "wrapped", "secret_id_is_wrapped": True}
    provider = VaultProvider(bao.url, f"{bao.mount}/{name}", "approle", role_id=role.role_id, vault=options, environ={})
    assert await works(provider)


async def test_vault_provider_kubernetes(bao: OpenBao, kubernetes: str, issuer: Issuer, tmp_path: Path) -> None:
    name = bao.new_key(type="ed25519")
    path = tmp_path / "token"
    path.write_text(issuer.service_account())
    provider = VaultProvider(
        bao.url,
        f"{bao.mount}/{name}",
        "kubernetes",
        role_id="web",
        vault={"auth_mount": kubernetes, "jwt_path": path},
        environ={},
    )
    assert await works(provider)


async def test_f16_a_projected_token_is_read_at_each_login(
    bao: OpenBao, kubernetes: str, issuer: Issuer, token_reviews: TokenReviews, tmp_path: Path
) -> None:
    name = bao.new_key(type="hmac", key_size=32)
    path, first = tmp_path / "token", issuer.service_account()
    path.write_text(first)
    options = {"auth_mount": kubernetes, "jwt_path": path, "role": "web"}
    async with VaultProvider(bao.url, f"{bao.mount}/{name}", "kubernetes", vault=options, environ={}) as provider:
        await provider.sign("", MESSAGE)
        token_reviews.refused.add(first)
        path.write_text(issuer.service_account())
        bao.do("POST", f"sys/leases/revoke-prefix/auth/{kubernetes}/login", {"sync": True})
        assert await provider.verify("", MESSAGE, await provider.sign("", MESSAGE))


async def test_vault_sign_verify(bao: OpenBao, provider_of: Make) -> None:
    for kind in ("ed25519", "ecdsa-p256", "rsa-2048"):
        name = bao.shared_key(type=kind)
        place = vault_place(bao, "sign")
        place.arguments[1] = place.key_id = f"{bao.mount}/keys/{name}"
        provider: Any = provider_of(place)
        signed = await provider.sign_named(place.key_id, MESSAGE)
        assert signed.signature.startswith(b"vault:v1:")
        assert await provider.verify(place.key_id, MESSAGE, signed.signature)
        assert not await provider.verify(place.key_id, b"another", signed.signature)
        key = await provider._signer.public_key()
        raw = base64.b64decode(signed.signature.split(b":")[2])
        verify_signature(key, MESSAGE, raw, algorithm=key.algorithms[0])


async def test_f12_signatures_of_older_versions_verify_after_a_rotation(
    bao: OpenBao, here: Callable[[str], Place], provider_of: Make
) -> None:
    for way in ("sign", "mac"):
        place = here(way)
        provider = provider_of(place)
        old = await provider.sign(place.key_id, MESSAGE)
        place.rotate()
        new = await provider.sign(place.key_id, MESSAGE)
        assert (old[:9], new[:9]) == (b"vault:v1:", b"vault:v2:")
        for signature in (old, new):
            assert await provider.verify(place.key_id, MESSAGE, signature)
        assert not await provider.verify(place.key_id, MESSAGE, old.replace(b"v1", b"v2"))


async def test_f13_rsa_signatures_are_pss_with_a_salt_as_long_as_the_hash(bao: OpenBao, provider_of: Make) -> None:
    place = vault_place(bao, "sign")
    place.arguments[1] = place.key_id = f"{bao.mount}/keys/{bao.shared_key(type='rsa-2048')}"
    provider: Any = provider_of(place)
    signature = await provider.sign(place.key_id, MESSAGE)
    key = await provider._signer.public_key()
    raw = base64.b64decode(signature.split(b":")[2])
    verify_signature(key, MESSAGE, raw, algorithm=SignatureAlgorithm.RSA_PSS_SHA_256)


async def test_f14_an_encryption_key_makes_macs_where_kms_signing_is_asked_for(
    bao: OpenBao, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    provider = provider_of(place, use_kms_signing=True)
    signature = await provider.sign(place.key_id, MESSAGE)
    theirs = bao.do("POST", f"{bao.mount}/hmac/{place.key_id.rpartition('/')[2]}", {"input": _text(MESSAGE)})["hmac"]
    assert signature.decode() == theirs
    with pytest.raises(KeyNotExportableError):
        await provider.get_key(place.key_id)


def _text(message: bytes) -> str:
    return base64.b64encode(message).decode()


@pytest.mark.parametrize("form", ["{name}", "{mount}/{name}", "{mount}/keys/{name}"])
async def test_f15_a_key_is_named_in_every_form_of_its_path(form: str, bao: OpenBao, provider_of: Make) -> None:
    place = vault_place(bao, "sign")
    name = place.key_id.rpartition("/")[2]
    if bao.mount != "transit" and form == "{name}":
        place.options["vault"] = {"mount_path": bao.mount}
    place.arguments[1] = form.format(mount=bao.mount, name=name)
    provider = provider_of(place)
    for asked in (place.arguments[1], name, place.key_id, ""):
        signed = await provider.sign_named(asked, MESSAGE)
        assert await provider.verify(signed.key_id, MESSAGE, signed.signature)


@pytest.mark.parametrize(
    ("key_name", "vault"),
    [("", {}), ("transit/keys/..", {}), ("transit/keys/a b", {}), ("other/audit", {"mount_path": "transit"})],
)
def test_f15_a_name_that_can_be_no_key_is_refused_at_construction(key_name: str, vault: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, InvalidInputError)):
        VaultProvider("https://vault.example.org", key_name, vault=vault)


async def test_f17_without_an_address_nothing_is_sent_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="not empty"):
        VaultProvider("", "audit")
    async with VaultProvider(None, "audit", environ={"VAULT_ADDR": "", "VAULT_TOKEN": "t"}) as provider:
        with pytest.raises(ConfigurationError, match="VAULT_ADDR"):
            await provider.sign("", MESSAGE)


def test_f17_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        VaultProvider("http://vault.example.org:8200", "audit")


async def test_f16_no_credential_at_all_is_an_error_that_says_so(bao: OpenBao) -> None:
    environ = {"HOME": "/nonexistent"}
    async with VaultProvider(bao.url, f"{bao.mount}/audit", environ=environ) as provider:
        with pytest.raises(ProviderAuthError):
            await provider.sign("", MESSAGE)


def test_f16_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="auth_method"):
        VaultProvider("https://vault.example.org", "audit", "github")


@pytest.mark.parametrize("vault", [{"colour": "red"}, {"token": "x"}])
def test_settings_that_are_unknown_or_given_twice_are_refused(vault: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="vault="):
        VaultProvider("https://vault.example.org", "audit", token="y", vault=vault)


async def test_f20_a_batch_is_one_request_and_each_signature_the_servers_own(
    bao: OpenBao, here: Callable[[str], Place], provider_of: Make
) -> None:
    for way in ("sign", "mac"):
        place = here(way)
        provider = provider_of(place)
        await provider.sign(place.key_id, MESSAGE)
        before = len(bao.proxy.requests)
        items = [str(number).encode() for number in range(100)]
        signatures = await provider.sign_batch(place.key_id, items)
        assert len(bao.proxy.requests) == before + 1
        assert all(signature.startswith(b"vault:v1:") for signature in signatures)
        assert await provider.verify(place.key_id, items[7], signatures[7])
        assert not await provider.verify(place.key_id, items[8], signatures[7])


async def test_f21_a_sealed_or_busy_server_is_no_invalid_signature(
    bao: OpenBao, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("mac")
    provider = provider_of(place)
    signature = await provider.sign(place.key_id, MESSAGE)
    for status in (429, 503):
        bao.proxy.fail_every(1, status=status, body=b'{"errors":["Vault is sealed"]}')
        with pytest.raises(ProviderConnectionError):
            await provider.verify(place.key_id, MESSAGE, signature)
    bao.proxy.heal()
    assert await provider.verify(place.key_id, MESSAGE, signature)


async def test_f21_a_version_that_is_forbidden_could_not_be_checked(
    bao: OpenBao, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    old = await provider_of(place).sign(place.key_id, MESSAGE)
    place.rotate()
    bao.do("POST", f"{place.key_id}/config", {"min_decryption_version": 2})
    with pytest.raises(KeyNotFoundError):
        await provider_of(place).verify(place.key_id, MESSAGE, old)


def test_f22_credentials_of_the_environment_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VaultProvider("https://vault.example.org", "audit", environ={"VAULT_TOKEN": "t"})


def test_f22_a_token_in_the_configuration_is_warned_of_once_and_not_shown() -> None:
    with pytest.warns(HardcodedCredentialWarning) as caught:
        provider = VaultProvider("https://vault.example.org", "audit", token="hvs.canary")
    assert len(caught) == 1
    assert "canary" not in f"{caught[0].message} {provider!r}"
