"""A provider's life: loops, forks, closing, cancellation, and the secrets that never show."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keystead.errors import DecryptionError, KMSError, ProviderConnectionError, SystemShutdownError
from keystead.model import EncryptedData, SecretBytes
from keystead.providers.azure import session as azure_session
from keystead.providers.azure.provider import AzureKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.canary.watch import SecretWatch, listening
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure
from tests.providers.azure.conftest import Opening
from tests.services.azure import config_for, new_name


@pytest.fixture
def kek(cloud: FakeAzure) -> str:
    name = new_name("kek")
    cloud.hsm.state.create_key(name, "oct-HSM")
    return name


@pytest.fixture
def provider(opening: Opening, cloud: FakeAzure) -> AzureKMSProvider:
    return opening(vault_url=cloud.hsm.url)


async def test_after_closing_every_call_says_so(provider: AzureKMSProvider, kek: str) -> None:
    sealed = await provider.encrypt(b"value", kek)
    await provider.aclose()
    await provider.aclose()
    calls: list[Any] = [
        lambda: provider.encrypt(b"value", kek),
        lambda: provider.decrypt(sealed),
        lambda: provider.generate_data_key(kek),
        lambda: provider.describe(kek),
        lambda: provider.rotate_key(kek),
        lambda: provider.get_rotation_policy(kek),
        lambda: provider.sign(b"message", kek),
        lambda: provider.public_key(kek),
        provider.service_time,
    ]
    for call in calls:
        with pytest.raises(SystemShutdownError):
            await call()


async def test_a_provider_that_was_never_used_closes(provider: AzureKMSProvider) -> None:
    await provider.aclose()


async def test_closing_ends_what_is_under_way(provider: AzureKMSProvider, cloud: FakeAzure, kek: str) -> None:
    sealed = await provider.encrypt(b"value", kek)
    cloud.hsm.server.black_hole()
    call = asyncio.create_task(provider.decrypt(sealed))
    await asyncio.sleep(0.05)
    await provider.aclose()
    with pytest.raises(SystemShutdownError):
        await asyncio.wait_for(call, 10)


async def test_a_call_that_is_cancelled_leaves_the_others_alone(
    provider: AzureKMSProvider, cloud: FakeAzure, kek: str
) -> None:
    sealed = await provider.encrypt(b"value", kek)
    cloud.hsm.server.black_hole()
    calls = [asyncio.create_task(provider.decrypt(sealed)) for _ in range(5)]
    await asyncio.sleep(0.05)
    calls[0].cancel()
    await asyncio.sleep(0)
    cloud.hsm.server.heal()
    assert await asyncio.gather(*calls[1:]) == [b"value"] * 4
    with pytest.raises(asyncio.CancelledError):
        await calls[0]


async def test_cancelled_calls_give_their_turn_back(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(vault_url=cloud.hsm.url, max_connections=2)
    sealed = await provider.encrypt(b"value", kek)
    cloud.hsm.server.black_hole()
    calls = [asyncio.create_task(provider.decrypt(sealed)) for _ in range(10)]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    cloud.hsm.server.heal()
    assert await provider.decrypt(sealed) == b"value"


async def test_a_service_that_hangs_ends_by_the_read_timeout(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(vault_url=cloud.hsm.url, read_timeout_s=1.0)
    sealed = await provider.encrypt(b"value", kek)
    cloud.hsm.server.black_hole()
    with pytest.raises(ProviderConnectionError, match="did not answer in time"):
        await provider.decrypt(sealed)


async def test_closing_leaves_no_socket_open_even_of_a_service_that_hangs(
    provider: AzureKMSProvider, cloud: FakeAzure, kek: str
) -> None:
    sealed = await provider.encrypt(b"value", kek)
    session = (await provider._connection())._session
    cloud.hsm.server.black_hole()
    call = asyncio.create_task(provider.decrypt(sealed))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    sockets = list(session._sockets)
    await provider.aclose()
    assert sockets
    assert {each.fileno() for each in sockets} == {-1}


async def test_wrapping_with_a_public_half_goes_on_while_the_service_hangs(opening: Opening, cloud: FakeAzure) -> None:
    name = new_name("kek")
    cloud.vault.state.create_key(name)
    provider = opening(allow_unauthenticated_wrap=True, max_connections=1)
    sealed = await provider.encrypt(b"value", name)
    await provider.decrypt(sealed)
    cloud.vault.server.black_hole()
    waiting = asyncio.create_task(provider.decrypt(sealed))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(provider.encrypt(b"value", name), 10)
    cloud.vault.server.heal()
    assert await waiting == b"value"


async def test_two_event_loops_use_one_provider(provider: AzureKMSProvider, kek: str) -> None:
    sealed = await provider.encrypt(b"value", kek)
    with running_loop() as loop:
        for _ in range(3):
            elsewhere = asyncio.run_coroutine_threadsafe(provider.decrypt(sealed), loop)
            assert await provider.decrypt(sealed) == await asyncio.wrap_future(elsewhere) == b"value"
        await provider.aclose()
        await asyncio.sleep(0.1)


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def test_a_child_of_a_fork_makes_connections_of_its_own_and_leaves_its_parents_alone(
    provider: AzureKMSProvider, cloud: FakeAzure, kek: str
) -> None:
    sealed = await provider.encrypt(b"value", kek)
    before = cloud.hsm.server.connections
    child = os.fork()
    if child == 0:
        os._exit(_in_child(provider, sealed))
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert await provider.decrypt(sealed) == b"value"
    assert cloud.hsm.server.connections == before + 1


def _in_child(provider: AzureKMSProvider, sealed: EncryptedData) -> int:
    try:
        loop = asyncio.new_event_loop()
        plaintext = loop.run_until_complete(asyncio.wait_for(provider.decrypt(sealed), 20))
        return 7 if plaintext == b"value" else 1
    except BaseException:
        traceback.print_exc()
        return 2


async def test_the_sdk_and_the_tls_context_are_loaded_off_the_loop(
    provider: AzureKMSProvider, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, seen = threading.get_ident(), list[int]()
    create = ssl.create_default_context

    def noting(*given: Any, **named: Any) -> ssl.SSLContext:
        seen.append(threading.get_ident())
        return create(*given, **named)

    monkeypatch.setattr(ssl, "create_default_context", noting)
    for _ in range(3):
        await provider.decrypt(await provider.encrypt(b"value", kek))
    assert len(seen) == 1
    assert here not in seen


def test_what_the_first_call_uses_is_loaded_in_the_thread_as_well() -> None:
    program = (
        "import sys\n"
        "from keystead.providers.azure.config import AzureKMSConfig\n"
        "from keystead.providers.azure.session import prepare\n"
        "prepare(AzureKMSConfig(vault_url='https://acme.vault.azure.net'))\n"
        "before = set(sys.modules)\n"
        "from azure.keyvault.keys.aio import KeyClient\n"
        "from azure.keyvault.keys.crypto.aio import CryptographyClient\n"
        "from cryptography.hazmat.backends import default_backend\n"
        "default_backend()\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"


async def test_making_a_provider_does_no_io(cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_session, "prepare", None)
    before = cloud.vault.server.connections, cloud.login_server.connections
    provider = AzureKMSProvider(config_for(cloud, ca_file="/no/such/file"))
    assert (cloud.vault.server.connections, cloud.login_server.connections) == before
    await provider.aclose()


async def test_no_secret_and_no_token_is_ever_said(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    watch = SecretWatch()
    watch.learn(SECRET.encode())
    told: list[str] = []
    with listening(watch, ("", 1), ("azure", 1), ("msal", 1), ("aiohttp", 1)):
        provider = opening(vault_url=cloud.hsm.url)
        guarded = GuardedProvider(provider, "azure")
        plaintext = os.urandom(32)
        watch.learn(plaintext)
        sealed = await guarded.encrypt(plaintext, kek)
        await guarded.decrypt(sealed)
        for failure in ("deny", "expire", "secret", "fail"):
            if failure == "deny":
                cloud.hsm.deny()
            elif failure == "expire":
                cloud.expire_tokens()
            elif failure == "secret":
                guarded = GuardedProvider(
                    opening(vault_url=cloud.hsm.url, client_secret=SECRET[::-1], tenant_id=TENANT, client_id=CLIENT),
                    "azure",
                )
                watch.learn(SECRET[::-1].encode())
            else:
                cloud.hsm.fail_next(9)
            try:
                await guarded.decrypt(sealed)
            except KMSError as exc:
                told.append(text_with_frames(exc))
            cloud.heal()
        for token in cloud.login.issued:
            watch.learn(token.encode())
    assert len(told) >= 2
    assert watch.records > 20
    assert watch.hits() == []
    assert [found for text in (*told, repr(provider), repr(guarded)) for found in watch.find(text)] == []
    for secret in (SECRET, SECRET[::-1], *cloud.login.issued):
        assert not any(secret in text for text in told)


@pytest.mark.parametrize("vault", ["vault", "hsm"])
async def test_a_refused_context_does_not_show_what_the_ciphertext_holds(
    opening: Opening, cloud: FakeAzure, vault: str
) -> None:
    secret, name = SecretBytes(b"a plaintext that nobody may see!"), new_name("kek")
    place = cloud.hsm if vault == "hsm" else cloud.vault
    place.state.create_key(name, "oct-HSM" if vault == "hsm" else "RSA")
    provider = opening(vault_url=place.url, allow_unauthenticated_wrap=True)
    sealed = await provider.encrypt(secret, name, context={"row": "1"})
    with pytest.raises(DecryptionError) as refused:
        await provider.decrypt(sealed, context={"row": "2"})
    assert secret.decode() not in text_with_frames(refused.value)


def text_with_frames(error: BaseException) -> str:
    """Return what an error tracker shows: every frame's names with their values, and every error behind this one."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


@pytest.mark.usefixtures("netrc")
async def test_a_login_in_netrc_stands_in_no_requests_way(opening: Opening, cloud: FakeAzure) -> None:
    cloud.vault.state.create_key(name := new_name("kek"))
    provider = opening(allow_unauthenticated_wrap=True)
    assert await provider.decrypt(await provider.encrypt(b"value", name)) == b"value"
    assert await provider.service_time() is not None


async def test_requests_go_through_the_environments_proxy_except_to_hosts_that_are_excepted(
    opening: Opening, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.vault.state.create_key(name := new_name("kek"))
    # Nobody listens there.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ProviderConnectionError):
        await opening(allow_unauthenticated_wrap=True).encrypt(b"value", name)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    await opening(allow_unauthenticated_wrap=True).encrypt(b"value", name)
