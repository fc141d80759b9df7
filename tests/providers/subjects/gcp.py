"""Google Cloud KMS through the vendor's client, over gRPC and over REST."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final

from keystead.model import SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    Closes,
    ComputesMacs,
    DescribesKeys,
    GeneratesDataKeys,
    ReadsForeignData,
    ReportsRotationPolicy,
    RotatesKeys,
    SignsMessages,
)
from keystead.providers.gcp.config import GCPKMSConfig
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.providers.subjects.subject import Harness, Subject

CAPABILITIES: Final = frozenset(
    {
        ChecksPermissions,
        Closes,
        ComputesMacs,
        DescribesKeys,
        GeneratesDataKeys,
        ReadsForeignData,
        ReportsRotationPolicy,
        RotatesKeys,
        SignsMessages,
    }
)
FAULTS: Final = frozenset({"throttle_next", "fail_next", "black_hole", "expire_credentials", "disable", "destroy"})
SIGNERS: Final = {
    SignatureAlgorithm.ED25519: "EC_SIGN_ED25519",
    SignatureAlgorithm.ECDSA_SHA_256: "EC_SIGN_P256_SHA256",
    SignatureAlgorithm.ECDSA_SHA_384: "EC_SIGN_P384_SHA384",
    SignatureAlgorithm.RSA_PSS_SHA_256: "RSA_SIGN_PSS_2048_SHA256",
    SignatureAlgorithm.RSA_PSS_SHA_512: "RSA_SIGN_PSS_4096_SHA512",
    SignatureAlgorithm.RSA_PKCS1_SHA_256: "RSA_SIGN_PKCS1_2048_SHA256",
    SignatureAlgorithm.RSA_PKCS1_SHA_512: "RSA_SIGN_PKCS1_4096_SHA512",
}

_rings = itertools.count(1)


class GcpFaults:
    """The fake's switches, under the suite's names."""

    def __init__(self, kms: Any) -> None:
        self._kms = kms

    def throttle_next(self, count: int) -> None:
        self._kms.faults.throttle_next(count)

    def fail_next(self, count: int) -> None:
        self._kms.faults.fail_next(count)

    def black_hole(self) -> None:
        self._kms.faults.black_hole()

    def heal(self) -> None:
        self._kms.faults.heal()

    def calls(self) -> int:
        return sum(self._kms.faults.calls.values())

    def expire_credentials(self) -> None:
        self._kms.tokens.revoke_all()

    def disable(self, key_id: str) -> None:
        self._kms.set_state(key_id, "DISABLED")

    def destroy(self, key_id: str) -> None:
        self._kms.set_state(key_id, "DESTROYED")


def config_of(kms: Any, **settings: Any) -> GCPKMSConfig:
    """Return what reaches the fake as production is reached: by an endpoint, a CA and a credentials file."""
    endpoint = kms.rest_endpoint if settings.get("transport") == "rest" else kms.endpoint
    given = {"endpoint": endpoint, "ca_file": kms.ca_file, "credentials_file": kms.credentials_file, **settings}
    return GCPKMSConfig(**given)


def _make(kms: Any, config: GCPKMSConfig) -> Subject:
    ring = kms.create_ring(f"conformance-{next(_rings)}")
    signing_keys = {
        ours: kms.create_key(f"signer-{name}"[:63], "ASYMMETRIC_SIGN", name, ring=ring)
        for ours, name in SIGNERS.items()
    }
    return Subject(
        GCPKMSProvider(config),
        key_id=kms.create_key("first", ring=ring),
        other_key_id=kms.create_key("second", ring=ring),
        mac_key_id=kms.create_key("mac", "MAC", ring=ring),
        signing_keys=signing_keys,
        faults=GcpFaults(kms),
    )


def _grpc(folder: Path, service: Any) -> Subject:
    return _make(service, config_of(service))


def _rest(folder: Path, service: Any) -> Subject:
    return _make(service, config_of(service, transport="rest"))


def _harness(make: Any) -> Harness:
    return Harness(
        make,
        service="cloud_kms",
        capabilities=CAPABILITIES,
        faults=FAULTS,
        sizes=(0, 1, 32, 4096, 65536),
        too_long=65537,
        rotates=True,
        algorithms=tuple(SIGNERS),
    )


HARNESSES: Final = {"gcp": _harness(_grpc), "gcp-rest": _harness(_rest)}
