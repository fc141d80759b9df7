"""Where credentials come from, how they are renewed, and that they show nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import traceback
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, ProviderAuthError, ProviderConnectionError
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.canary.watch import SecretWatch
from tests.fakes.gcp_kms import FakeCloudKms
from tests.fakes.gcp_tokens import SUBJECT_TOKEN
from tests.providers.gcp.conftest import Make, guarded

# To a type checker, google-auth's classes are functions without types.
user_credentials: Any = import_module("google.oauth2.credentials")
auth_errors: Any = import_module("google.auth.exceptions")

TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "rest"])


async def round_trip(provider: GCPKMSProvider, key: str) -> None:
    assert await provider.decrypt(await provider.encrypt(b"value", key)) == b"value"


@TRANSPORTS
async def test_a_workload_identity_is_exchanged_for_a_token(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    before = service.tokens.issued
    await round_trip(make(transport=transport), key)
    assert service.tokens.issued == before + 1


@TRANSPORTS
async def test_a_service_account_signs_its_own_tokens(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    before = service.tokens.issued
    await round_trip(make(transport=transport, credentials_file=service.service_account_file), key)
    assert service.tokens.issued == before


@TRANSPORTS
async def test_the_environment_names_the_credentials_where_none_are_configured(
    transport: str, make: Make, service: FakeCloudKms, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", service.service_account_file)
    await round_trip(make(transport=transport, credentials_file=None), key)


async def test_a_credentials_object_may_be_given(make: Make, service: FakeCloudKms, key: str) -> None:
    own = user_credentials.Credentials(service.tokens.issue(), quota_project_id="paying-project")
    provider = make(credentials_file=None, credentials=own)
    await round_trip(provider, key)


@TRANSPORTS
async def test_a_token_that_was_revoked_is_replaced_and_nobody_notices(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(transport=transport)
    await round_trip(provider, key)
    service.tokens.revoke_all()
    await round_trip(provider, key)


async def test_one_renewal_serves_everybody_who_waits(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    await round_trip(provider, key)
    service.tokens.revoke_all()
    before = service.tokens.issued
    await asyncio.gather(*(provider.encrypt(b"value", key) for _ in range(50)))
    assert service.tokens.issued == before + 1


async def test_a_token_about_to_expire_is_renewed_before_it_is_used(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.tokens.lifetime_s = 1
    try:
        await round_trip(provider, key)
    finally:
        service.tokens.lifetime_s = 3600
    before, refused = service.tokens.issued, service.faults.calls.total()
    await provider.encrypt(b"value", key)
    assert service.tokens.issued == before + 1
    assert service.faults.calls.total() == refused + 1


async def test_a_token_that_is_still_good_is_used_while_none_are_issued(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    def unreachable(request: Any) -> None:
        raise auth_errors.TransportError("unreachable")

    in_a_minute = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=60)
    own = user_credentials.Credentials(service.tokens.issue(), expiry=in_a_minute)
    own.refresh = unreachable
    await round_trip(make(credentials_file=None, credentials=own), key)


@pytest.mark.parametrize(("transport", "left_s"), [("grpc", 60), ("grpc", 3600), ("rest", 3600)])
async def test_a_token_that_was_refused_while_none_are_issued_may_be_tried_again(
    transport: str, left_s: int, make: Make, service: FakeCloudKms, key: str
) -> None:
    def unreachable(request: Any) -> None:
        raise auth_errors.TransportError("unreachable")

    expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=left_s)
    own = user_credentials.Credentials(service.tokens.issue(), expiry=expiry)
    own.refresh = unreachable
    provider = make(transport=transport, credentials_file=None, credentials=own)
    await round_trip(provider, key)
    service.tokens.revoke_all()
    with pytest.raises(ProviderConnectionError, match="could not be renewed") as caught:
        await provider.encrypt(b"value", key)
    assert caught.value.retryable


@TRANSPORTS
async def test_an_account_that_is_no_longer_trusted_is_denied(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(transport=transport, credentials_file=service.service_account_file)
    service.tokens.trusts_account = False
    with pytest.raises(ProviderAuthError, match="does not accept the credentials"):
        await provider.encrypt(b"value", key)


@TRANSPORTS
async def test_an_exchange_that_is_refused_is_denied(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    service.tokens.fails_with = (400, {"error": "invalid_grant", "error_description": SUBJECT_TOKEN})
    with pytest.raises(ProviderAuthError, match="could not be renewed") as caught:
        await make(transport=transport).encrypt(b"value", key)
    assert SUBJECT_TOKEN not in "".join(traceback.format_exception(caught.value))


@TRANSPORTS
async def test_an_exchange_that_cannot_be_reached_may_be_tried_again(
    transport: str, make: Make, service: FakeCloudKms, key: str, tmp_path: Path
) -> None:
    path = service.tokens.write_workload_identity(tmp_path)
    path.write_text(path.read_text().replace(service.tokens.url, "http://127.0.0.1:9"))
    with pytest.raises(ProviderConnectionError) as caught:
        await make(transport=transport, credentials_file=path).encrypt(b"value", key)
    assert caught.value.retryable


async def test_the_provider_recovers_when_tokens_are_issued_again(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.tokens.fails_with = (400, {"error": "invalid_grant"})
    with pytest.raises(ProviderAuthError):
        await provider.encrypt(b"value", key)
    service.tokens.fails_with = None
    await round_trip(provider, key)


DAMAGED = {
    "empty": "",
    "no JSON": "{",
    "no object": "[]",
    "no type": "{}",
    "unknown type": json.dumps({"type": "magic", "private_key": SUBJECT_TOKEN}),
    "no key": json.dumps({"type": "service_account", "client_email": "x", "token_uri": "y", "private_key": "nothing"}),
    "no source": json.dumps({"type": "external_account", "audience": "x"}),
    "no user": json.dumps({"type": "authorized_user", "client_secret": SUBJECT_TOKEN}),
    "no program": json.dumps({"type": "external_account", "credential_source": {"executable": {}}}),
    "no AWS": json.dumps(
        {"type": "external_account", "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request"}
    ),
    "no target": json.dumps({"type": "impersonated_service_account", "source_credentials": {"type": "x"}}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
async def test_a_damaged_credentials_file_is_named_and_not_shown(
    content: str, make: Make, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises((ConfigurationError, ProviderAuthError)) as caught:
        await make(credentials_file=path).encrypt(b"value", key)
    shown = "".join(traceback.format_exception(caught.value))
    assert SUBJECT_TOKEN not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_credentials_file_that_is_missing_is_an_error_at_the_first_call(
    make: Make, tmp_path: Path, key: str
) -> None:
    provider = make(credentials_file=tmp_path / "absent.json")
    with pytest.raises(ConfigurationError, match=r"absent\.json"):
        await provider.encrypt(b"value", key)


@TRANSPORTS
async def test_neither_tokens_nor_plaintexts_are_logged(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    watch, google = SecretWatch(), logging.getLogger("google")
    plaintext = bytes(range(100, 164))
    watch.learn(plaintext)
    google.addHandler(watch)
    level, propagate = google.level, google.propagate
    google.setLevel(logging.DEBUG)
    try:
        provider = make(transport=transport)
        sealed = await provider.encrypt(plaintext, key)
        await provider.decrypt(sealed)
    finally:
        google.removeHandler(watch)
        google.setLevel(level)
        google.propagate = propagate
    assert watch.records > 3
    assert watch.hits() == []
    said = " ".join(watch._said)
    assert "ya29." not in said
    assert SUBJECT_TOKEN not in said


ENVIRONMENT = """
import asyncio
import keystead.providers.gcp.provider as gcp
from keystead.errors import KMSError

