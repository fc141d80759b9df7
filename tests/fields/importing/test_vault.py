"""``vault:vN:`` texts that hvac had a server encrypt are read through the provider, many in one request."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import hvac
import pytest

from keystead.errors import (
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyNotFoundError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.fields import importer, reencrypt
from keystead.providers.guard import GuardedProvider
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from tests.fakes.clock import FakeClock
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address
from tests.fields.test_reencrypt import values
from tests.services.openbao import OpenBao

UNTIL = date(2099, 12, 31)


class Old:
    """The application as it was: it calls Transit by hvac."""

    def __init__(self, bao: OpenBao, **key: Any) -> None:
        self.client = hvac.Client(bao.url, bao.token)
        self.key = bao.new_key(**key)
        self.mount = bao.mount

    def encrypt(self, *plaintexts: str, **more: str) -> list[str]:
        """Return the texts of values, encrypted in one call."""
        sent = {name: base64.b64encode(value.encode()).decode() for name, value in more.items()}
        batch = [{"plaintext": base64.b64encode(text.encode()).decode(), **sent} for text in plaintexts]
        found = self.client.secrets.transit.encrypt_data(self.key, "", batch_input=batch, mount_point=self.mount)
        return [one["ciphertext"] for one in found["data"]["batch_results"]]


@pytest.fixture
async def provider(own_openbao: OpenBao) -> AsyncIterator[VaultKMSProvider]:
    bao = own_openbao
    token = bao.new_token(bao.user_policy, no_default_policy=True)
    made = VaultKMSProvider(VaultConfig(vault_addr=bao.proxy.url, mount_path=bao.mount, token=token), environ={})
    yield made
    await made.aclose()


def decrypts(bao: OpenBao) -> int:
    """Return how many requests to decrypt there were."""
    return sum("/decrypt/" in path for _, path in bao.proxy.requests)


async def test_texts_of_every_version_are_read_in_few_requests(
    own_openbao: OpenBao, provider: VaultKMSProvider
) -> None:
    old = Old(own_openbao)
    texts = old.encrypt(*(f"né{n}" for n in range(300))) + old.encrypt(*(f"né{n}" for n in range(300, 600)))
    old.client.secrets.transit.rotate_key(old.key, mount_point=old.mount)
    texts += old.encrypt(*(f"né{n}" for n in range(600, 1000)))
    assert (texts[0][:9], texts[-1][:9]) == ("vault:v1:", "vault:v2:")
    reading = importer("vault", provider=provider, key=old.key, until=UNTIL)
    before = decrypts(own_openbao)
    assert await reading.fetch_many(texts) == [f"né{n}" for n in range(1000)]
    assert decrypts(own_openbao) - before <= 3
    assert reading.count == 1000


async def test_what_was_bound_to_a_context_or_to_associated_data_is_read_with_it(
    own_openbao: OpenBao, provider: VaultKMSProvider
) -> None:
    derived, bound = Old(own_openbao, derived=True), Old(own_openbao)
    with_context = derived.encrypt("a", context="user/7")
    with_data = bound.encrypt("b", associated_data="user/7")
    asked: dict[str, Any] = {"provider": provider, "until": UNTIL}
    assert await importer("vault", key=derived.key, context="user/7", **asked).fetch_many(with_context) == ["a"]
    assert await importer("vault", key=bound.key, associated_data=b"user/7", **asked).fetch_many(with_data) == ["b"]
    cases: list[tuple[str, list[str], dict[str, Any]]] = [
        (derived.key, with_context, {"context": "user/8"}),
        (bound.key, with_data, {"associated_data": "user/8"}),
        (bound.key, with_data, {}),
    ]
    for key, texts, more in cases:
        [found] = await importer("vault", key=key, **asked, **more).fetch_many(texts)
        assert isinstance(found, DecryptionError)


async def test_one_that_does_not_open_does_not_spoil_the_others(
    own_openbao: OpenBao, provider: VaultKMSProvider
) -> None:
    old, other = Old(own_openbao), Old(own_openbao)
    good, strange = old.encrypt("good")[0], other.encrypt("strange")[0]
    altered = good[:-6] + ("AAAA" if good[-6:-2] != "AAAA" else "BBBB") + good[-2:]
    reading = importer("vault", provider=provider, key=old.key, until=UNTIL)
    values = [good, strange, altered, good.replace(":v1:", ":v9:"), "vault:v01:AAAA", "in clear", good]
    found = await reading.fetch_many(values)
    assert (found[0], found[-1]) == ("good", "good")
    assert all(isinstance(one, KMSError) for one in found[1:-1])
    assert [isinstance(one, InvalidCiphertextError) for one in found[4:6]] == [True, True]


async def test_a_key_that_is_not_there_and_a_token_that_may_not_are_told(
    own_openbao: OpenBao, provider: VaultKMSProvider
) -> None:
    old = Old(own_openbao)
    texts = old.encrypt("value")
    with pytest.raises((KeyNotFoundError, InvalidInputError)):
        await importer("vault", provider=provider, key="nothing-here", until=UNTIL).fetch_many(texts)
    token = own_openbao.new_token(own_openbao.policy('path "other/*" { capabilities = ["read"] }'))
    config = VaultConfig(vault_addr=own_openbao.url, mount_path=own_openbao.mount, token=token)
    denied = VaultKMSProvider(config, environ={})
    try:
        with pytest.raises(ProviderAuthError):
            await importer("vault", provider=denied, key=old.key, until=UNTIL).fetch_many(texts)
    finally:
        await denied.aclose()
    nowhere = VaultKMSProvider(VaultConfig(vault_addr="http://127.0.0.1:9", token="t"), environ={})
    try:
        with pytest.raises(ProviderConnectionError):
            await importer("vault", provider=nowhere, key=old.key, until=UNTIL).fetch_many(texts)
    finally:
        await nowhere.aclose()


async def test_a_column_is_converted_with_a_request_for_some_hundred_rows(
    own_openbao: OpenBao, provider: VaultKMSProvider, world: World, app: Application, clock: FakeClock
) -> None:
    old = Old(own_openbao)
    texts = old.encrypt(*(address(n) for n in range(1, 301)))
    app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, old TEXT)")
    app.fill("INSERT INTO people (id, old) VALUES (:a, :b)", enumerate(texts, 1))
    reading = importer("vault", provider=GuardedProvider(provider, "old"), key=old.key, until=UNTIL, clock=clock)
    before = decrypts(own_openbao)
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column="old", importer=reading)
        assert (report.imported, report.failed) == (300, 0)
        assert values(app, km) == {n: address(n) for n in range(1, 301)}
    assert decrypts(own_openbao) - before <= 3


def test_code_that_is_not_async_reads_as_well(own_openbao: OpenBao) -> None:
    old = Old(own_openbao)
    config = VaultConfig(vault_addr=own_openbao.url, mount_path=own_openbao.mount, token=own_openbao.token)
    reading = importer("vault", provider=VaultKMSProvider(config, environ={}), key=old.key, until=UNTIL)
    assert reading.is_remote
    assert reading.read(old.encrypt("value")[0]) == "value"


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="VaultKMSProvider"):
        importer("vault", provider=object(), key="orders", until=UNTIL)
    with pytest.raises(InvalidInputError, match="needs provider= and key="):
        importer("vault", until=UNTIL)
