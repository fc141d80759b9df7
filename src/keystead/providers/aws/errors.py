"""What AWS, boto3 and the network say when something fails, as Keystead's errors; nothing of their texts is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

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

ROTATIONS: Final = 25
"""How often a key can be rotated on demand, in its whole life."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_CODE: Final = re.compile(r"[A-Za-z0-9._-]{1,96}\Z")
_OF_THE_CLOCK: Final = re.compile(r"Signature (expired|not yet current)\b")
"""How the text begins where the time of a request made its signature invalid: the code is that of a wrong secret."""


class Kind(Enum):
    """What a failure means, whatever was asked for."""

    NOT_FOUND = auto()
    STATE = auto()
    UNREADABLE = auto()
    INVALID_SIGNATURE = auto()
    USAGE = auto()
    UNSUPPORTED = auto()
    INPUT = auto()
    LIMIT = auto()
    CONFLICT = auto()
    DENIED = auto()
    EXPIRED = auto()
    CREDENTIALS = auto()
    NO_CREDENTIALS = auto()
    CLOCK = auto()
    NO_REGION = auto()
    NO_PROFILE = auto()
    CONFIGURATION = auto()
    BUSY = auto()
    UNREACHABLE = auto()
    TLS = auto()
    UNKNOWN = auto()


