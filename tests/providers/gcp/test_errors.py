"""What Cloud KMS, google-auth and the network answer instead of a result, over gRPC and over REST."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trustme
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
    SigningError,
)
from keystead.providers.gcp.errors import error_of
from keystead.providers.gcp.provider import GCPKMSProvider
from keystead.testing.fault_proxy import FaultProxy
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make

# To a type checker, the SDK's exceptions are functions without types.
google_errors: Any = import_module("google.api_core.exceptions")
auth_errors: Any = import_module("google.auth.exceptions")

SECRET = "what the service says, which may hold anything"

Call = Callable[[], Awaitable[Any]]


@pytest.fixture(params=["grpc", "rest"])
def provider(request: pytest.FixtureRequest, make: Make) -> GCPKMSProvider:
    return make(transport=request.param)


async def caught(call: Awaitable[Any]) -> KMSError:
    with pytest.raises(KMSError) as info:
        await call
    shown = "".join(traceback.format_exception(info.value))
    assert SECRET not in shown
    assert info.value.__cause__ is None
    assert info.value.__context__ is None
    return info.value


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        ("UNAVAILABLE", ProviderConnectionError, True),
        ("DEADLINE_EXCEEDED", ProviderConnectionError, True),
        ("INTERNAL", ProviderConnectionError, True),
        ("ABORTED", ProviderConnectionError, True),
        ("UNKNOWN", ProviderConnectionError, True),
        ("CANCELLED", ProviderConnectionError, True),
        ("RESOURCE_EXHAUSTED", ProviderConnectionError, True),
        ("PERMISSION_DENIED", ProviderAuthError, False),
        ("UNAUTHENTICATED", ProviderAuthError, False),
        ("NOT_FOUND", KeyNotFoundError, False),
        ("INVALID_ARGUMENT", InvalidInputError, False),
        ("FAILED_PRECONDITION", InvalidInputError, False),
        ("UNIMPLEMENTED", ConfigurationError, False),
        ("OUT_OF_RANGE", EncryptionError, False),
        ("DATA_LOSS", EncryptionError, False),
    ],
)
async def test_a_status_is_an_error_of_ours(
    status: str, error: type[KMSError], retryable: bool, *, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.fail_next(3, status, SECRET)  # an unknown caller comes back with another token
    found = await caught(provider.encrypt(b"value", key))
    assert type(found) is error
    assert found.retryable is retryable


async def test_the_pause_that_the_service_asks_for_is_passed_on(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.throttle_next(retry_after_s=1.5)
    found = await caught(provider.encrypt(b"value", key))
    assert isinstance(found, ProviderConnectionError)
    assert found.retry_after_s == 1.5


async def test_throttling_without_a_pause_is_throttling_all_the_same(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.throttle_next(retry_after_s=None)
    found = await caught(provider.encrypt(b"value", key))
    assert isinstance(found, ProviderConnectionError)
    assert found.retry_after_s is None


@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED", "IMPORT_FAILED"])
async def test_a_version_that_is_out_of_use_is_a_matter_of_its_state(
    state: str, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    service.set_state(key, state)
    for call in (provider.encrypt(b"value", key), provider.decrypt(sealed)):
        found = await caught(call)
        assert type(found) is KeyStateError
        assert state in str(found)


async def test_a_version_that_is_still_being_made_is_waited_for(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.set_state(key, "PENDING_GENERATION")
    found = await caught(provider.encrypt(b"value", key))
    assert isinstance(found, ProviderConnectionError)
    assert found.retryable


async def test_the_state_is_read_off_the_text_where_the_details_are_missing(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    message = f"{key}/cryptoKeyVersions/1 is not enabled, current state is: DISABLED."
    service.faults.fail_next(status="FAILED_PRECONDITION", message=message)
    assert type(await caught(provider.encrypt(b"value", key))) is KeyStateError


async def test_details_of_other_kinds_do_not_disturb(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    unknown = any_pb2.Any(type_url="type.googleapis.com/some.later.Kind", value=b"\x08\x01")
    details = [error_details_pb2.Help(), error_details_pb2.RetryInfo(), unknown]
    service.faults.fail_next(status="RESOURCE_EXHAUSTED", message=SECRET, details=details)
    assert isinstance(await caught(provider.encrypt(b"value", key)), ProviderConnectionError)


async def test_a_key_of_another_purpose_is_the_callers_mistake(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    mac = service.create_key("mac", "MAC", ring=ring)
    assert type(await caught(provider.encrypt(b"value", mac))) is InvalidInputError


async def test_a_key_that_does_not_exist_is_not_found(provider: GCPKMSProvider, ring: str, key: str) -> None:
    missing = f"{ring}/cryptoKeys/no-such-key"
    for call in (
        provider.encrypt(b"value", missing),
        provider.describe(missing),
        provider.rotate_key(missing),
        provider.get_rotation_policy(missing),
        provider.mac(b"value", missing),
        provider.sign(b"value", missing),
        provider.public_key(missing),
        provider.public_key(missing, version="1"),
        provider.encrypt(b"value", f"{key}/cryptoKeyVersions/9"),
    ):
        assert type(await caught(call)) is KeyNotFoundError


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("cloudkms.cryptoKeyVersions.useToEncrypt", lambda p, key, mac: p.encrypt(b"value", key)),
        ("cloudkms.cryptoKeys.get", lambda p, key, mac: p.describe(key)),
        ("cloudkms.cryptoKeyVersions.create", lambda p, key, mac: p.rotate_key(key)),
        ("cloudkms.cryptoKeys.update", lambda p, key, mac: p.rotate_key(key)),
        ("cloudkms.cryptoKeyVersions.useToSign", lambda p, key, mac: p.mac(b"value", mac)),
        ("cloudkms.cryptoKeyVersions.list", lambda p, key, mac: p.mac(b"value", mac)),
    ],
)
async def test_what_is_denied_names_the_permission_that_is_missing(
    permission: str, call: Any, *, provider: GCPKMSProvider, service: FakeCloudKms, ring: str, key: str
) -> None:
    mac = service.create_key("mac", "MAC", ring=ring)
    service.faults.deny(permission)
    found = await caught(call(provider, key, mac))
    assert type(found) is ProviderAuthError
    assert permission in str(found)
    assert not found.retryable


async def test_a_denied_decryption_is_no_decryption_error(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    service.faults.deny()
    assert type(await caught(provider.decrypt(sealed))) is ProviderAuthError


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        ("PERMISSION_DENIED", SECRET, "SERVICE_DISABLED"),
        (
            "FAILED_PRECONDITION",
            "Google Cloud KMS API has not been used in this project before, or it is disabled.",
            "",
        ),
    ],
)
async def test_an_api_that_is_not_enabled_is_told_with_the_command(
    status: str, message: str, reason: str, *, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="googleapis.com")] if reason else []
    service.faults.fail_next(status=status, message=message, details=details)
    found = await caught(provider.encrypt(b"value", key))
    assert "gcloud services enable cloudkms.googleapis.com" in str(found)


async def test_a_project_without_billing_is_told_so(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    details = [error_details_pb2.ErrorInfo(reason="BILLING_DISABLED", domain="googleapis.com")]
    service.faults.fail_next(status="PERMISSION_DENIED", message=SECRET, details=details)
    assert "billing" in str(await caught(provider.encrypt(b"value", key)))


@pytest.mark.parametrize(
    "message",
    [
        "Decryption failed: the ciphertext is invalid.",
        "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
        "Something the service says of a ciphertext in ten years",
    ],
)
async def test_every_refusal_of_a_ciphertext_is_one_error(
    message: str, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    service.faults.fail_next(status="INVALID_ARGUMENT", message=message)
    found = await caught(provider.decrypt(sealed))
    assert type(found) is DecryptionError
    assert str(found) == "decryption failed: wrong key, wrong context or altered bytes"


async def test_an_authority_that_is_not_trusted_is_told_with_the_cure(
    make: Make, service: FakeCloudKms, key: str, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for transport in ("grpc", "rest"):
        for ca_file in (tmp_path / "other.pem", None):
            found = await caught(make(ca_file=ca_file, transport=transport).encrypt(b"value", key))
            assert isinstance(found, ProviderConnectionError)
            assert "TLS" in str(found)
            assert "ca_file" in str(found)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_a_certificate_of_another_host_is_refused(transport: str, make: Make, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with other_host(authority) as endpoint:
        found = await caught(make(endpoint=endpoint, ca_file=tmp_path / "ca.pem", transport=transport).describe(KEY))
    assert isinstance(found, ProviderConnectionError)
    assert "TLS" in str(found)


KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


def other_host(authority: trustme.CA) -> Any:
    """Return a server whose certificate is good for another name than the one it is reached by."""
    import contextlib
    import ssl

    @contextlib.contextmanager
    def run() -> Any:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("kms.example.org").configure_cert(tls)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        with FaultProxy("http://127.0.0.1:9", tls=tls) as proxy:
            yield proxy.url.removeprefix("https://")

    return run()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_an_endpoint_where_nobody_listens_is_unreachable(transport: str, make: Make) -> None:
    found = await caught(make(endpoint="127.0.0.1:9", transport=transport).describe(KEY))
    assert isinstance(found, ProviderConnectionError)
    assert found.retryable


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_no_answer_within_the_timeout_is_no_connection(
    transport: str, make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(transport=transport, timeout_s=1.0)
    await provider.encrypt(b"value", key)
    service.faults.black_hole()
    found = await caught(provider.encrypt(b"value", key))
    assert isinstance(found, ProviderConnectionError)
    assert found.retryable


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>bad gateway</html>", ProviderConnectionError),
        (403, b"<html>the proxy forbids it</html>", ProviderAuthError),
        (404, b"{}", KeyNotFoundError),
        (429, b"[]", ProviderConnectionError),
    ],
)
async def test_an_answer_of_something_in_between_is_read_by_its_status(
    status: int, body: bytes, error: type[KMSError], *, make: Make, service: FakeCloudKms, key: str
) -> None:
    import ssl

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    service.certificate.configure_cert(tls)
    with FaultProxy(f"https://{service.rest_endpoint}", tls=tls) as proxy:
        proxy.fail_next(status=status, body=body)
        provider = make(endpoint=proxy.url, transport="rest")
        assert type(await caught(provider.encrypt(b"value", key))) is error


@pytest.mark.parametrize("problem", ["missing", "no certificate"])
@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_authorities_that_cannot_be_read_are_a_matter_of_configuration(
    problem: str, transport: str, make: Make, tmp_path: Path
) -> None:
    if problem != "missing":
        (tmp_path / "ca.pem").write_text("nothing of the kind")
    found = await caught(make(ca_file=tmp_path / "ca.pem", transport=transport).describe(KEY))
    assert type(found) is ConfigurationError
    assert str(tmp_path / "ca.pem") in str(found)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("encrypt", EncryptionError),
        ("decrypt", DecryptionError),
        ("mac", SigningError),
        ("sign", SigningError),
        ("rotate_key", KeyRotationError),
        ("verify_mac", ProviderConnectionError),
        ("describe", ProviderConnectionError),
    ],
)
def test_what_nobody_foresaw_is_the_operations_own_error(operation: str, error: type[KMSError]) -> None:
    found = error_of(operation, RuntimeError(SECRET))
    assert type(found) is error
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (auth_errors.DefaultCredentialsError(SECRET), ProviderAuthError),
        (auth_errors.RefreshError(SECRET, {"error": "invalid_grant"}), ProviderAuthError),
        (auth_errors.RefreshError(SECRET, retryable=True), ProviderConnectionError),
        (auth_errors.TransportError(SECRET), ProviderConnectionError),
        (auth_errors.TimeoutError(SECRET), ProviderConnectionError),
        (auth_errors.MutualTLSChannelError(SECRET), ProviderAuthError),
        (google_errors.RetryError(SECRET, ValueError()), ProviderConnectionError),
        (google_errors.GoogleAPICallError(SECRET), ProviderConnectionError),
        (ConnectionResetError(SECRET), ProviderConnectionError),
    ],
)
def test_errors_of_credentials_and_of_the_network_are_told_apart(exc: Exception, error: type[KMSError]) -> None:
    found = error_of("encrypt", exc)
    assert type(found) is error
    assert SECRET not in str(found)


@pytest.mark.parametrize("detail", ["text", {"@type": "x/google.rpc.RetryInfo", "retryDelay": "soon"}, {}])
def test_details_that_cannot_be_read_are_passed_over(detail: object) -> None:
    found = error_of("encrypt", google_errors.ResourceExhausted(SECRET, details=[detail]))
    assert isinstance(found, ProviderConnectionError)
    assert found.retry_after_s is None


def test_a_rotation_that_the_service_does_not_make_is_not_supported() -> None:
    exc = google_errors.FailedPrecondition(SECRET)
    assert type(error_of("rotate_key", exc)) is RotationNotSupportedError


def test_the_errors_are_read_without_grpc_being_asked_for() -> None:
    program = "import keystead.providers.gcp.errors, sys; print('grpc' in sys.modules, 'google.auth' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "False False\n"
