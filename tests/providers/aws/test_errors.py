"""Whatever AWS, boto3 or the network says becomes one of Keystead's errors, and nothing of its text is kept."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import botocore.exceptions
import botocore.parsers
import botocore.session
import pytest
from botocore.exceptions import ClientError

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
    SigningError,
)
from keystead.providers.aws.errors import SERVICE_ERRORS, Failure, Kind
from keystead.providers.aws.provider import AWSKMSProvider
from tests.fakes.aws_wire import REQUEST_ID, AwsWire, Reply
from tests.providers.aws.keys import ARN, mac_of, metadata, sealed

LEAK = "a text that must never be seen"
OPERATIONS = {
    "encrypt": "Encrypt",
    "decrypt": "Decrypt",
    "generate_data_key": "GenerateDataKey",
    "re_encrypt": "ReEncrypt",
    "describe_key": "DescribeKey",
    "rotate_key_on_demand": "RotateKeyOnDemand",
    "get_key_rotation_status": "GetKeyRotationStatus",
    "list_key_rotations": "ListKeyRotations",
    "generate_mac": "GenerateMac",
    "verify_mac": "VerifyMac",
    "sign": "Sign",
    "get_public_key": "GetPublicKey",
}


def model() -> Any:
    return botocore.session.Session().get_service_model("kms")


def client_error(
    code: str, operation: str = "encrypt", *, status: int = 400, headers: Mapping[str, str] | None = None
) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": LEAK},
        "ResponseMetadata": {"RequestId": REQUEST_ID, "HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(response, OPERATIONS.get(operation, operation))


def error_of(exc: Exception, operation: str = "encrypt") -> KMSError:
    return Failure.of(exc, operation, OPERATIONS[operation]).error()


def test_every_error_of_the_kms_model_has_a_mapping() -> None:
    names = {shape.name for shape in model().error_shapes}
    assert names - set(SERVICE_ERRORS) == set()
    assert len(names) > 45


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_error_an_operation_declares_becomes_one_of_ours(operation: str) -> None:
    declared = [shape.name for shape in model().operation_model(OPERATIONS[operation]).error_shapes]
    for code in declared:
        error = error_of(client_error(code, operation), operation)
        assert type(error) is not KMSError
        assert LEAK not in str(error)
        if not isinstance(error, DecryptionError | InvalidSignatureError):
            assert code in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "Signature expired: 20260522T115159Z is now earlier than 20260522T120519Z (20260522T121019Z - 5 min.)",
        "Signature not yet current: 20260731T092200Z is still later than 20260731T092115Z (20260731T091615Z + 5 min.)",
    ],
)
@pytest.mark.parametrize(
    ("code", "operation_name"), [("InvalidSignatureException", "Encrypt"), ("SignatureDoesNotMatch", "AssumeRole")]
)
def test_a_clock_that_is_wrong_is_told_from_a_secret_that_is(code: str, operation_name: str, text: str) -> None:
    response: dict[str, Any] = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = error_of(ClientError(response, operation_name))
    assert isinstance(error, ProviderAuthError)
    assert "set this machine's clock" in str(error)
    assert text[:30] not in str(error)
    response["Error"]["Message"] = "The request signature we calculated does not match the signature you provided."
    assert "clock" not in str(error_of(ClientError(response, operation_name)))


BOTOCORE = [
    kind
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)
    if issubclass(kind, botocore.exceptions.BotoCoreError)
]


class _Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return LEAK


def botocore_error(kind: type[Exception]) -> Exception:
    """Return an exception of botocore's whose text is whatever it formats into it."""
    exc = kind.__new__(kind)
    Exception.__init__(exc, LEAK)
    return exc


@pytest.mark.parametrize("kind", BOTOCORE, ids=lambda kind: kind.__name__)
def test_every_exception_of_botocore_becomes_one_of_ours_without_its_text(kind: type[Exception]) -> None:
    for operation in OPERATIONS:
        error = error_of(botocore_error(kind), operation)
        assert type(error) is not KMSError
        assert LEAK not in str(error)


