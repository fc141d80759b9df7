"""Credentials: where they are found, and what happens when AWS calls them expired."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from keystead.errors import (
    ConfigurationError,
    ProviderAuthError,
)
from keystead.providers.guard import GuardedProvider
from tests.fakes.aws_wire import AwsWire, Reply
from tests.fakes.clock import FakeClock
from tests.providers.aws.keys import (
    ACCESS_KEY,
    ALIAS,
    ARN,
    SECRET_KEY,
    Make,
    metadata,
    sealed,
    write_profile,
)


async def test_without_credentials_the_first_call_says_where_to_put_them(make: Make, files: Path) -> None:
    with pytest.raises(ProviderAuthError, match=r"no AWS credentials were found: .*AWS_PROFILE.*access_key=") as caught:
        await make().encrypt(b"value", ALIAS)
    assert not caught.value.retryable


async def test_credentials_of_the_environment_are_found(
    make: Make, wire: AwsWire, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    wire.answer("DescribeKey", **metadata())
    await make().describe(ARN)
    assert wire.requests[0].access_key == "AKIDENVIRONMENT"


async def test_credentials_of_the_configuration_are_used(make: Make, wire: AwsWire, files: Path) -> None:
    wire.answer("DescribeKey", **metadata())
    await make(access_key=ACCESS_KEY, secret_key=SECRET_KEY).describe(ARN)
    assert wire.requests[0].access_key == ACCESS_KEY


async def test_half_of_a_profile_is_a_typed_error(make: Make, files: Path) -> None:
    (files / "credentials").write_text("[default]\naws_access_key_id = AKIDHALF\n")
    with pytest.raises(ProviderAuthError, match="do not work"):
        await make().describe(ARN)


async def test_a_profile_that_is_not_there_is_a_typed_error(make: Make, files: Path) -> None:
    with pytest.raises(ConfigurationError, match="profile"):
        await make(profile="no-such-profile").describe(ARN)


async def test_expired_credentials_of_a_profile_are_read_again(make: Make, wire: AwsWire, files: Path) -> None:
    write_profile(files, "AKIDOLD")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make()
    await provider.describe(ARN)
    wire.expired.add("AKIDOLD")
    write_profile(files, "AKIDNEW")
    await provider.describe(ARN)
    assert [request.access_key for request in wire.requests] == ["AKIDOLD", "AKIDOLD", "AKIDNEW"]


async def test_expired_credentials_of_a_process_are_asked_for_again(make: Make, wire: AwsWire, files: Path) -> None:
    program = files / "credentials.py"
    program.write_text(
        "import json, pathlib\n"
        f"count = pathlib.Path({str(files / 'count')!r})\n"
        "number = len(count.read_text()) if count.exists() else 0\n"
        "count.write_text('x' * (number + 1))\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'AKIDPROCESS{number}', 'SecretAccessKey': 's'}))\n"
    )
    (files / "config").write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make()
    await provider.describe(ARN)
    wire.expired.add(wire.requests[0].access_key)
    await provider.describe(ARN)
    assert wire.requests[0].access_key == wire.requests[1].access_key != wire.requests[2].access_key


async def test_credentials_that_are_expired_again_are_an_error_after_one_renewal(
    make: Make, wire: AwsWire, files: Path
) -> None:
    write_profile(files, "AKIDOLD")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make()
    await provider.describe(ARN)
    wire.expired |= {"AKIDOLD", "AKIDNEW"}
    write_profile(files, "AKIDNEW")
    with pytest.raises(ProviderAuthError, match="expired or are revoked; renew them"):
        await provider.describe(ARN)
    assert len(wire.requests) == 3


async def test_expired_credentials_without_others_to_be_had_are_not_tried_twice(
    make: Make, wire: AwsWire, files: Path
) -> None:
    write_profile(files, "AKIDOLD")
    wire.expired.add("AKIDOLD")
    with pytest.raises(ProviderAuthError, match="renew them"):
        await make().describe(ARN)
    assert len(wire.requests) == 1


async def test_credentials_written_into_the_configuration_are_not_renewed(
    make: Make, wire: AwsWire, sessions: list[object]
) -> None:
    wire.expired.add(ACCESS_KEY)
    with pytest.raises(ProviderAuthError, match="give access_key, secret_key and session_token anew"):
        await make(access_key=ACCESS_KEY, secret_key=SECRET_KEY).describe(ARN)
    assert (len(wire.requests), len(sessions)) == (1, 1)


async def test_the_guard_does_not_repeat_a_call_whose_credentials_expired(make: Make, wire: AwsWire) -> None:
    wire.expired.add(ACCESS_KEY)
    guarded = GuardedProvider(make(access_key=ACCESS_KEY, secret_key=SECRET_KEY), "cloud")
    with pytest.raises(ProviderAuthError):
        await guarded.decrypt(sealed())
    assert len(wire.requests) == 1


async def test_a_profile_that_is_gone_at_the_renewal_leaves_the_error_that_aws_gave(
    make: Make, wire: AwsWire, files: Path
) -> None:
    write_profile(files, "AKIDOLD", name="orders")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make(profile="orders")
    await provider.describe(ARN)
    wire.expired.add("AKIDOLD")
    (files / "credentials").write_text("")
    with pytest.raises(ProviderAuthError, match="expired"):
        await provider.describe(ARN)


async def test_many_calls_that_find_their_credentials_expired_renew_them_once(
    make: Make, wire: AwsWire, files: Path, sessions: list[object]
) -> None:
    write_profile(files, "AKIDOLD")
    wire.always("DescribeKey", lambda body: metadata())
    provider = make()
    await provider.describe(ARN)
    wire.expired.add("AKIDOLD")
    write_profile(files, "AKIDNEW")
    await asyncio.gather(*(provider.describe(ARN) for _ in range(20)))
    assert len(sessions) == 2


async def test_many_calls_with_expired_credentials_do_not_each_ask_for_others_that_are_not_there(
    make: Make, wire: AwsWire, files: Path, sessions: list[object]
) -> None:
    write_profile(files, "AKIDOLD")
    wire.always("DescribeKey", lambda body: metadata())
    clock = FakeClock()
    provider = make(clock=clock)
    await provider.describe(ARN)
    wire.expired.add("AKIDOLD")
    failures = await asyncio.gather(*(provider.describe(ARN) for _ in range(20)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {ProviderAuthError}
    assert len(sessions) == 2
    write_profile(files, "AKIDNEW")
    clock.advance(5)
    await provider.describe(ARN)
    assert len(sessions) == 3


async def test_a_role_that_may_not_be_assumed_is_named_as_the_step_that_failed(
    make: Make, wire: AwsWire, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(files, "AKIDSOURCE", name="source")
    role = "arn:aws:iam::111122223333:role/orders"
    (files / "config").write_text(f"[profile orders]\nrole_arn = {role}\nsource_profile = source\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    wire.reply("AssumeRole", Reply(403, body, {"Content-Type": "text/xml"}))
    with pytest.raises(ProviderAuthError, match="it refused AssumeRole; look at the role"):
        await make(profile="orders").describe(ARN)
    assert wire.actions == ["AssumeRole"]