def _each(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


SERVICE_ERRORS: Final[Mapping[str, Kind]] = {
    **_each(Kind.NOT_FOUND, "NotFoundException"),
    **_each(Kind.STATE, "DisabledException KMSInvalidStateException"),
    **_each(Kind.UNREADABLE, "InvalidCiphertextException IncorrectKeyException"),
    **_each(Kind.INVALID_SIGNATURE, "KMSInvalidMacException KMSInvalidSignatureException"),
    **_each(Kind.USAGE, "InvalidKeyUsageException"),
    **_each(Kind.UNSUPPORTED, "UnsupportedOperationException"),
    **_each(
        Kind.INPUT,
        "InvalidArnException InvalidMarkerException InvalidAliasNameException InvalidGrantIdException "
        "MalformedPolicyDocumentException TagException AlreadyExistsException DryRunOperationException "
        "ExpiredImportTokenException InvalidImportTokenException IncorrectKeyMaterialException ValidationException "
        "ValidationError SerializationException UnknownOperationException InvalidAction MissingParameter",
    ),
    **_each(Kind.LIMIT, "LimitExceededException"),
    **_each(Kind.CONFLICT, "ConflictException"),
    **_each(
        Kind.DENIED,
        "AccessDeniedException AccessDenied NotAuthorized OptInRequired UnauthorizedOperation "
        "InvalidGrantTokenException",
    ),
    **_each(Kind.EXPIRED, "ExpiredTokenException ExpiredToken UnrecognizedClientException InvalidClientTokenId"),
    **_each(
        Kind.CREDENTIALS,
        "InvalidSignatureException SignatureDoesNotMatch IncompleteSignature IncompleteSignatureException "
        "MissingAuthenticationToken MissingAuthenticationTokenException InvalidAccessKeyId",
    ),
    **_each(Kind.CLOCK, "RequestExpired RequestTimeTooSkewed RequestInTheFuture"),
    **_each(
        Kind.BUSY,
        "ThrottlingException Throttling ThrottledException RequestThrottled RequestThrottledException "
        "RequestLimitExceeded TooManyRequestsException SlowDown KeyUnavailableException DependencyTimeoutException "
        "KMSInternalException InternalFailure InternalError InternalServerError ServiceUnavailable "
        "ServiceUnavailableException RequestTimeout RequestTimeoutException RequestAbortedException",
    ),
    # Of key stores that the key's owner runs. Cryptography with such a key fails as KMSInvalidStateException.
    **_each(
        Kind.STATE,
        "CloudHsmClusterInUseException CloudHsmClusterInvalidConfigurationException CloudHsmClusterNotActiveException "
        "CloudHsmClusterNotFoundException CloudHsmClusterNotRelatedException CustomKeyStoreHasCMKsException "
        "CustomKeyStoreInvalidStateException CustomKeyStoreNameInUseException CustomKeyStoreNotFoundException "
        "IncorrectTrustAnchorException XksKeyAlreadyInUseException XksKeyInvalidConfigurationException "
        "XksKeyNotFoundException XksProxyIncorrectAuthenticationCredentialException "
        "XksProxyInvalidConfigurationException XksProxyInvalidResponseException XksProxyUriEndpointInUseException "
        "XksProxyUriInUseException XksProxyUriUnreachableException XksProxyVpcEndpointServiceInUseException "
        "XksProxyVpcEndpointServiceInvalidConfigurationException XksProxyVpcEndpointServiceNotFoundException",
    ),
}
"""AWS's error codes: each of the KMS model, and those that every service of AWS may answer."""

SDK_ERRORS: Final[Mapping[str, Kind]] = {
    **_each(Kind.TLS, "SSLError"),
    **_each(
        Kind.UNREACHABLE,
        "HTTPClientError ConnectionError IncompleteReadError ResponseParserError ChecksumError FlexibleChecksumError "
        "CapacityNotAvailableError MetadataRetrievalError CredentialRetrievalError",
    ),
    **_each(Kind.NO_CREDENTIALS, "NoCredentialsError NoAuthTokenError"),
    **_each(
        Kind.CREDENTIALS,
        "PartialCredentialsError TokenRetrievalError UnknownTokenProviderError UnknownCredentialError SSOError "
        "LoginError RefreshWithMFAUnsupportedError",
    ),
    **_each(Kind.NO_REGION, "NoRegionError"),
    **_each(Kind.NO_PROFILE, "ProfileNotFound"),
    **_each(
        Kind.CONFIGURATION,
        "BaseEndpointResolverError EndpointProviderError InvalidRegionError UnknownRegionError "
        "ConfigParseError ConfigNotFound InvalidConfigError InvalidProxiesConfigError InvalidDefaultsMode "
        "InvalidRetryConfigurationError InvalidSTSRegionalEndpointsConfigError InvalidEndpointConfigurationError "
        "InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidChecksumConfigError InvalidHostLabelError "
        "MissingDependencyException DataNotFoundError ServiceNotInRegionError",
    ),
    **_each(Kind.INPUT, "ParamValidationError ValidationError MissingParametersError"),
    **_each(Kind.UNREACHABLE, "OSError"),
}
"""Exceptions of botocore by the name of their class or of one they are made from, the nearest first."""

_FAILED: Final[Mapping[str, type[KMSError]]] = {
    "encrypt": EncryptionError,
    "generate_data_key": EncryptionError,
    "re_encrypt": EncryptionError,
    "decrypt": DecryptionError,
    "rotate_key_on_demand": KeyRotationError,
    "generate_mac": SigningError,
    "sign": SigningError,
}
"""What an operation fails with for a reason that has no class of its own; the others could not be made."""
_READING: Final = frozenset({"decrypt", "re_encrypt"})
_LACKING: Final = frozenset({Kind.NO_CREDENTIALS, Kind.NO_REGION, Kind.NO_PROFILE})
"""What this machine lacks, whatever was asked for: nothing was sent."""
_USAGE: Final[Mapping[str, str]] = {
    "encrypt": "a symmetric encryption key; an RSA key cannot bind a context",
    "generate_data_key": "a symmetric encryption key; an RSA key cannot bind a context",
    "generate_mac": "an HMAC key, and the algorithm of its key spec",
    "verify_mac": "an HMAC key, and the algorithm of its key spec",
    "sign": "an asymmetric key for signing, and one of the algorithms of its key spec",
    "get_public_key": "an asymmetric key",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, as far as Keystead keeps it: codes and names, never a text.

    Attributes:
        kind: what it means.
        code: AWS's error code, or the name of the SDK's exception.
        operation: of boto3's client, as in ``generate_mac``.
        action: of AWS, as in ``GenerateMac``; another than the operation's own is one of the credential chain.
        is_of_chain: whether the credential chain failed, before KMS was asked.
    """

    kind: Kind
    code: str
    operation: str
    action: str
    is_of_chain: bool = False
    request_id: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, exc: Exception, operation: str, action: str) -> Failure:
        """Return what is kept of ``exc``."""
        response = getattr(exc, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            return cls._of_answer(response, operation, action, str(getattr(exc, "operation_name", action)))
        names = [each.__name__ for each in type(exc).__mro__]
        kind = next((SDK_ERRORS[name] for name in names if name in SDK_ERRORS), Kind.UNKNOWN)
        return cls(kind, names[0], operation, action)

    @classmethod
    def _of_answer(cls, response: Mapping[str, Any], operation: str, action: str, asked: str) -> Failure:
        metadata = response.get("ResponseMetadata") or {}
        headers = metadata.get("HTTPHeaders") or {}
        code, request_id = str(response["Error"].get("Code", "")), str(metadata.get("RequestId", ""))
        kind = _kind(code, int(metadata.get("HTTPStatusCode", 0)))
        if kind is Kind.CREDENTIALS and _OF_THE_CLOCK.match(str(response["Error"].get("Message", ""))):
            kind = Kind.CLOCK
        return cls(
            kind=kind,
            code=code if _CODE.match(code) else "an unknown code",
            operation=operation,
            action=asked if _CODE.match(asked) else action,
            is_of_chain=asked != action,
            request_id=request_id if _REQUEST_ID.match(request_id) else None,
            retry_after_s=_seconds(headers.get("retry-after")),
        )

    def error(self) -> KMSError:
        """Return the error of ours that tells this."""
        if self.is_of_chain:
            return self._error_of_chain()
        kind, operation = self.kind, self.operation
        # What is decrypted names its key itself: a name that cannot be is an altered record.
        if operation in _READING and kind in {Kind.UNREADABLE, Kind.USAGE, Kind.INPUT, Kind.UNSUPPORTED}:
            return DecryptionError("decryption failed")
        if operation == "rotate_key_on_demand" and kind in _ROTATION:
            error, text = _ROTATION[kind]
            return error(f"{text} ({self._where()})")
        if kind in {Kind.BUSY, Kind.LIMIT}:
            return ProviderConnectionError(
                f"AWS KMS is busy or throttles: {self._where()}", retry_after_s=self.retry_after_s
            )
        if kind in _TEXTS:
            chosen, text = _TEXTS[kind]
            text = text.format(action=self.action, usage=_USAGE.get(operation, "a key for another use"))
            return chosen(text if kind in _LACKING else f"{text} ({self._where()})")
        failed = _FAILED.get(operation, ProviderConnectionError)
        return failed(f"AWS KMS failed {self._where()}")

    def _error_of_chain(self) -> KMSError:
        if self.kind is Kind.BUSY:
            return ProviderConnectionError(f"AWS is busy or throttles: {self._where()}")
        if self.kind is Kind.CLOCK:
            return ProviderAuthError(f"{_TEXTS[Kind.CLOCK][1]} ({self._where()})")
        return ProviderAuthError(
            f"AWS gave no credentials: it refused {self.action}; look at the role, its trust policy and the profile "
            f"({self._where()})"
        )

    def _where(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.action}: {self.code}{request}"


_TEXTS: Final[Mapping[Kind, tuple[type[KMSError], str]]] = {
    Kind.NOT_FOUND: (
        KeyNotFoundError,
        "AWS KMS has no such key in this account and Region; check key id, alias and region. A key or alias made "
        "just now may take some seconds to be found",
    ),
    Kind.STATE: (
        KeyStateError,
        "the key cannot be used: it is disabled, pending deletion or import, or its key store is not connected; "
        "`describe` tells. Enable it, cancel the deletion, or import its material",
    ),
    Kind.UNREADABLE: (DecryptionError, "decryption failed"),
    Kind.INVALID_SIGNATURE: (InvalidSignatureError, "the signature is not of these bytes under this key"),
    Kind.USAGE: (InvalidInputError, "the key is not one for {action}, which needs {usage}"),
    Kind.UNSUPPORTED: (InvalidInputError, "AWS KMS cannot do {action} with this kind of key; it needs {usage}"),
    Kind.INPUT: (InvalidInputError, "AWS KMS takes no such {action}: check key id, and the size of context and input"),
    Kind.DENIED: (
        ProviderAuthError,
        "AWS KMS denies kms:{action} to these credentials, or for this key or context; the documentation of the AWS "
        "provider has the policy that allows it",
    ),
    Kind.EXPIRED: (
        ProviderAuthError,
        "the AWS credentials have expired or are revoked; renew them where they come from (aws sso login, the role, "
        "the profile), or give access_key, secret_key and session_token anew",
    ),
    Kind.CREDENTIALS: (
        ProviderAuthError,
        "the AWS credentials do not work: check profile, role and keys, and sign in again where they come from a "
        "session",
    ),
    Kind.NO_CREDENTIALS: (
        ProviderAuthError,
        "no AWS credentials were found: run under a role, set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or give profile= or access_key= and secret_key=",
    ),
    Kind.CLOCK: (ProviderAuthError, "AWS refuses the time of the request: set this machine's clock"),
    Kind.NO_REGION: (
        ConfigurationError,
        "no AWS Region is set: name it in the URI (?region=eu-west-1) or as region=, or set AWS_DEFAULT_REGION (boto3 "
        "does not read AWS_REGION) or the region of the profile",
    ),
    Kind.NO_PROFILE: (
        ConfigurationError,
        "the AWS profile is in no AWS configuration file: correct ?profile=, profile= or AWS_PROFILE, or make it by "
        "aws configure",
    ),
    Kind.CONFIGURATION: (
        ConfigurationError,
        "boto3 cannot be set up: check region, endpoint, profile and the AWS configuration files",
    ),
    Kind.TLS: (
        ProviderConnectionError,
        "the TLS connection to AWS KMS failed: check the endpoint's certificate, AWS_CA_BUNDLE and the clock",
    ),
    Kind.UNREACHABLE: (
        ProviderConnectionError,
        "AWS KMS, or where its credentials come from, cannot be reached; check network, proxy, endpoint and region",
    ),
}

_ROTATION: Final[Mapping[Kind, tuple[type[KMSError], str]]] = {
    Kind.LIMIT: (
        RotationNotSupportedError,
        f"the key has been rotated on demand as often as AWS allows in its whole life ({ROTATIONS} times): make a new "
        "key, move the alias to it and rewrap, or let AWS rotate it on a schedule",
    ),
    Kind.UNSUPPORTED: (
        RotationNotSupportedError,
        "AWS rotates symmetric encryption keys on demand, the primary key of a multi-Region set, and no key of a "
        "custom key store: make a new key, move the alias to it and rewrap",
    ),
    Kind.CONFLICT: (
        KeyRotationError,
        "a rotation of the key is under way, or its scheduled one begins within 20 minutes; try again after it",
    ),
}


def _kind(code: str, status: int) -> Kind:
    if status == 501:
        return Kind.UNSUPPORTED  # of an emulator, whatever code it gives
    if code in SERVICE_ERRORS:
        return SERVICE_ERRORS[code]
    if status == 429 or status >= 500:
        return Kind.BUSY
    return Kind.DENIED if status in {401, 403} else Kind.UNKNOWN


def _seconds(text: object) -> float | None:
    try:
        seconds = float(str(text))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 3600 else None