@pytest.mark.parametrize(
    ("name", "expected", "match"),
    [
        ("EndpointConnectionError", ProviderConnectionError, "cannot be reached"),
        ("ConnectTimeoutError", ProviderConnectionError, "cannot be reached"),
        ("ReadTimeoutError", ProviderConnectionError, "cannot be reached"),
        ("ConnectionClosedError", ProviderConnectionError, "cannot be reached"),
        ("ProxyConnectionError", ProviderConnectionError, "proxy"),
        ("HTTPClientError", ProviderConnectionError, "cannot be reached"),
        ("ResponseStreamingError", ProviderConnectionError, "cannot be reached"),
        ("IncompleteReadError", ProviderConnectionError, "cannot be reached"),
        ("SSLError", ProviderConnectionError, "TLS connection .* AWS_CA_BUNDLE"),
        ("CredentialRetrievalError", ProviderConnectionError, "where its credentials come from"),
        ("MetadataRetrievalError", ProviderConnectionError, "where its credentials come from"),
        ("NoCredentialsError", ProviderAuthError, "no AWS credentials were found: .*AWS_PROFILE"),
        ("PartialCredentialsError", ProviderAuthError, "do not work"),
        ("TokenRetrievalError", ProviderAuthError, "sign in again"),
        ("SSOTokenLoadError", ProviderAuthError, "sign in again"),
        ("UnauthorizedSSOTokenError", ProviderAuthError, "sign in again"),
        ("LoginRefreshRequired", ProviderAuthError, "sign in again"),
        ("NoRegionError", ConfigurationError, r"no AWS Region is set: .*\?region=.*AWS_DEFAULT_REGION"),
        ("InvalidRegionError", ConfigurationError, "region"),
        ("ProfileNotFound", ConfigurationError, r"profile .*\?profile=.*AWS_PROFILE"),
        ("ConfigParseError", ConfigurationError, "configuration files"),
        ("UnknownEndpointError", ConfigurationError, "region"),
        ("ParamValidationError", InvalidInputError, "takes no such"),
        ("UnknownSignatureVersionError", EncryptionError, "UnknownSignatureVersionError"),
    ],
)
def test_an_exception_of_botocore_names_the_cure(name: str, expected: type[KMSError], match: str) -> None:
    error = error_of(botocore_error(getattr(botocore.exceptions, name)))
    with pytest.raises(expected, match=match):
        raise error
    assert error.retryable is (expected is ProviderConnectionError)


@pytest.mark.parametrize("name", ["NoRegionError", "ProfileNotFound", "NoCredentialsError"])
def test_what_this_machine_lacks_is_told_without_the_name_of_an_exception(name: str) -> None:
    assert name not in str(error_of(botocore_error(getattr(botocore.exceptions, name))))


@pytest.mark.parametrize("exc", [botocore.parsers.ResponseParserError(LEAK), OSError(LEAK), ConnectionResetError(LEAK)])
def test_an_answer_that_is_none_is_a_failure_of_the_connection(exc: Exception) -> None:
    error = error_of(exc, "decrypt")
    assert isinstance(error, ProviderConnectionError)
    assert error.retryable
    assert LEAK not in str(error)


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "DependencyTimeoutException",
        "KMSInternalException",
        "KeyUnavailableException",
        "InternalFailure",
        "ServiceUnavailable",
    ],
)
def test_what_passes_by_itself_may_be_tried_again(code: str) -> None:
    for operation in ("encrypt", "decrypt", "generate_data_key", "describe_key", "sign", "verify_mac"):
        error = error_of(client_error(code, operation), operation)
        assert isinstance(error, ProviderConnectionError)
        assert not isinstance(error, ProviderAuthError)
        assert error.retryable


def test_how_long_aws_asks_to_be_left_alone_is_told() -> None:
    exc = client_error("ThrottlingException", headers={"retry-after": "7"})
    assert getattr(error_of(exc), "retry_after_s", None) == 7.0


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "inf", "99999999", "nan"])
def test_a_pause_that_is_no_pause_is_not_told(text: str) -> None:
    exc = client_error("ThrottlingException", headers={"retry-after": text})
    assert getattr(error_of(exc), "retry_after_s", None) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, ProviderConnectionError),
        (503, ProviderConnectionError),
        (429, ProviderConnectionError),
        (401, ProviderAuthError),
        (403, ProviderAuthError),
        (400, EncryptionError),
        (418, EncryptionError),
    ],
)
def test_an_unknown_code_is_judged_by_its_status(status: int, expected: type[KMSError]) -> None:
    assert type(error_of(client_error("SomethingNew", status=status))) is expected


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationTokenException",
        "RequestTimeTooSkewed",
    ],
)
def test_a_denial_is_no_outage(code: str) -> None:
    for operation in OPERATIONS:
        error = error_of(client_error(code, operation), operation)
        assert isinstance(error, ProviderAuthError)
        assert not error.retryable


def test_a_denial_names_the_permission_that_is_missing() -> None:
    error = error_of(client_error("AccessDeniedException", "rotate_key_on_demand"), "rotate_key_on_demand")
    assert "kms:RotateKeyOnDemand" in str(error)


def test_an_error_names_the_request_for_those_who_ask_aws_about_it() -> None:
    assert REQUEST_ID in str(error_of(client_error("NotFoundException")))


def test_codes_and_request_ids_that_are_none_are_not_repeated() -> None:
    exc = client_error(LEAK, status=500)
    exc.response["ResponseMetadata"]["RequestId"] = LEAK
    assert LEAK not in str(error_of(exc))


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException", "InvalidKeyUsageException"])
@pytest.mark.parametrize("operation", ["decrypt", "re_encrypt"])
def test_wrong_key_wrong_context_and_altered_bytes_are_one_error(code: str, operation: str) -> None:
    error = error_of(client_error(code, operation), operation)
    assert type(error) is DecryptionError
    assert str(error) == "decryption failed"


