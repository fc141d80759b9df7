"""Vault's provider on a real OpenBao server, through a proxy whose faults are switches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from keystead.model import SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    Closes,
    ComputesMacBatches,
    ComputesMacs,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    OpensTransitTexts,
    ReadsForeignData,
    ReportsRotationPolicy,
    RewrapsCiphertexts,
    RotatesKeys,
    SignsBatches,
    SignsMessages,
    TellsExtractability,
    TellsTime,
)
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.providers.subjects.subject import Harness, Subject
from tests.services.openbao import AppRole, OpenBao

CAPABILITIES: Final = frozenset(
    {
        ChecksPermissions,
        Closes,
        ComputesMacBatches,
        ComputesMacs,
        DescribesKeys,
        EncryptsBatches,
        GeneratesDataKeys,
        OpensTransitTexts,
        ReadsForeignData,
        ReportsRotationPolicy,
        RewrapsCiphertexts,
        RotatesKeys,
        SignsBatches,
        SignsMessages,
        TellsExtractability,
        TellsTime,
    }
)
TYPE_OF: Final = {
    SignatureAlgorithm.ED25519: "ed25519",
    SignatureAlgorithm.ECDSA_SHA_256: "ecdsa-p256",
    SignatureAlgorithm.ECDSA_SHA_384: "ecdsa-p384",
    SignatureAlgorithm.ECDSA_SHA_512: "ecdsa-p521",
    SignatureAlgorithm.RSA_PSS_SHA_256: "rsa-2048",
    SignatureAlgorithm.RSA_PSS_SHA_384: "rsa-3072",
    SignatureAlgorithm.RSA_PSS_SHA_512: "rsa-4096",
    SignatureAlgorithm.RSA_PKCS1_SHA_256: "rsa-2048",
    SignatureAlgorithm.RSA_PKCS1_SHA_384: "rsa-3072",
    SignatureAlgorithm.RSA_PKCS1_SHA_512: "rsa-4096",
}
PASSING: Final = json.dumps({"errors": ["1 error occurred:\n\t* transaction commit failed\n\n"]}).encode()


class BaoFaults:
    """Faults between a provider and its server, and at the server itself."""

    def __init__(self, server: OpenBao, proxy: FaultProxy, role: AppRole | None = None) -> None:
        self._server = server
        self._proxy = proxy
        self._role = role

    def throttle_next(self, count: int) -> None:
        body = json.dumps({"errors": ['request path "transit/encrypt/k": rate limit quota exceeded']}).encode()
        self._proxy.fail_next(count, status=429, body=body, headers={"Retry-After": "0"})

    def fail_next(self, count: int) -> None:
        self._proxy.fail_next(count, status=500, body=PASSING, headers={"Content-Type": "application/json"})

    def black_hole(self) -> None:
        self._proxy.black_hole()

    def heal(self) -> None:
        self._proxy.heal()

    def calls(self) -> int:
        return len(self._proxy.requests)

    def expire_credentials(self) -> None:
        assert self._role is not None, "nobody has logged in by a role"
        self._role.revoke_tokens()

    def disable(self, key_id: str) -> None:
        self._server.soft_delete_key(key_id)

    def destroy(self, key_id: str) -> None:
        self._server.destroy_key(key_id)


class SigningKeys(Mapping[SignatureAlgorithm, str]):
    """A key for each algorithm, made when it is first asked for: large RSA keys take seconds."""

    def __init__(self, server: OpenBao) -> None:
        self._server = server

    def __getitem__(self, algorithm: SignatureAlgorithm) -> str:
        return self._server.shared_key(type=TYPE_OF[algorithm])

    def __iter__(self) -> Iterator[SignatureAlgorithm]:
        return iter(TYPE_OF)

    def __len__(self) -> int:
        return len(TYPE_OF)


def app_role_subject(server: OpenBao, **options: Any) -> Subject:
    """Return a subject that logs in by a role of its own; options are of its keys."""
    role = server.app_role(token_ttl="1h")
    config = VaultConfig(
        server.proxy.url,
        mount_path=server.mount,
        auth_method="approle",
        auth_mount=role.mount,
        role_id=role.role_id,
        secret_id=role.secret_id(),
    )
    return subject_of(server, config, role, **options)


def subject_of(server: OpenBao, config: VaultConfig, role: AppRole | None = None, **options: Any) -> Subject:
    """Return a subject of a configuration, whose server is behind the proxy; options are of its keys."""
    return Subject(
        VaultKMSProvider(config, environ={}),
        key_id=server.new_key(**options),
        other_key_id=server.new_key(**options),
        mac_key_id=server.new_key(type="hmac", key_size=32),
        signing_keys=SigningKeys(server),
        faults=BaoFaults(server, server.proxy, role),
    )


def _plain(folder: Path, service: Any) -> Subject:
    return app_role_subject(service)


def _derived(folder: Path, service: Any) -> Subject:
    return app_role_subject(service, derived=True)


FAULTS: Final = frozenset({"throttle_next", "fail_next", "black_hole", "expire_credentials", "disable", "destroy"})


def _harness(make: Callable[[Path, Any], Subject], *algorithms: SignatureAlgorithm) -> Harness:
    return Harness(
        make,
        service="openbao",
        capabilities=CAPABILITIES,
        faults=FAULTS,
        sizes=(0, 1, 32, 4096, 1 << 20),
        too_long=25 << 20,
        rotates=True,
        algorithms=algorithms,
    )


HARNESSES: Final = {
    "openbao": _harness(_plain, *TYPE_OF),
    "openbao-derived": _harness(_derived, SignatureAlgorithm.ED25519),
}
