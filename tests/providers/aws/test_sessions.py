"""boto3's session and clients: when they are made, with which credentials and Region, and when they end."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from keystead.errors import (
    ConfigurationError,
    KMSError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from tests.canary.watch import SecretWatch, listening
from tests.fakes.aws_wire import AwsWire, refusal
from tests.providers.aws.keys import (
    ACCESS_KEY,
    ALIAS,
    ARN,
    KEY_ID,
    REGION,
    SECRET_KEY,
    Make,
    metadata,
    sealed,
    write_profile,
)
from tests.providers.stubs import until


async def test_without_a_region_the_first_call_says_which_variable_boto3_reads(files: Path) -> None:
    provider = AWSKMSProvider(AWSKMSConfig(access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    with pytest.raises(ConfigurationError, match=r"AWS_DEFAULT_REGION \(boto3 does not read AWS_REGION\)"):
        await provider.describe(ALIAS)
    await provider.aclose()


async def test_the_region_of_the_environment_is_boto3s_to_read(
    make: Make, wire: AwsWire, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    write_profile(files, "AKIDONE")
    wire.answer("DescribeKey", **metadata())
    await make(None).describe(ALIAS)
    assert wire.requests[0].region == "ap-south-1"


@pytest.mark.parametrize("key_id", [ARN, f"arn:aws:kms:{REGION}:111122223333:alias/orders"])
async def test_an_arn_brings_its_region(make: Make, wire: AwsWire, files: Path, key_id: str) -> None:
    write_profile(files, "AKIDONE")
    wire.answer("DescribeKey", **metadata())
    await make(None).describe(key_id)
    assert wire.requests[0].region == REGION


async def test_an_endpoint_of_the_environment_must_be_https_too(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example.org")
    provider = AWSKMSProvider(AWSKMSConfig(REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    for call in (provider.describe(ARN), provider.service_time()):
        with pytest.raises(ConfigurationError, match="must be https"):
            await call
    await provider.aclose()


async def test_callers_who_come_first_together_make_one_session(
    make: Make, wire: AwsWire, files: Path, sessions: list[object]
) -> None:
    write_profile(files, "AKIDONE")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make()
    await asyncio.gather(*(provider.describe(ARN) for _ in range(20)))
    assert len(sessions) == 1


async def test_clients_are_made_one_after_the_other(
    make: Make, wire: AwsWire, sessions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    wire.always("ListKeys", lambda body: refusal("MissingAuthenticationTokenException"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", wire.url)
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=None)
    await provider.describe(ARN)
    at_once, most, client = list[int](), list[int](), sessions[0].client

    def slowly(*given: Any, **options: Any) -> Any:
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return client(*given, **options)

    monkeypatch.setattr(sessions[0], "client", slowly)
    elsewhere = [provider.describe(ARN.replace(REGION, region)) for region in ("us-east-1", "us-east-2")]
    asking = [provider.service_time() for _ in range(3)]
    await asyncio.gather(*elsewhere, *asking, return_exceptions=True)
    assert (max(most), len(most)) == (1, 5)


async def test_where_nobody_listens_is_a_failure_of_the_connection(make: Make) -> None:
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(ProviderConnectionError, match="cannot be reached") as caught:
        await provider.describe(ARN)
    assert caught.value.retryable


async def test_a_silent_endpoint_ends_at_the_read_timeout_after_one_attempt(make: Make, wire: AwsWire) -> None:
    gate = threading.Event()
    wire.always("DescribeKey", lambda body: metadata() if gate.wait(10) else {})
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, read_timeout_s=0.1)
    with pytest.raises(ProviderConnectionError):
        await provider.describe(ARN)
    gate.set()
    await until(lambda: bool(wire.requests))
    assert len(wire.requests) == 1


async def test_the_sdk_repeats_nothing_by_itself(make: Make, wire: AwsWire) -> None:
    wire.refuse("DescribeKey", "ThrottlingException")
    with pytest.raises(ProviderConnectionError):
        await make(access_key=ACCESS_KEY, secret_key=SECRET_KEY).describe(ARN)
    assert len(wire.requests) == 1


async def test_a_closed_provider_takes_no_calls(make: Make, wire: AwsWire) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    await provider.describe(ARN)
    await provider.aclose()
    await provider.aclose()
    with pytest.raises(SystemShutdownError):
        await provider.describe(ARN)


@pytest.fixture
def own(isolated: None) -> Iterator[AwsWire]:
    """A wire whose connections are one test's."""
    with AwsWire() as wire:
        wire.always("DescribeKey", lambda body: metadata())
        yield wire


async def test_closing_ends_the_connections_that_are_idle(make: Make, own: AwsWire) -> None:
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=own.url)
    await provider.describe(ARN)
    assert own.connections == 1
    await provider.aclose()
    await until(lambda: own.connections == 0)
    assert own.connections == 0


