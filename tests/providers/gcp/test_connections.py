"""Connections: one for each loop, closed for good, made anew after outages, and after a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from keystead.errors import DecryptionError, ProviderConnectionError, SystemShutdownError
from keystead.model import EncryptedData, KeyReference
from keystead.providers.gcp.config import GCPKMSConfig
from keystead.providers.gcp.provider import ALGORITHM, GCPKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.fakes import gcp_kms_rest
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make
from tests.providers.subjects.gcp import config_of

TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "rest"])


async def round_trip(provider: GCPKMSProvider, key: str) -> None:
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


@TRANSPORTS
@pytest.mark.parametrize("is_used", [False, True])
async def test_a_closed_provider_does_nothing_more(transport: str, is_used: bool, make: Make, key: str) -> None:
    provider = make(transport=transport)
    sealed = EncryptedData(b"x", KeyReference("gcp", key), ALGORITHM, provider._clock.now())
    if is_used:
        sealed = await provider.encrypt(b"value", key)
    await provider.aclose()
    for call in (
        provider.encrypt(b"value", key),
        provider.decrypt(sealed),
        provider.describe(key),
        provider.rotate_key(key),
        provider.mac(b"value", key),
        provider.check_permissions(key),
    ):
        with pytest.raises(SystemShutdownError):
            await call


@TRANSPORTS
async def test_a_call_under_way_when_the_provider_is_closed_says_so(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(transport=transport, max_connections=1)
    await provider.encrypt(b"value", key)
    service.faults.black_hole()
    calls = [asyncio.create_task(provider.encrypt(b"value", key)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await provider.aclose()
    service.faults.heal()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        # A call of REST that is on its way already ends with its answer.
        assert isinstance(result, SystemShutdownError | (EncryptedData if transport == "rest" else SystemShutdownError))


async def test_a_cancelled_call_is_cancelled_and_not_an_error(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    await provider.encrypt(b"value", key)
    service.faults.black_hole()
    call = asyncio.create_task(provider.encrypt(b"value", key))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    service.faults.heal()
    await round_trip(provider, key)


@TRANSPORTS
def test_loops_that_come_and_go_use_one_provider_and_leave_nothing_behind(
    transport: str, service: FakeCloudKms, key: str
) -> None:
    provider = GCPKMSProvider(config_of(service, transport=transport))
    for _ in range(5):
        asyncio.run(round_trip(provider, key))
    assert len(provider._kms._connections._made) == 1
    asyncio.run(provider.aclose())
    gc.collect()


@TRANSPORTS
def test_loops_in_several_threads_use_one_provider_at_the_same_time(
    transport: str, service: FakeCloudKms, key: str
) -> None:
    provider = GCPKMSProvider(config_of(service, transport=transport))
    problems: list[Any] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        await asyncio.gather(*(round_trip(provider, key) for _ in range(20)))

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    asyncio.run(provider.aclose())


async def test_closing_here_closes_what_another_loop_has(service: FakeCloudKms, key: str) -> None:
    provider = GCPKMSProvider(config_of(service))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        elsewhere = asyncio.run_coroutine_threadsafe(round_trip(provider, key), loop)
        await asyncio.wrap_future(elsewhere)
        await provider.aclose()
        elsewhere = asyncio.run_coroutine_threadsafe(round_trip(provider, key), loop)
        with pytest.raises(SystemShutdownError):
            await asyncio.wrap_future(elsewhere)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def test_a_service_that_was_restarted_is_reached_again(key: str, make: Make, service: FakeCloudKms) -> None:
    guard = GuardedProvider(make(), "cloud")
    sealed = await guard.encrypt(b"value", key)
    service.stop()
    with pytest.raises(ProviderConnectionError):
        await guard.decrypt(sealed)
    service.start()
    give_up_at = time.monotonic() + 30
    while True:
        try:
            assert await guard.decrypt(sealed) == b"value"
            break
        except ProviderConnectionError:
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0.2)


async def test_a_first_call_that_failed_does_not_spoil_the_next(
    make: Make, service: FakeCloudKms, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make(ca_file="/no/such/file")
    with pytest.raises(Exception, match="ca_file"):
        await provider.encrypt(b"value", key)
    object.__setattr__(provider._config, "ca_file", service.ca_file)
    await round_trip(provider, key)


async def test_many_first_calls_make_one_connection(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    before = service.tokens.issued
    await asyncio.gather(*(provider.encrypt(b"value", key) for _ in range(30)))
    assert service.tokens.issued == before + 1


async def test_the_loop_is_not_held_up_by_a_call(provider: GCPKMSProvider, key: str) -> None:
    await round_trip(provider, key)
    longest, is_over = 0.0, False

    async def watch() -> None:
        nonlocal longest
        while not is_over:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    # What was left of other tests is not for these calls to collect.
    gc.collect()
    gc.disable()
    try:
        watching = asyncio.create_task(watch())
        for _ in range(20):
            await round_trip(provider, key)
        is_over = True
        await watching
    finally:
        gc.enable()
    # Of this thread's own time, between two turns of the loop.
    assert longest < 0.1


FORKING = """
import asyncio, faulthandler, gc, os, signal, sys, threading
import keystead.providers.gcp.provider as gcp

