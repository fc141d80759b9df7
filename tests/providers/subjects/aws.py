"""AWS KMS on moto and on ministack, each for what it does as AWS does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from keystead.errors import DecryptionError, ProviderAuthError
from keystead.model import SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    Closes,
    ComputesMacs,
    DescribesKeys,
    GeneratesDataKeys,
    ReadsForeignData,
    ReportsRotationPolicy,
    RewrapsCiphertexts,
    RotatesKeys,
    SignsMessages,
    TellsTime,
)
from keystead.providers.aws.provider import AWSKMSProvider
from keystead.testing.fault_proxy import FaultProxy
from tests.providers.subjects.subject import Harness, Subject
from tests.services.aws import IS_AWS, IS_MOTO, AwsService

CAPABILITIES: Final = frozenset(
    {
        ChecksPermissions,
        Closes,
        ComputesMacs,
        DescribesKeys,
        GeneratesDataKeys,
        ReadsForeignData,
        ReportsRotationPolicy,
        RewrapsCiphertexts,
        RotatesKeys,
        SignsMessages,
        TellsTime,
    }
)
FAULTS: Final = frozenset({"throttle_next", "fail_next", "black_hole", "expire_credentials"})
HMAC: Final = {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}
SIGNING_SPECS: Final = {
    SignatureAlgorithm.ED25519: "ECC_NIST_EDWARDS25519",
    SignatureAlgorithm.ECDSA_SHA_256: "ECC_NIST_P256",
    SignatureAlgorithm.ECDSA_SHA_384: "ECC_NIST_P384",
    SignatureAlgorithm.ECDSA_SHA_512: "ECC_NIST_P521",
    SignatureAlgorithm.RSA_PSS_SHA_256: "RSA_2048",
    SignatureAlgorithm.RSA_PSS_SHA_384: "RSA_2048",
    SignatureAlgorithm.RSA_PSS_SHA_512: "RSA_2048",
    SignatureAlgorithm.RSA_PKCS1_SHA_256: "RSA_2048",
    SignatureAlgorithm.RSA_PKCS1_SHA_384: "RSA_2048",
    SignatureAlgorithm.RSA_PKCS1_SHA_512: "RSA_2048",
}


def error_body(code: str, message: str = "what AWS says of it") -> bytes:
    """Return the body of an error as AWS's JSON protocol has it."""
    return json.dumps({"__type": code, "message": message}).encode()


class ProxyFaults:
    """The faults of the proxy in front of an emulator, in AWS's words."""

    def __init__(self, service: AwsService, proxy: FaultProxy) -> None:
        self._service = service
        self._proxy = proxy

    def refuse_next(self, count: int, code: str, *, status: int = 400) -> None:
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "11111111-2222-3333"}
        self._proxy.fail_next(count, status=status, body=error_body(code), headers=headers)

    def throttle_next(self, count: int) -> None:
        self.refuse_next(count, "ThrottlingException")

    def fail_next(self, count: int) -> None:
        self.refuse_next(count, "KMSInternalException", status=500)

    def black_hole(self) -> None:
        self._proxy.black_hole()

    def heal(self) -> None:
        self._proxy.heal()
        self._service.write_credentials("FIRST")

    def calls(self) -> int:
        return len(self._proxy.requests)

    def expire_credentials(self) -> None:
        self._service.write_credentials("SECOND")
        self.refuse_next(1, "ExpiredTokenException")

    def disable(self, key_id: str) -> None:
        self._service.admin.disable_key(KeyId=key_id)

    def destroy(self, key_id: str) -> None:
        self._service.admin.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)


def faults_of(service: AwsService) -> ProxyFaults | None:
    return None if service.proxy is None else ProxyFaults(service, service.proxy)


def _symmetric(folder: Path, service: AwsService) -> Subject:
    first = service.point("conformance", service.key("first"))
    service.key("second")
    return Subject(
        AWSKMSProvider(service.config()),
        key_id=first,
        other_key_id=service.key("second"),
        mac_key_id=service.key("mac", **HMAC),
        signing_keys={SignatureAlgorithm.ECDSA_SHA_256: signing_key(service, SignatureAlgorithm.ECDSA_SHA_256)},
        faults=faults_of(service),
    )


def _asymmetric(folder: Path, service: AwsService) -> Subject:
    return Subject(
        AWSKMSProvider(service.config()),
        mac_key_id=service.key("mac", **HMAC),
        signing_keys={algorithm: signing_key(service, algorithm) for algorithm in SIGNING_SPECS},
        faults=faults_of(service),
    )


def signing_key(service: AwsService, algorithm: SignatureAlgorithm) -> str:
    """Return a key that signs by ``algorithm``; RSA keys sign by several."""
    spec = SIGNING_SPECS[algorithm]
    return service.key(spec, KeySpec=spec, KeyUsage="SIGN_VERIFY")


HARNESSES: Final = {
    "aws-moto": Harness(
        _symmetric,
        service="moto",
        capabilities=CAPABILITIES,
        faults=frozenset() if IS_AWS else FAULTS,
        sizes=(1, 32, 4096),
        too_long=4097,
        rotates=True,
        rotates_mac_keys=False,
        names_versions=False,
        answers_key_id=False,
        algorithms=(SignatureAlgorithm.ECDSA_SHA_256,),
        signs_digests=not IS_MOTO,
        # Moto calls both denied what AWS calls IncorrectKeyException.
        wrong_key=(DecryptionError, ProviderAuthError) if IS_MOTO else (DecryptionError,),
    ),
    "aws-ministack": Harness(
        _asymmetric,
        service="ministack",
        capabilities=CAPABILITIES,
        rotates_mac_keys=False,
        names_versions=False,
        answers_key_id=False,
        algorithms=tuple(SIGNING_SPECS),
        encrypts=False,
    ),
}
