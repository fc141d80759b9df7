"""Loading, closing, forking, cancelling, several event loops, and what must never be seen."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from keystead.errors import (
    KMSError,
    MissingDependencyError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.model import SecretBytes
from keystead.providers.guard import GuardedProvider
from keystead.providers.sdk import Sdk
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.canary.watch import SecretWatch, learning, listening
from tests.providers.vault.making import Making, text
from tests.services.openbao import OpenBao


def test_importing_and_making_a_provider_loads_nothing_of_the_sdk() -> None:
    program = """
import sys
from keystead import VaultConfig, VaultKMSProvider
VaultKMSProvider(VaultConfig("https://vault.example.org", token="s.x"))
print([name for name in ("hvac", "requests", "urllib3", "cryptography") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


def test_without_the_sdk_construction_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Sdk("Vault", "hvac", "no_such_hvac", "vault")
    monkeypatch.setattr("keystead.providers.vault.provider.SDK", missing)
    with pytest.raises(MissingDependencyError) as caught:
        VaultKMSProvider(VaultConfig("https://vault.example.org"))
    assert str(caught.value) == "Vault support requires hvac. Install with: pip install keystead[vault]"


async def test_after_closing_every_call_is_a_shutdown_and_closing_again_is_nothing(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.shared_key()
    sealed = await provider.encrypt(b"value", key)
    await provider.aclose()
    await provider.aclose()
    for call in (provider.encrypt(b"value", key), provider.decrypt(sealed), provider.describe(key)):
        with pytest.raises(SystemShutdownError):
            await call


async def test_closing_during_calls_ends_them_and_leaves_no_connection(making: Making) -> None:
    key = making.bao.shared_key()
    provider = making.provider(timeout=0.5)
    sealed = await provider.encrypt(b"value", key)
    making.proxy.black_hole()
    calls = [asyncio.create_task(provider.decrypt(sealed)) for _ in range(20)]
    await asyncio.sleep(0.05)
    await provider.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, KMSError | asyncio.CancelledError) for result in results)
    making.proxy.heal()
    await asyncio.sleep(0.1)
    # Sockets that were left open would be reported as warnings, which are errors here.
    gc.collect()


async def test_a_call_that_is_cancelled_leaves_at_once_and_the_provider_goes_on(making: Making) -> None:
    key = making.bao.shared_key()
    provider = making.provider(timeout=30)
    sealed = await provider.encrypt(b"value", key)
    making.proxy.black_hole()
    calls = [asyncio.create_task(provider.decrypt(sealed)) for _ in range(30)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 25  # the time limit is 30 s
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    making.proxy.heal()
    assert await provider.decrypt(sealed) == b"value"


def test_one_provider_serves_several_event_loops(bao: OpenBao) -> None:
    key = bao.shared_key()
    config = VaultConfig(bao.url, token=bao.new_token(bao.user_policy, ttl="1h"))
    provider = VaultKMSProvider(config, environ={})
    outcomes: list[bytes] = []

    async def use() -> bytes:
        sealed = await provider.encrypt(b"value", key)
        return await provider.decrypt(sealed)

    outcomes.append(asyncio.run(use()))
    threads = [threading.Thread(target=lambda: outcomes.append(asyncio.run(use()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [b"value"] * 5
    asyncio.run(provider.aclose())


def _in_child(provider: VaultKMSProvider, sealed: Any, answers: Any) -> None:
    async def use() -> None:
        results = await asyncio.gather(*(provider.decrypt(sealed) for _ in range(5)))
        answers.send((results, os.getpid()))
        await provider.aclose()

    asyncio.run(use())


def test_a_child_of_a_fork_makes_connections_of_its_own_and_leaves_its_parents_token_alone(bao: OpenBao) -> None:
    key, role = bao.shared_key(), bao.app_role(secret_id_num_uses=1)
    secret_id = role.secret_id()
    config = VaultConfig(
        bao.url, auth_method="approle", auth_mount=role.mount, role_id=role.role_id, secret_id=secret_id
    )
    provider = VaultKMSProvider(config, environ={})
    loop = asyncio.new_event_loop()
    sealed = loop.run_until_complete(provider.encrypt(b"value", key))
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(provider, sealed, sender))
    child.start()
    assert receiver.poll(20)
    results, pid = receiver.recv()
    child.join(20)
    assert (results, child.exitcode) == ([b"value"] * 5, 0)
    assert pid != os.getpid()
    # The parent goes on with its token, which the child did not revoke by closing.
    assert loop.run_until_complete(provider.decrypt(sealed)) == b"value"
    loop.run_until_complete(provider.aclose())
    loop.close()
    receiver.close()
    sender.close()


@pytest.fixture
def watch() -> Iterator[SecretWatch]:
    watched = SecretWatch()
    with learning(watched), listening(watched, ("", logging.DEBUG), ("urllib3", logging.DEBUG)):
        yield watched


def with_frames(error: BaseException) -> str:
    """Return the traceback as an error tracker shows it: with the values of every frame's names but the test's."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


async def test_no_log_error_or_traceback_shows_a_credential_or_a_plaintext(
    making: Making, watch: SecretWatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bao = making.bao
    key, role = bao.new_key(), bao.app_role()
    secret_id = role.secret_id()
    # As keys travel; of plain bytes a traceback shows what the caller gave, in the caller's own call.
    plaintext = SecretBytes(b"a canary that must never be seen")
    watch.learn(plaintext)
    provider = making.by_role(role, secret_id=secret_id)
    guarded = GuardedProvider(provider, "vault")
    sealed = await guarded.encrypt(plaintext, key)
    token = str.__str__(provider._client.login.token())
    wrong = making.by_role(role, role_id=role.role_id, secret_id=f"{secret_id}x")
    errors: list[BaseException] = []

    async def fails(call: Any) -> None:
        with pytest.raises(KMSError) as caught:
            await call
        errors.append(caught.value)

    for status, body in (
        (400, [plaintext.decode()]),
        (500, [text(plaintext)]),
        (403, ["1 error occurred:\n\t* permission denied\n\n"]),
    ):
        for path in ("encrypt", "decrypt"):
            content = json.dumps({"errors": body}).encode()
            making.proxy.fail_next(
                1, status=status, body=content, path=path, headers={"Content-Type": "application/json"}
            )
        await fails(provider.encrypt(plaintext, key))
        await fails(provider.decrypt(sealed))
    making.proxy.drop_next(2, path="transit")
    await fails(provider.encrypt(plaintext, key))
    await fails(provider.generate_data_key("unknown"))
    await fails(wrong.encrypt(plaintext, key))
    making.proxy.truncate_next(path="decrypt")
    await fails(provider.decrypt(sealed))
    seen = "\n".join([caplog.text, *(with_frames(error) for error in errors), *(repr(error) for error in errors)])
    for secret in (token, secret_id, plaintext.decode(), text(plaintext)):
        assert secret not in seen
    assert watch.hits() == []
    assert len(errors) == 10
    assert all(error.__cause__ is None and error.__context__ is None for error in errors)


def test_no_holder_of_a_credential_shows_it(making: Making) -> None:
    secret = "s.a-canary-that-must-never-be-seen"
    provider = making.provider(token=secret)
    shown = [repr(provider), str(provider), repr(provider._client.login.__dict__), repr(provider._client.__dict__)]
    assert not any(secret in each for each in shown)


async def test_a_server_that_is_slow_does_not_hold_up_the_event_loop(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.shared_key()
    await provider.encrypt(b"value", key)
    making.proxy.delay_s = 0.3
    call = asyncio.create_task(provider.encrypt(b"value", key))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.001)
        turns += 1
    await call
    assert turns > 20


async def test_requests_carry_what_servers_ask_of_clients(making: Making) -> None:
    seen: list[dict[str, str]] = []

    class Watching(FaultProxy):
        def connect(self) -> Any:
            connection = super().connect()
            send = connection.request

            def request(method: str, url: str, body: Any = None, headers: Any = None, **more: Any) -> None:
                seen.append({name.lower(): value for name, value in headers.items()})
                send(method, url, body, headers, **more)

            connection.request = request  # type: ignore[method-assign]
            return connection

    with Watching(making.bao.url) as server:
        provider = making.provider(vault_addr=server.url)
        await provider.describe(making.bao.shared_key())
        await provider.aclose()
    assert all(headers["x-vault-request"] == "true" and headers["x-vault-token"] for headers in seen)
    assert not any("authorization" in headers or "cookie" in headers for headers in seen)


async def test_the_processes_own_variables_are_not_the_sdks(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", making.bao.new_token())
    monkeypatch.setenv("VAULT_NAMESPACE", "nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    provider = making.provider(token="s.worthless")
    with pytest.raises(ProviderAuthError):
        await provider.describe(making.bao.shared_key())
    making.proxy.refuse()
    with pytest.raises(ProviderConnectionError):
        await provider.describe(making.bao.shared_key())


async def test_what_is_known_of_a_key_is_told_while_another_thread_reads_it(making: Making) -> None:
    provider, key_id = making.provider(), making.bao.new_key()
    await provider.encrypt(b"value", key_id)
    key = provider._keys.get(key_id)
    info = key.info(provider._client, provider._clock)
    is_held, may_go = threading.Event(), threading.Event()

    def read() -> None:
        with key.lock:
            is_held.set()
            may_go.wait(10)

    reading = threading.Thread(target=read)
    reading.start()
    is_held.wait(10)
    started = time.monotonic()
    assert (key.current(info), key.version(provider._clock)) == (1, None)
    assert key.info(provider._client, provider._clock) is info
    assert time.monotonic() - started < 9  # the lock is held for 10 s
    may_go.set()
    reading.join()
