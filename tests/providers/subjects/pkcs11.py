"""A token behind SoftHSM2: under AES-GCM, and under a key that only wraps."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keystead.model import SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    Closes,
    ComputesMacBatches,
    ComputesMacs,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    ReportsRotationPolicy,
    RotatesKeys,
    SignsBatches,
    SignsMessages,
    TellsExtractability,
)
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.subjects.subject import Harness, Subject
from tests.services.softhsm import EDWARDS25519, P256, P384, P521, SoftHsm

CAPABILITIES: Final = frozenset(
    {
        ChecksPermissions,
        Closes,
        ComputesMacBatches,
        ComputesMacs,
        DescribesKeys,
        EncryptsBatches,
        GeneratesDataKeys,
        ReportsRotationPolicy,
        RotatesKeys,
        SignsBatches,
        SignsMessages,
        TellsExtractability,
    }
)
ALGORITHMS: Final = tuple(each for each in SignatureAlgorithm if not each.is_mac)


class TokenFaults:
    """What an administrator does to keys, at the token itself."""

    def __init__(self, hsm: SoftHsm, keys: list[str]) -> None:
        self._hsm = hsm
        self._keys = keys

    def disable(self, key_id: str) -> None:
        self._hsm.set_attributes(key_id, ENCRYPT=False, DECRYPT=False, WRAP=False, UNWRAP=False)

    def destroy(self, key_id: str) -> None:
        self._hsm.destroy(key_id)

    def calls(self) -> int:
        return self._hsm.module.worker.turns

    def heal(self) -> None:
        for key in self._keys:
            self._hsm.destroy(key)

    def throttle_next(self, count: int) -> None:
        raise NotImplementedError

    def fail_next(self, count: int) -> None:
        raise NotImplementedError

    def black_hole(self) -> None:
        raise NotImplementedError

    def expire_credentials(self) -> None:
        raise NotImplementedError


def _subject(hsm: SoftHsm, uses: str) -> Subject:
    keys = [hsm.make_aes(uses=uses), hsm.make_aes(uses=uses), hsm.make_secret()]
    return Subject(
        Pkcs11KMSProvider(hsm.config()),
        key_id=keys[0],
        other_key_id=keys[1],
        mac_key_id=keys[2],
        signing_keys={algorithm: _pair(hsm, algorithm) for algorithm in ALGORITHMS},
        faults=TokenFaults(hsm, keys),
    )


def _pair(hsm: SoftHsm, algorithm: SignatureAlgorithm) -> str:
    if algorithm.value.startswith("RSA"):
        return hsm.shared_pair("RSA", 2048)
    curves = {
        SignatureAlgorithm.ED25519: EDWARDS25519,
        SignatureAlgorithm.ECDSA_SHA_256: P256,
        SignatureAlgorithm.ECDSA_SHA_384: P384,
        SignatureAlgorithm.ECDSA_SHA_512: P521,
    }
    return hsm.shared_pair("EC_EDWARDS" if algorithm is SignatureAlgorithm.ED25519 else "EC", curves[algorithm])


def _of_gcm(folder: Path, service: SoftHsm) -> Subject:
    return _subject(service, "ENCRYPT DECRYPT")


def _of_key_wrap(folder: Path, service: SoftHsm) -> Subject:
    return _subject(service, "WRAP UNWRAP")


HARNESSES: Final = {
    "pkcs11": Harness(
        _of_gcm,
        service="softhsm",
        capabilities=CAPABILITIES,
        faults=frozenset({"disable", "destroy"}),
        sizes=(0, 1, 32, 4096, 65536),
        too_long=65537,
        rotates=True,
        algorithms=ALGORITHMS,
    ),
    "pkcs11-key-wrap": Harness(
        _of_key_wrap,
        service="softhsm",
        capabilities=CAPABILITIES,
        faults=frozenset({"disable", "destroy"}),
        sizes=(0, 1, 32, 4096),
        too_long=4097,
        rotates=True,
        algorithms=(SignatureAlgorithm.ED25519,),
    ),
}
