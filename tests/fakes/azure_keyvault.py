"""A fake Azure: vaults and managed HSMs, Entra ID and managed identities, over https with a private CA.

Keys are real and computed with; failures are switches. By hand:

    python -m tests.fakes.azure_keyvault --folder /tmp/azure

prints the variables and the configuration that reach it, and serves until it is interrupted.
"""

from __future__ import annotations

import argparse
import ssl
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Self

import trustme

from tests.fakes.azure_http import HttpServer, Request, Response
from tests.fakes.azure_login import Login
from tests.fakes.azure_vault import ApiError, VaultState, Version

TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
SECRET = "a client secret that must never be seen"
WORKLOAD = "99999999-bbbb-4ccc-8ddd-eeeeeeeeeeee"
MANAGED = "88888888-bbbb-4ccc-8ddd-eeeeeeeeeeee"
RESOURCES = {"vault": "https://vault.azure.net", "hsm": "https://managedhsm.azure.net"}


class FakeVault:
    """One vault or managed HSM on a port of its own; ``server`` has its switches, ``state`` its keys."""

    def __init__(self, flavour: str, login: Login, authority: str, tls: ssl.SSLContext, port: int = 0) -> None:
        self.login = login
        self.state = VaultState(flavour)
        self._authority = authority
        self._resource = RESOURCES[flavour]
        self.server = HttpServer(self._answer, tls=tls, port=port)

    @property
    def url(self) -> str:
        """The vault's URL."""
        return self.server.url

    @property
    def host(self) -> str:
        """Host and port."""
        return self.server.authority

    def key_id(self, name: str) -> str:
        """Return the id of a key, without a version."""
        return f"{self.url}/keys/{name}"

    def throttle_next(self, count: int = 1, *, retry_after: str = "0", path: str = "/keys") -> None:
        """Answer as a vault does that is asked too often; 0 seconds keep tests from waiting."""
        body = {"error": {"code": "Throttled", "message": "Request was not processed because too many requests"}}
        self.server.answer_next(count, Response(429, body, {"Retry-After": retry_after}), path=path)

    def fail_next(self, count: int = 1, *, status: int = 503, path: str = "/keys") -> None:
        """Answer with an internal error of the service."""
        body = {"error": {"code": "ServiceUnavailable", "message": "The service is temporarily unavailable."}}
        self.server.answer_next(count, Response(status, body), path=path)

    def deny(self, *operations: str) -> None:
        """Allow nobody these operations; all of them where none is named."""
        self.state.denied |= set(operations or ("*",))

    def calls(self) -> int:
        """Return how many requests came that carried something to do: not those that only looked for a challenge."""
        return len(self.server.requests)

    def heal(self) -> None:
        """Turn every fault off; keys stay as they are."""
        self.server.heal()
        self.state.denied = set()
        self.state.is_firewalled = False

    def _answer(self, request: Request) -> Response:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        token = self.login.find(text) if scheme.lower() == "bearer" else None
        if token is None or token.audience != self._resource:
            return self.login.challenge(self._authority, self._resource, was_refused=bool(text))
        return self.state.answer(request)


class FakeAzure:
    """Entra ID, a vault and a managed HSM; ``add_vault`` makes more of them.

    Attributes:
        ca_file: the certificate of the authority that signed all of it.
    """

    def __init__(self, folder: Path, *, ports: Collection[int] = (0, 0, 0, 0)) -> None:
        login, vault, hsm, identity = ports
        ca = trustme.CA()
        self.ca_file = folder / "azure-ca.pem"
        ca.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost", "127.0.0.1").configure_cert(self._tls)
        self.login = Login(TENANT, {CLIENT: SECRET}, {WORKLOAD: "a federated token"}, {MANAGED})
        self.login_server = HttpServer(self.login.answer, tls=self._tls, port=login)
        self.identity_server = HttpServer(self.login.answer_identity, port=identity)
        self.vaults: list[FakeVault] = []
        self.vault = self.add_vault("vault", port=vault)
        self.hsm = self.add_vault("hsm", port=hsm)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    @property
    def authority(self) -> str:
        """Where tokens come from."""
        return self.login_server.url

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host and port of every vault."""
        return tuple(vault.host for vault in self.vaults)

    def add_vault(self, flavour: str, *, port: int = 0) -> FakeVault:
        """Start another vault (``vault``) or managed HSM (``hsm``) of the same tenant."""
        made = FakeVault(flavour, self.login, self.authority, self._tls, port)
        self.vaults.append(made)
        return made

    def expire_tokens(self, *, wants_claims: bool = False) -> None:
        """Revoke every token; with ``wants_claims`` vaults then ask for one made anew, as CAE has it."""
        self.login.wants_claims = wants_claims
        self.login.revoke_all()

    def heal(self) -> None:
        """Turn every fault off."""
        self.login.wants_claims = False
        self.login_server.heal()
        self.identity_server.heal()
        for vault in self.vaults:
            vault.heal()

    def close(self) -> None:
        """Stop everything."""
        for server in (self.login_server, self.identity_server, *(vault.server for vault in self.vaults)):
            server.close()

    def identity_environment(self, kind: str) -> dict[str, str]:
        """Return the variables that lead to the managed identity endpoint: ``imds`` or ``app-service``."""
        url = self.identity_server.url
        if kind == "imds":
            return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": url}
        return {
            "IDENTITY_ENDPOINT": f"{url}/metadata/identity/oauth2/token",
            "IDENTITY_HEADER": self.login.identity_header,
        }


def clear_challenges() -> None:
    """Forget what the SDK has learnt of hosts: a fake on a port that another one had is not that other one."""
    from azure.keyvault.keys._shared import http_challenge_cache

    http_challenge_cache.clear()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A fake Azure Key Vault and Managed HSM.")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the CA's file goes")
    parser.add_argument("--port", type=int, default=8443, help="of the login; the vault has the next, then the HSM")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # Port 0: whichever are free.
    ports = [options.port + offset if options.port else 0 for offset in range(4)]
    with FakeAzure(options.folder, ports=ports) as azure:
        azure.vault.state.create_key("kek")
        azure.vault.state.create_key("signer", "EC")
        azure.hsm.state.create_key("kek", "oct-HSM")
        print(f"export SSL_CERT_FILE={azure.ca_file} AZURE_AUTHORITY_HOST={azure.authority}")
        print(f"export AZURE_TENANT_ID={TENANT} AZURE_CLIENT_ID={CLIENT} AZURE_CLIENT_SECRET='{SECRET}'")
        print(f"export KEYSTEAD_KMS='azurekms://{azure.vault.host}/kek?sign_key=signer&allow_host=true'")
        print(f"# the HSM: azurekms://{azure.hsm.host}/kek?managed_hsm=true&allow_host=true", flush=True)
        threading.Event().wait()


__all__ = ["ApiError", "FakeAzure", "FakeVault", "Version", "clear_challenges"]

if __name__ == "__main__":
    main()