class Held:
    """A function that does not return before it may."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.has_begun.set()
        self.may_end.wait(10)
        return self._function(*given, **options)


async def test_closing_while_the_session_is_being_made_leaves_none(
    make: Make, own: AwsWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(boto3.session.Session)
    monkeypatch.setattr(boto3.session, "Session", held)
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=own.url)
    calls = [asyncio.create_task(provider.describe(ARN)) for _ in range(4)]
    await asyncio.to_thread(held.has_begun.wait, 10)
    await provider.aclose()
    held.may_end.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {SystemShutdownError}
    assert own.requests == []


async def test_closing_while_a_client_is_being_made_leaves_none(
    make: Make, own: AwsWire, sessions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", own.url)
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=None)
    await provider.describe(ARN)
    held = Held(sessions[0].client)
    monkeypatch.setattr(sessions[0], "client", held)
    call = asyncio.create_task(provider.describe(ARN.replace(REGION, "us-east-1")))
    await asyncio.to_thread(held.has_begun.wait, 10)
    await provider.aclose()
    held.may_end.set()
    with pytest.raises(SystemShutdownError):
        await call
    assert len(own.requests) == 1


async def test_a_cancelled_call_ends_at_once(make: Make, wire: AwsWire) -> None:
    gate = threading.Event()
    wire.always("DescribeKey", lambda body: metadata() if gate.wait(10) else {})
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    call = asyncio.create_task(provider.describe(ARN))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    assert (await provider.describe(ARN)).key_reference.key_id == ARN


def test_a_provider_serves_two_event_loops(wire: AwsWire) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    config = AWSKMSConfig(REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=wire.url)
    provider = AWSKMSProvider(config)
    for _ in range(2):
        assert asyncio.run(provider.describe(ARN)).key_reference.key_id == ARN
    asyncio.run(provider.aclose())


async def test_a_child_of_a_fork_makes_its_own_session(make: Make, wire: AwsWire) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    await provider.describe(ARN)
    child = os.fork()
    if child == 0:
        try:
            answer = asyncio.new_event_loop().run_until_complete(asyncio.wait_for(provider.describe(ARN), 20))
            os._exit(0 if answer.key_reference.key_id == ARN else 1)
        finally:
            os._exit(2)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (await provider.describe(ARN)).key_reference.key_id == ARN
    before, childs, after = (request.port for request in wire.requests)
    assert before == after != childs


async def test_the_sdk_logs_no_plaintext_key_or_credential_even_at_debug(make: Make, wire: AwsWire) -> None:
    secret, watch = os.urandom(32), SecretWatch()
    for value in (secret, SECRET_KEY.encode(), b"a-session-token-of-some-length"):
        watch.learn(value)
    wire.answer("GenerateDataKey", KeyId=ARN, Plaintext=secret, CiphertextBlob=b"wrapped")
    wire.answer("Encrypt", KeyId=ARN, CiphertextBlob=b"wrapped")
    wire.answer("Decrypt", KeyId=ARN, Plaintext=secret)
    said: list[str] = []
    spy = logging.Handler()
    spy.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    provider = make(access_key=ACCESS_KEY, secret_key=SECRET_KEY, session_token="a-session-token-of-some-length")
    with listening(watch, ("", logging.DEBUG), ("botocore", logging.DEBUG), ("urllib3", logging.DEBUG)):
        logging.getLogger().addHandler(spy)
        try:
            await provider.generate_data_key(ARN)
            await provider.encrypt(secret, ARN)
            await provider.decrypt(sealed())
        finally:
            logging.getLogger().removeHandler(spy)
    assert watch.hits() == []
    assert [text for text in said if "a-session-token" in text or SECRET_KEY in text] == []


async def test_the_applications_own_use_of_the_sdk_is_logged_as_before(make: Make, wire: AwsWire) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    await make(access_key=ACCESS_KEY, secret_key=SECRET_KEY).describe(ARN)
    said: list[str] = []
    spy = logging.Handler()
    spy.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    client = boto3.session.Session(aws_access_key_id="a", aws_secret_access_key="b").client(
        "kms", region_name=REGION, endpoint_url=wire.url
    )
    with listening(SecretWatch(), ("botocore", logging.DEBUG)):
        logging.getLogger("botocore").addHandler(spy)
        client.describe_key(KeyId=KEY_ID)
        logging.getLogger("botocore").removeHandler(spy)
    client.close()
    assert any("Response body" in text for text in said)


async def test_no_error_shows_a_credential_in_its_frames(make: Make, wire: AwsWire) -> None:
    wire.refuse("DescribeKey", "AccessDeniedException")
    with pytest.raises(KMSError) as caught:
        await make(access_key=ACCESS_KEY, secret_key=SECRET_KEY).describe(ARN)
    own = caught.value.__traceback__.tb_next if caught.value.__traceback__ else None
    text = "".join(traceback.TracebackException(KMSError, caught.value, own, capture_locals=True).format())
    assert SECRET_KEY not in text