async def main():
    provider = gcp.GCPKMSProvider(gcp.GCPKMSConfig(endpoint={endpoint!r}, ca_file={ca_file!r}))
    try:
        sealed = await provider.encrypt(b"value", {key!r})
        print(await provider.decrypt(sealed))
    except KMSError as error:
        print(type(error).__name__, error)
    finally:
        await provider.aclose()

asyncio.run(main())
"""


def run_in_environment(service: FakeCloudKms, key: str, home: Path, **variables: str) -> str:
    program = ENVIRONMENT.format(endpoint=service.endpoint, ca_file=service.ca_file, key=key)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE", "GCE", "CLOUDSDK"))}
    environ = own | {"HOME": str(home), "CLOUDSDK_CONFIG": str(home), "PATH": str(home)} | variables
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return answer.stdout


def test_without_any_credentials_the_error_says_where_they_may_come_from(
    service: FakeCloudKms, key: str, tmp_path: Path
) -> None:
    said = run_in_environment(service, key, tmp_path, NO_GCE_CHECK="true")
    assert said.startswith("ProviderAuthError")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in said
    assert "gcloud auth application-default login" in said


def test_the_metadata_server_gives_the_tokens_on_google_cloud(service: FakeCloudKms, key: str, tmp_path: Path) -> None:
    host = service.tokens.url.removeprefix("http://")
    said = run_in_environment(service, key, tmp_path, GCE_METADATA_HOST=host, GCE_METADATA_IP=host)
    assert said == "b'value'\n"


async def test_the_guard_does_not_repeat_what_is_denied(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.deny()
    with pytest.raises(ProviderAuthError):
        await guarded(provider).encrypt(b"value", key)
    assert service.faults.calls["encrypt"] == 1
