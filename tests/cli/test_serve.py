"""``keystead serve``: a process of its own, from its first word to its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from keystead.manager.admin import create_local_kek
from tests.cli.conftest import Cli, run_process
from tests.cli.serving import free_port, serving, started

_GENERATE = 'mutation { generateClientEncryptionKey(input: { deviceId: "device-123" }) { keyId publicKey } }'


_ENCRYPT = 'mutation { encryptData(input: { data: "a secret", keyId: "%s" }) }'
_DECRYPT = 'mutation { decryptData(input: { encryptedData: "%s", keyId: "%s" }) }'


def ask(url: str, query: str, **headers: str) -> Any:
    given = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{url}/graphql", json.dumps({"query": query}).encode(), given)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _begin(url: str, body: bytes) -> http.client.HTTPConnection:
    """Send a request but for the last ten bytes of its body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.putrequest("POST", "/graphql")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-10])
    return connection


def _worker(connection: http.client.HTTPConnection, token: str) -> str:
    """Return which process answers on a connection, and close it."""
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    (worker,) = {found[1] for line in lines if (found := re.search(r'worker="(\d+)"', line))}
    return worker


def _unready(url: str) -> Any:
    """Return what ``/readyz`` answers, ready or not."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as exc:
        return json.load(exc)


def _wait_for(folder: Path, text: str) -> None:
    until = time.monotonic() + 60
    while text not in (log := (folder / "serve.log").read_text()):
        assert time.monotonic() < until, log
        time.sleep(0.05)


def test_printed_calls_work_as_they_are_in_development(folder: Path) -> None:
    with serving(folder, "--dev") as url:
        first = ask(url, _GENERATE)["data"]["generateClientEncryptionKey"]
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as response:
            assert json.load(response) == {"status": "ok"}
    assert "Never serve people so" in (folder / "serve.log").read_text()
    with serving(folder, "--dev") as url:
        assert ask(url, _GENERATE)["data"]["generateClientEncryptionKey"] == first


def test_a_token_made_on_the_store_opens_the_service(folder: Path, cli: Cli) -> None:
    token = cli.ok("token", "create", "ada", "--scope", "devices:use").stdout.strip()
    with serving(folder) as url:
        (error,) = ask(url, _GENERATE)["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"
        assert "data" in ask(url, _GENERATE, Authorization=f"Bearer {token}")


def test_several_processes_serve_as_one(folder: Path, cli: Cli) -> None:
    scopes = ("--scope", "devices:use", "--scope", "metrics:read")
    token = cli.ok("token", "create", "ada", *scopes).stdout.strip()
    with serving(folder, "--workers", "2", port=free_port()) as url:
        answers = [ask(url, _GENERATE, Authorization=f"Bearer {token}") for _ in range(12)]
        assert len({answer["data"]["generateClientEncryptionKey"]["keyId"] for answer in answers}) == 1
        # Connections are dealt out in turn, whichever process wakes first.
        held = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=30) for _ in range(40)]
        for connection in held:
            connection.connect()
        asked = Counter(_worker(connection, token) for connection in held)
        assert list(asked.values()) == [20, 20]
        for worker in asked:
            given = Path("/proc", worker, "environ").read_bytes().split(b"\0")
            assert b"GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in given


def test_a_process_that_dies_is_replaced_and_the_others_are_served_meanwhile(folder: Path, cli: Cli) -> None:
    token = cli.ok("token", "create", "ada", "--scope", "metrics:read").stdout.strip()
    with serving(folder, "--workers", "2") as url:

        def worker() -> str:
            return _worker(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30), token)

        dies, stays = worker(), worker()
        os.kill(int(dies), signal.SIGKILL)
        until = time.monotonic() + 60
        seen: set[str] = set()
        while not seen - {dies, stays}:
            assert time.monotonic() < until
            # Some connections may have been on their way to the one that died, and the new one may not be open yet.
            with suppress(ConnectionError, ValueError):
                seen.add(worker())
        assert seen >= {stays}


def test_processes_end_when_the_one_that_takes_their_connections_is_gone(folder: Path, cli: Cli) -> None:
    token = cli.ok("token", "create", "ada", "--scope", "metrics:read").stdout.strip()
    with ExitStack() as stack:
        netloc = urlsplit(stack.enter_context(serving(folder, "--workers", "2"))).netloc
        workers = {_worker(http.client.HTTPConnection(netloc, timeout=30), token) for _ in range(2)}
        os.kill(_parent_of(next(iter(workers))), signal.SIGKILL)
        with pytest.raises(AssertionError):
            # It did not end as it should.
            stack.close()
    until = time.monotonic() + 30
    while any(Path("/proc", worker).exists() for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def _parent_of(process: str) -> int:
    return int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[1])


def test_a_port_of_several_processes_is_not_shared_with_another_service(folder: Path, cli: Cli) -> None:
    cli.ok("token", "create", "ada", "--scope", "devices:use")
    with serving(folder, "--workers", "2") as url:
        second = run_process(folder, "serve", "--workers", "2", "--port", str(urlsplit(url).port))
    assert second.returncode == 1
    assert b"cannot be listened on" in second.stderr


def test_it_listens_before_its_database_is_there_and_tells_nobody_where_that_is(folder: Path) -> None:
    url_of_database = f"postgresql://ada:canary@127.0.0.1:{free_port()}/canary"
    with started(folder, KEYSTEAD_STORE=url_of_database) as (url, _):
        with urllib.request.urlopen(f"{url}/livez", timeout=30) as response:
            assert json.load(response) == {"status": "ok"}
        until = time.monotonic() + 30
        while (told := _unready(url))["causes"][0]["code"] == "starting":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert told["status"] == "not ready"
        assert [(cause["component"], cause["code"]) for cause in told["causes"]] == [("database", "store_unavailable")]
        assert "canary" not in str(told)
    assert "canary" not in (folder / "serve.log").read_text()


def test_it_speaks_tls_by_a_certificate_of_ones_own_and_logs_json_alone(folder: Path) -> None:
    authority = trustme.CA()
    pair, trusted = authority.issue_cert("127.0.0.1"), ssl.create_default_context()
    authority.configure_trust(trusted)
    pair.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    pair.private_key_pem.write_to_path(folder / "key.pem")
    args = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
    with started(folder, *args, KEYSTEAD_SERVER_LOG_FORMAT="json") as (url, _):
        assert url.startswith("https://")
        _wait_for(folder, "the service is open")
        with urllib.request.urlopen(f"{url}/schema.graphql", timeout=30, context=trusted) as response:
            request_id = response.headers["x-request-id"]
    lines = [json.loads(line) for line in (folder / "serve.log").read_text().splitlines()]
    assert {"time", "level", "event"} <= set.intersection(*(set(line) for line in lines))
    assert {line["logger"] for line in lines if line["event"] == "log"} == {"uvicorn.error", "keystead.server"}
    (request,) = (line for line in lines if line["event"] == "request")
    assert (request["operation"], request["code"], request["request_id"]) == ("GET /schema.graphql", "OK", request_id)


@pytest.mark.parametrize("args", [(), ("--workers", "2")], ids=["one", "several"])
def test_what_can_never_serve_ends_with_the_reason(folder: Path, cli: Cli, args: tuple[str, ...]) -> None:
    cli.ok("token", "create", "ada", "--scope", "devices:use")
    (folder / "keystead.kek").unlink()
    create_local_kek(folder / "keystead.kek")
    ended = run_process(folder, "serve", "--port", str(free_port()), *args)
    assert ended.returncode == 1
    assert b"the service cannot open: " in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_requests_that_run_when_it_is_told_to_stop_are_answered_and_counted(folder: Path) -> None:
    with started(folder, "--dev") as (url, process):
        _wait_for(folder, "the service is open")
        key = ask(url, _GENERATE)["data"]["generateClientEncryptionKey"]
        sealed = ask(url, _ENCRYPT % key["keyId"])["data"]["encryptData"]
        body = json.dumps({"query": _DECRYPT % (sealed, key["keyId"])}).encode()
        begun = [_begin(url, body) for _ in range(8)]
        # All have been read as far as they go: what comes next on a connection of its own is answered.
        assert ask(url, "{ __typename }")["data"] == {"__typename": "Query"}
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while _unready(url)["status"] != "stopping":
            assert time.monotonic() < until
        assert ask(url, "{ __typename }")["data"] == {"__typename": "Query"}
        assert process.poll() is None
        for connection in begun:
            connection.send(body[-10:])
            response = connection.getresponse()
            assert (response.status, json.load(response)) == (200, {"data": {"decryptData": "a secret"}})
            connection.close()
        assert process.wait(30) == 0
    with closing(sqlite3.connect(folder / "keys.db")) as store:
        (count,) = store.execute("SELECT usage_count FROM client_encryption_keys").fetchone()
    assert count == 8


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--dev", "--host", "0.0.0.0"), "this machine alone"),
        (("--dev", "--workers", "2"), "one process"),
        (("--port", "70000"), "--port"),
    ],
)
def test_what_must_not_be_is_refused_before_anything_is_opened(
    folder: Path, cli: Cli, args: tuple[str, ...], told: str
) -> None:
    result = cli.run("serve", *args)
    assert result.exit_code == 2
    assert told in result.stderr
