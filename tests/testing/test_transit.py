"""The server that speaks Transit for tests of others, by the client that most of them have."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidRequest

import keystead
from keystead.errors import ConfigurationError, ConflictError, InvalidInputError
from keystead.testing import TransitServer, transit_server


@pytest.fixture(scope="module")
def server() -> Iterator[TransitServer]:
    """One for all tests here."""
    with transit_server() as running:
        yield running


def client(server: TransitServer, token: str | None = None) -> hvac.Client:
    """Return a client with a token."""
    return hvac.Client(server.url, token=server.token if token is None else token)


def text(plain: bytes) -> str:
    """Return bytes as clients send them."""
    return base64.b64encode(plain).decode()


def test_a_value_makes_the_round_trip_over_a_rotation(server: TransitServer) -> None:
    transit = client(server).secrets.transit
    transit.create_key("orders")
    old = transit.encrypt_data("orders", text(b"hello"))["data"]["ciphertext"]
    transit.rotate_key("orders")
    assert base64.b64decode(transit.decrypt_data("orders", old)["data"]["plaintext"]) == b"hello"
    new = transit.rewrap_data("orders", old)["data"]["ciphertext"]
    assert (old[:9], new[:9]) == ("vault:v1:", "vault:v2:")
    assert "orders" in transit.list_keys()["data"]["keys"]


def test_a_token_may_do_what_its_scopes_say(server: TransitServer) -> None:
    transit = client(server, server.new_token("transit:encrypt:cards", lifetime=timedelta(hours=1))).secrets.transit
    client(server).secrets.transit.create_key("cards")
    sealed = transit.encrypt_data("cards", text(b"hello"))["data"]["ciphertext"]
    with pytest.raises(Forbidden):
        transit.decrypt_data("cards", sealed)
    with pytest.raises(InvalidInputError):
        server.new_token("transit:fly:cards")


def test_a_program_logs_in_by_a_role(server: TransitServer) -> None:
    role = server.new_app_role("billing", "transit:*:bills-*")
    with pytest.raises(ConflictError):
        server.new_app_role("billing", "transit:*:bills-*")
    program = hvac.Client(server.url)
    program.auth.approle.login(role.role_id, role.secret_id)
    program.secrets.transit.create_key("bills-eu")
    assert role.secret_id not in repr(role)


def test_a_tenant_has_keys_of_its_own(server: TransitServer) -> None:
    theirs = client(server, server.new_token("transit:*:*", tenant="acme")).secrets.transit
    theirs.create_key("shared-name")
    sealed = theirs.encrypt_data("shared-name", text(b"hello"))["data"]["ciphertext"]
    ours = client(server).secrets.transit
    ours.create_key("shared-name")
    with pytest.raises(InvalidRequest):
        ours.decrypt_data("shared-name", sealed)


def test_servers_know_nothing_of_each_other_and_end_with_their_block() -> None:
    with transit_server() as one, transit_server() as other:
        client(one).secrets.transit.create_key("orders")
        with pytest.raises(Forbidden):
            client(other, one.token).secrets.transit.list_keys()
        port = int(one.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="name another"), transit_server(port):
            pass
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", port)) != 0
    with transit_server(port) as again:
        assert again.url == one.url


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_what_clients_read_and_ends_when_told(ending: signal.Signals, tmp_path: Path) -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(keystead.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "keystead.testing.transit"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        told = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
        vault = hvac.Client(told["VAULT_ADDR"], token=told["VAULT_TOKEN"])
        vault.secrets.transit.create_key("orders")
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []
