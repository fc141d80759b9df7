"""Vault's provider on Keystead's own server, logged in by AppRole, by a JWT and with a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from keystead.model import SignatureAlgorithm
from keystead.providers.vault.config import VaultConfig
from tests.providers.subjects.openbao import CAPABILITIES, FAULTS, TYPE_OF, app_role_subject, subject_of
from tests.providers.subjects.subject import Harness, Subject
from tests.services.keystead_server import KeysteadServer
from tests.services.kubernetes import Issuer


def _by_app_role(folder: Path, server: KeysteadServer) -> Subject:
    return app_role_subject(server)


def _by_jwt(folder: Path, server: KeysteadServer) -> Subject:
    issuer = server.cache.setdefault("issuer", Issuer())
    if "jwt role" not in server.cache:
        server.do("POST", "auth/jwt/config", {"bound_issuer": "us", "jwt_validation_pubkeys": [issuer.public_pem]})
        role = {"role_type": "jwt", "bound_audiences": ["keystead"], "token_policies": server.user_policy}
        server.do("POST", "auth/jwt/role/app", {**role, "token_ttl": "1h"})
        server.cache["jwt role"] = "app"
    file = folder / "jwt"
    file.write_text(issuer.sign({"iss": "us", "sub": "app", "aud": "keystead"}))
    config = VaultConfig(server.proxy.url, auth_method="jwt", role=server.cache["jwt role"], jwt_path=file)
    return subject_of(server, config, derived=True)


def _by_token(folder: Path, server: KeysteadServer) -> Subject:
    token = server.new_token(server.user_policy, renewable=False, ttl="1h")
    return subject_of(server, VaultConfig(server.proxy.url, token=token))


def _harness(make: Callable[[Path, Any], Subject], *algorithms: SignatureAlgorithm, faults: frozenset[str]) -> Harness:
    return Harness(
        make,
        service="keystead_server",
        capabilities=CAPABILITIES,
        faults=faults,
        sizes=(0, 1, 32, 4096, 1 << 20),
        too_long=25 << 20,
        rotates=True,
        algorithms=algorithms,
    )


_WITHOUT_ROLE: Final = FAULTS - {"expire_credentials"}
HARNESSES: Final = {
    "keystead": _harness(_by_app_role, *TYPE_OF, faults=FAULTS),
    "keystead-jwt-derived": _harness(_by_jwt, SignatureAlgorithm.ED25519, faults=_WITHOUT_ROLE),
    "keystead-token": _harness(_by_token, SignatureAlgorithm.ECDSA_SHA_256, faults=_WITHOUT_ROLE),
}