@pytest.mark.parametrize("code", ["KMSInvalidMacException", "KMSInvalidSignatureException"])
def test_an_invalid_signature_is_that(code: str) -> None:
    assert isinstance(error_of(client_error(code, "verify_mac"), "verify_mac"), InvalidSignatureError)


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "KMSInternalException", "Surprise"])
def test_what_could_not_be_verified_is_not_called_invalid(code: str) -> None:
    error = error_of(client_error(code, "verify_mac"), "verify_mac")
    assert isinstance(error, ProviderConnectionError)


@pytest.mark.parametrize(
    ("code", "expected", "is_retryable"),
    [
        ("LimitExceededException", RotationNotSupportedError, False),
        ("UnsupportedOperationException", RotationNotSupportedError, False),
        ("ConflictException", KeyRotationError, True),
        ("DisabledException", KeyStateError, False),
        ("KMSInvalidStateException", KeyStateError, False),
    ],
)
def test_a_rotation_that_is_refused_says_whether_to_wait(
    code: str, expected: type[KMSError], is_retryable: bool
) -> None:
    error = error_of(client_error(code, "rotate_key_on_demand"), "rotate_key_on_demand")
    assert type(error) is expected
    assert error.retryable is is_retryable


def test_a_failure_of_the_credential_chain_names_its_step() -> None:
    error = error_of(client_error("AccessDenied", "AssumeRole", status=403), "encrypt")
    assert isinstance(error, ProviderAuthError)
    assert "AssumeRole" in str(error)
    assert isinstance(error_of(client_error("Throttling", "AssumeRole"), "decrypt"), ProviderConnectionError)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("generate_mac", SigningError), ("sign", SigningError), ("rotate_key_on_demand", KeyRotationError)],
)
def test_an_unknown_failure_is_its_operations_own(operation: str, expected: type[KMSError]) -> None:
    assert type(error_of(client_error("Surprise", operation), operation)) is expected


def test_every_kind_has_a_text() -> None:
    for kind in Kind:
        for operation, action in OPERATIONS.items():
            assert str(Failure(kind, "SomeCode", operation, action).error())


CALLS: dict[str, Callable[[AWSKMSProvider], Awaitable[object]]] = {
    "Encrypt": lambda aws: aws.encrypt(b"value", ARN),
    "Decrypt": lambda aws: aws.decrypt(sealed()),
    "GenerateDataKey": lambda aws: aws.generate_data_key(ARN),
    "ReEncrypt": lambda aws: aws.rewrap(sealed()),
    "DescribeKey": lambda aws: aws.describe(ARN),
    "GenerateMac": lambda aws: aws.mac(b"m", ARN, algorithm=mac_of().algorithm),
    "VerifyMac": lambda aws: aws.verify_mac(b"m", mac_of()),
    "GetPublicKey": lambda aws: aws.public_key(ARN),
    "GetKeyRotationStatus": lambda aws: aws.get_rotation_policy(ARN),
}


@pytest.mark.parametrize("action", CALLS)
async def test_no_exception_of_the_sdk_travels_with_ours(aws: AWSKMSProvider, wire: AwsWire, action: str) -> None:
    wire.refuse(action, "NotFoundException", message=LEAK)
    with pytest.raises(KeyNotFoundError) as caught:
        await CALLS[action](aws)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert LEAK not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("state", ["DisabledException", "KMSInvalidStateException"])
@pytest.mark.parametrize("action", ["Encrypt", "Decrypt", "GenerateDataKey", "ReEncrypt", "GenerateMac", "VerifyMac"])
async def test_a_key_that_cannot_be_used_is_a_key_state(
    aws: AWSKMSProvider, wire: AwsWire, action: str, state: str
) -> None:
    wire.refuse(action, state)
    with pytest.raises(KeyStateError, match="pending deletion or import") as caught:
        await CALLS[action](aws)
    assert not caught.value.retryable


async def test_key_material_that_is_unavailable_may_be_asked_again(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.refuse("Decrypt", "KeyUnavailableException", status=500)
    with pytest.raises(ProviderConnectionError) as caught:
        await aws.decrypt(sealed())
    assert caught.value.retryable


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"{ this is no JSON", {"Content-Type": "application/x-amz-json-1.1"}),
        Reply(200, b"<html>a captive portal</html>", {"Content-Type": "text/html"}),
        Reply(200, b"{}", {}),
        Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
        Reply(503, b"", {}),
    ],
)
async def test_an_answer_of_something_else_than_kms_is_a_failure_of_the_connection(
    aws: AWSKMSProvider, wire: AwsWire, reply: Reply
) -> None:
    for action in ("Encrypt", "Decrypt", "GenerateDataKey", "ReEncrypt", "DescribeKey", "GenerateMac"):
        wire.reply(action, reply)
        with pytest.raises(ProviderConnectionError) as caught:
            await CALLS[action](aws)
        assert caught.value.retryable


async def test_a_failed_call_does_not_spoil_the_next(aws: AWSKMSProvider, wire: AwsWire) -> None:
    wire.reply("DescribeKey", Reply(500, b"", {}))
    wire.answer("DescribeKey", **metadata())
    with pytest.raises(ProviderConnectionError):
        await aws.describe(ARN)
    assert (await aws.describe(ARN)).key_reference.key_id == ARN
