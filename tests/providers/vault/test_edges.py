"""Networks, certificates and answers at the edge of what happens."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.providers.vault.keys import KeyInfo, Keys
from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.fakes.clock import FakeClock
from tests.providers.stubs import until
from tests.providers.vault.making import Making, text

JSON = {"Content-Type": "application/json"}


def data(**fields: object) -> bytes:
    return json.dumps({"data": fields}).encode()


async def test_a_client_certificate_is_shown_to_a_server_that_asks_for_one(making: Making, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ours = authority.issue_cert("the-application")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key", "both")}
    authority.cert_pem.write_to_path(files["ca"])
    ours.cert_chain_pems[0].write_to_path(files["cert"])
    ours.private_key_pem.write_to_path(files["key"])
    ours.private_key_and_cert_chain_pem.write_to_path(files["both"])
    key = making.bao.shared_key()
    with FaultProxy(making.bao.url, tls=context) as server:
        apart: dict[str, Any] = {"tls_client_cert": files["cert"], "tls_client_key": files["key"]}
        for given in (apart, {"tls_client_cert": files["both"]}):
            provider = making.provider(vault_addr=server.url, tls_ca_cert=files["ca"], timeout=5, **given)
            await provider.describe(key)
            await provider.aclose()
        bare = making.provider(vault_addr=server.url, tls_ca_cert=files["ca"])
        with pytest.raises(ProviderConnectionError):
            await bare.describe(key)
        await bare.aclose()


@pytest.mark.parametrize(
    ("in_between", "kind", "told"),
    [
        ("http://127.0.0.1:1", ProviderConnectionError, "the proxy in front"),
        ("http://", ConfigurationError, "no URL of a server"),
    ],
)
async def test_a_proxy_that_fails_is_named(making: Making, in_between: str, kind: type[Exception], told: str) -> None:
    environ = {"VAULT_PROXY_ADDR": in_between, "VAULT_TOKEN": "s.x"}
    provider = making.provider(vault_addr="https://vault.example.org", environ=environ)
    with pytest.raises(kind, match=told):
        await provider.describe("orders")


async def test_a_server_that_takes_no_connection_is_given_up_in_time(making: Making) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        provider = making.provider(vault_addr=f"http://127.0.0.1:{address[1]}", token="s.x", timeout=0.2)
        with pytest.raises(ProviderConnectionError, match=r"within 0\.2 s"):
            await provider.describe("orders")
        for each in waiting:
            each.close()


async def test_a_token_that_no_header_can_hold_is_an_error_that_does_not_show_it(making: Making) -> None:
    provider = making.provider(token="s.first line\nsecond line")
    with pytest.raises(ProviderConnectionError, match="InvalidHeader") as caught:
        await provider.describe("orders")
    assert "second line" not in str(caught.value)


async def test_a_thread_that_begins_after_closing_opens_no_connection(provider: VaultKMSProvider) -> None:
    client = provider._client
    client.close()
    with pytest.raises(SystemShutdownError):
        await asyncio.to_thread(client.send, "get", "sys/seal-status")


def test_a_provider_is_not_copied(provider: VaultKMSProvider) -> None:
    for copying in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            copying(provider)


async def test_an_item_that_a_server_calls_too_large_alone_is_refused(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    body = json.dumps({"errors": ["http: request body too large"]}).encode()
    making.proxy.fail_next(5, status=413, body=body, headers=JSON, path="encrypt")
    with pytest.raises(InvalidInputError, match=r"km\.local_encrypt"):
        await provider.encrypt_batch([b"one", b"two"], key)


async def test_answers_without_what_they_should_hold_are_not_believed(
    making: Making, provider: VaultKMSProvider
) -> None:
    key, signer = making.bao.new_key(), making.bao.shared_key(type="ed25519")
    good, derived = await provider.encrypt(b"value", key), making.bao.new_key(derived=True)
    for verb, body, call in (
        ("encrypt", data(ciphertext="vault:v1:!"), provider.encrypt(b"value", key)),
        ("encrypt", data(ciphertext=5), provider.encrypt(b"value", key)),
        ("rewrap", data(), provider.rewrap(good)),
        (
            "datakey",
            data(plaintext=text(b"short"), ciphertext=good.ciphertext.decode()),
            provider.generate_data_key(derived),
        ),
        ("datakey", data(ciphertext=good.ciphertext.decode()), provider.generate_data_key(derived)),
        ("hmac", data(hmac="vault:v1:"[:-1]), provider.mac(b"value", key)),
        ("sign", data(), provider.sign(b"value", signer)),
        ("keys", data(type="aes256-gcm96"), provider.describe(key)),
        ("keys", data(type=5, latest_version=1), provider.describe(key)),
    ):
        making.proxy.fail_next(1, status=200, body=body, headers=JSON, path=f"/{verb}/")
        with pytest.raises(ProviderConnectionError):
            await call


async def test_a_public_key_that_cannot_be_read_is_not_given_out(making: Making) -> None:
    for public in ("AAAA", "!", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        provider = making.provider()
        info = data(type="ed25519", latest_version=1, keys={"1": {"public_key": public}})
        making.proxy.fail_next(1, status=200, body=info, headers=JSON, path="/keys/")
        with pytest.raises(ProviderConnectionError, match="public key"):
            await provider.public_key("signer")


async def test_an_answer_to_a_login_without_a_token_is_not_a_login(making: Making) -> None:
    for body in (b"{}", b'{"auth": null}', b'{"auth": {"client_token": ""}}', b'{"auth": {"client_token": 5}}'):
        provider = making.by_role(making.bao.app_role())
        making.proxy.fail_next(1, status=200, body=body, headers=JSON, path="login")
        with pytest.raises(ProviderConnectionError, match="no token"):
            await provider.describe("orders")


async def test_a_wrapping_token_without_a_secret_id_in_it_is_refused(making: Making) -> None:
    role = making.bao.app_role()
    provider = making.by_role(role, wrapped_secret_id=role.wrapped_secret_id())
    making.proxy.fail_next(1, status=200, body=data(other="x"), headers=JSON, path="unwrap")
    with pytest.raises(ProviderAuthError, match="no secret id"):
        await provider.describe("orders")


async def test_a_renewal_that_gives_no_time_is_followed_by_a_login(making: Making, clock: FakeClock) -> None:
    key = making.bao.new_key()
    provider = making.by_role(making.bao.app_role(token_ttl="1h"), clock=clock)
    await provider.describe(key)
    token = str.__str__(provider._client.login.token())
    answer = json.dumps({"auth": {"client_token": token, "lease_duration": 0, "renewable": True}}).encode()
    making.proxy.fail_next(1, status=200, body=answer, headers=JSON, path="renew-self")
    clock.advance(2500)
    await provider.describe(key)
    await provider.describe(key)
    # By the second call, or by the provider itself while that one was made.
    await until(lambda: len(making.paths("login")) == 2)
    assert len(making.paths("login")) == 2


async def test_a_given_token_near_its_maximum_is_not_renewed_in_vain_but_another_one_in_its_file_is_taken(
    making: Making, clock: FakeClock, tmp_path: Path
) -> None:
    bao, file = making.bao, tmp_path / "token"
    key, first = bao.new_key(), bao.new_token(bao.user_policy, ttl="1h")
    file.write_text(first)
    provider = making.provider(token_file=file, clock=clock)
    await provider.describe(key)
    less = json.dumps({"auth": {"client_token": first, "lease_duration": 600, "renewable": True}}).encode()
    making.proxy.fail_next(1, status=200, body=less, headers=JSON, path="renew-self")
    clock.advance(2500)
    await provider.describe(key)
    clock.advance(450)
    await provider.describe(key)
    clock.advance(100)
    await provider.describe(key)
    assert len(making.paths("renew-self")) == 1
    # Before its end the file holds another: the one in use is looked at again when it is refused.
    file.write_text(bao.new_token(bao.user_policy, ttl="1h"))
    bao.revoke(first)
    await provider.describe(key)


async def test_the_file_is_looked_at_when_its_token_cannot_be_renewed_any_more(
    making: Making, clock: FakeClock, tmp_path: Path
) -> None:
    bao, file = making.bao, tmp_path / "token"
    key, first = bao.new_key(), bao.new_token(bao.user_policy, ttl="1h")
    file.write_text(first)
    provider = making.provider(token_file=file, clock=clock)
    await provider.describe(key)
    second = bao.new_token(bao.user_policy, ttl="1h")
    file.write_text(second)
    making.proxy.fail_next(
        1, status=400, body=b'{"errors":["lease is not renewable"]}', headers=JSON, path="renew-self"
    )
    clock.advance(2500)
    await provider.describe(key)
    assert str.__str__(provider._client.login.token()) == second


async def test_a_proof_that_could_not_be_made_is_made_by_the_next_call(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    for status, errors in ((503, ["Vault is sealed"]), (400, ["encryption key not found"])):
        making.proxy.fail_next(
            1, status=status, body=json.dumps({"errors": errors}).encode(), headers=JSON, path="decrypt"
        )
        with pytest.raises(Exception, match=r"sealed|no key"):
            await provider.encrypt(b"value", key)
    sealed = await provider.encrypt(b"value", key)
    assert await provider.decrypt(sealed) == b"value"


async def test_who_may_only_encrypt_proves_nothing_while_the_server_fails(making: Making) -> None:
    bao = making.bao
    key = bao.new_key()
    rules = [f'path "transit/encrypt/{key}" {{ capabilities = ["update"] }}']
    rules.append(f'path "transit/keys/{key}" {{ capabilities = ["read"] }}')
    writer = making.provider(token=bao.new_token(bao.policy("\n".join(rules))))
    await making.provider().encrypt(b"value", key)

    class SecondFails(FaultProxy):
        def take_fault(self, path: str) -> object:  # type: ignore[override]  # counts what the test is about
            encrypts = [each for _, each in self.requests if "/encrypt/" in each]
            if "/encrypt/" in path and len(encrypts) == 2:
                self.fail_next(1, status=503, path="/encrypt/")
            return super().take_fault(path)

    with SecondFails(bao.url) as server:
        writer = making.provider(vault_addr=server.url, token=bao.new_token(bao.policy("\n".join(rules))))
        with pytest.raises(ProviderConnectionError):
            await writer.encrypt(b"value", key)
        assert await writer.encrypt(b"value", key)
        await writer.aclose()


def test_more_key_ids_than_anybody_has_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.providers.vault.keys._MOST_KEYS", 10)
    keys = Keys("transit")
    assert keys.get("orders") is keys.get("transit/keys/orders")
    for number in range(100):
        keys.get(f"key{number}")
    assert len(keys._keys) <= 10


def test_a_key_is_read_as_the_server_describes_it() -> None:
    info = KeyInfo.of(
        {
            "type": "ed25519",
            "latest_version": 3,
            "keys": {
                "2": {"creation_time": "2026-11-28T03:40:07.56056779Z", "public_key": "x"},
                "3": {"creation_time": "some day"},
                "x": {},
            },
        }
    )
    assert info.created == {2: datetime(2026, 11, 28, 3, 40, 7, 560567, tzinfo=UTC)}
    assert (info.first_created, info.last_created) == (info.created[2], None)
    assert info.public == {2: "x"}
    assert KeyInfo.of({"type": "hmac", "latest_version": 1, "keys": None}).first_created is None


@pytest.mark.parametrize(
    ("options", "can_leave"),
    [
        ({}, False),
        ({"derived": True}, False),
        ({"exportable": True}, True),
        ({"allow_plaintext_backup": True}, True),
        ({"type": "ed25519", "exportable": True}, True),
    ],
)
async def test_a_key_can_leave_the_server_if_it_was_made_exportable_or_may_be_backed_up_in_clear(
    making: Making, options: dict[str, Any], can_leave: bool
) -> None:
    provider = making.provider()
    key = making.bao.new_key(**options)
    assert await provider.is_extractable(key) is can_leave
    await provider.describe(key)
    making.bao.do("POST", f"{making.bao.mount}/keys/{key}/config", {"exportable": True})
    assert await provider.is_extractable(key)
