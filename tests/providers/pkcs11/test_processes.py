"""What would crash a process is done in one of its own: then a crash is a test that fails, and says with what."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError, ProviderConnectionError
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import PIN, SoftHsm

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture
def environment(softhsm: SoftHsm, key: str, tmp_path: Path) -> dict[str, str]:
    """Where the programs find token, key and store."""
    file = tmp_path / "pin"
    file.write_text(PIN)
    file.chmod(0o600)
    return os.environ | {
        "PROGRAM_MODULE": softhsm.path,
        "PROGRAM_KEY": key,
        "PROGRAM_PIN": PIN,
        "PROGRAM_KMS": f"pkcs11:token=kms;object={key}?module-path={softhsm.path}&pin-source=file:{file}",
        "PROGRAM_STORE": f"sqlite:///{tmp_path}/keys.db",
        "PYTHONWARNINGS": "error,ignore::DeprecationWarning",
    }


def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", str(PROGRAMS / program)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def assert_done(ended: subprocess.CompletedProcess[str], output: str) -> None:
    if ended.returncode < 0:
        pytest.fail(f"crashed with {signal.Signals(-ended.returncode).name}: {ended.stderr}")
    assert (ended.stderr, ended.stdout, ended.returncode) == ("", output, 0)


def test_eight_tasks_of_two_providers_in_two_loops_do_not_crash_the_binding(environment: dict[str, str]) -> None:
    assert_done(run("busy.py", environment), "done 1600\n")


def test_children_of_a_fork_log_in_for_themselves_and_read_each_other(environment: dict[str, str]) -> None:
    assert_done(run("forked.py", environment), "done 3\n")


def request(port: int, path: str, body: bytes = b"") -> tuple[str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.headers["X-Pid"], response.read()
    finally:
        connection.close()


def test_gunicorn_workers_use_a_token_that_was_opened_before_the_fork(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--no-control-socket"]
        command += ["--bind", f"fd://{listener.fileno()}", "wsgi:application"]
        server = subprocess.Popen(
            command,
            env=environment | {"PYTHONWARNINGS": "ignore"},
            cwd=PROGRAMS,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            sealed: defaultdict[str, list[bytes]] = defaultdict(list)
            with ThreadPoolExecutor(8) as pool:
                deadline = time.monotonic() + 60
                while len(sealed) < 2 and time.monotonic() < deadline:
                    for pid, blob in pool.map(lambda _: request(port, "/encrypt"), range(16)):
                        sealed[pid].append(blob)
                blobs = [made[0] for made in sealed.values()] * 8
                opened = list(pool.map(lambda blob: request(port, "/decrypt", blob), blobs))
        finally:
            server.send_signal(signal.SIGTERM)
            _, told = server.communicate(timeout=60)
    assert {plaintext for _, plaintext in opened} == {b"pluto"}
    assert len(sealed) == 2
    assert server.returncode == 0
    assert "Traceback" not in told, told
    assert "SIGSEGV" not in told, told


async def test_a_module_that_is_no_library_of_pkcs11_is_named(softhsm: SoftHsm, tmp_path: Path) -> None:
    file = tmp_path / "lib.so"
    for content, match in ((None, "no such file"), (b"no library", "this machine's kind")):
        if content is not None:
            file.write_bytes(content)
        provider = Pkcs11KMSProvider(softhsm.config(module=file))
        with pytest.raises(ConfigurationError, match=match):
            await provider.describe("kek")
        await provider.aclose()


async def test_a_library_without_the_functions_of_pkcs11_is_named(softhsm: SoftHsm) -> None:
    import _ctypes

    provider = Pkcs11KMSProvider(softhsm.config(module=_ctypes.__file__))
    with pytest.raises(ConfigurationError, match="could not be loaded"):
        await provider.describe("kek")
    await provider.aclose()


async def test_a_module_that_does_not_start_is_a_connection_error_until_it_does(
    softhsm: SoftHsm, key: str, faults: Faults
) -> None:
    provider = Pkcs11KMSProvider(softhsm.config(token_label="never there"))
    faults.fail("initialize", "GeneralError")
    with pytest.raises(ProviderConnectionError, match="SOFTHSM2_CONF"):
        await provider.describe("kek")
    await provider.aclose()
    working = Pkcs11KMSProvider(softhsm.config())
    await working.encrypt(b"value", key)
    await working.aclose()