config = gcp.GCPKMSConfig(
    endpoint=sys.argv[1], ca_file=sys.argv[2], credentials_file=sys.argv[3], timeout_s=10
)
rest, key, moment = sys.argv[4], sys.argv[5], sys.argv[6]
provider = gcp.GCPKMSProvider(config)

async def round_trip():
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"

loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever, daemon=True)
thread.start()
if moment != "before":
    asyncio.run_coroutine_threadsafe(round_trip(), loop).result(30)
if moment == "held":
    held = [connection.result() for connection in provider._kms._connections._made.values()]
if moment == "garbage":
    # What the parent closed and did not free yet is in a cycle: it is the child's collector that comes upon it.
    held = [connection.result() for connection in provider._kms._connections._made.values()]
    gc.disable()
    held.append(held)
    del held
if moment in ("closed", "held", "garbage"):
    asyncio.run_coroutine_threadsafe(provider.aclose(), loop).result(30)
    provider = gcp.GCPKMSProvider(config)

child = os.fork()
if child == 0:
    signal.alarm(50)
    faulthandler.dump_traceback_later(40)
    if moment == "held":
        held.clear()
    gc.collect()
    # The fake serves REST at another port; the live service serves both at one.
    if "grpc" in sys.modules:
        object.__setattr__(config, "endpoint", rest)
    asyncio.run(round_trip())
    asyncio.run(round_trip())
    print("child", provider._kms._uses_rest, flush=True)
    if moment != "unclosed":
        asyncio.run(provider.aclose())
    sys.exit(0)

signal.alarm(55)
_, status = os.waitpid(child, 0)
assert status == 0, status
asyncio.run_coroutine_threadsafe(round_trip(), loop).result(30)
asyncio.run_coroutine_threadsafe(provider.aclose(), loop).result(30)
print("parent", flush=True)
"""


@pytest.mark.parametrize(
    ("moment", "uses_rest"),
    [("before", False), ("closed", True), ("held", True), ("garbage", True), ("open", True), ("unclosed", True)],
)
def test_parent_and_child_go_on_after_a_fork(moment: str, uses_rest: bool, service: FakeCloudKms, key: str) -> None:
    arguments = [service.endpoint, service.ca_file, service.credentials_file, service.rest_endpoint, key, moment]
    answer = subprocess.run(
        [sys.executable, "-c", FORKING, *arguments], capture_output=True, text=True, check=False, timeout=90
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"child {uses_rest}\nparent\n"


async def test_a_guarded_call_ends_at_its_deadline_whatever_the_timeout(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(timeout_s=30)
    sealed = await provider.encrypt(b"value", key)
    service.faults.black_hole()
    with pytest.raises(ProviderConnectionError, match="within"):
        await GuardedProvider(provider, "cloud", deadline_s=0.2).decrypt(sealed)


async def test_what_can_be_no_ciphertext_of_the_service_is_not_sent(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    moment: Callable[[], Any] = provider._clock.now
    for ciphertext, algorithm in ((b"", ALGORITHM), (b"x", "SYMMETRIC_DEFAULT"), (bytes(1 << 20), ALGORITHM)):
        with pytest.raises(DecryptionError):
            await provider.decrypt(EncryptedData(ciphertext, KeyReference("gcp", key), algorithm, moment()))
    assert service.faults.calls.total() == 0


def test_the_fake_is_started_by_hand() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.gcp_kms", "--key", "billing"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition(" ")
            said[name] = value.strip()
            if name == "ready":
                break
        config = GCPKMSConfig(endpoint=said["endpoint"], ca_file=said["ca"], credentials_file=said["credentials"])

        async def use() -> None:
            provider = GCPKMSProvider(config)
            try:
                await round_trip(provider, said["key"])
            finally:
                await provider.aclose()

        asyncio.run(use())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
    assert process.returncode == 0
    assert not os.path.exists(said["ca"])


async def test_a_redirect_is_not_followed_with_what_was_sent(
    make: Make, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path)

        def log_message(self, *given: object) -> None:
            """Print nothing."""

    def redirect(handler: Any, verb: str) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.send_response(307)
        handler.send_header("Location", f"http://127.0.0.1:{server.server_address[1]}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(gcp_kms_rest._Handler, "_serve", redirect)
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        with pytest.raises(ProviderConnectionError):
            await make(transport="rest").encrypt(b"value", key)
        server.shutdown()
        serving.join()
    assert received == []


@TRANSPORTS
@pytest.mark.usefixtures("netrc")
async def test_a_login_in_netrc_is_not_sent_in_the_place_of_the_token(transport: str, make: Make, key: str) -> None:
    await round_trip(make(transport=transport), key)
