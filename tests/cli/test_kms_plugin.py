"""``keystead kms-plugin`` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keystead.manager.installation import install
from tests.cli.conftest import PROGRAM, environment, run_process
from tests.server.kubernetes.plugins import SECRET
from tests.services.cluster import Program, built, running


@pytest.fixture
def folder() -> Iterator[Path]:
    """A working folder after ``keystead init``, by a short path, with a folder for the socket in it."""
    with tempfile.TemporaryDirectory(prefix="ks-") as made:
        install(Path(made))
        (Path(made) / "run").mkdir(mode=0o700)
        yield Path(made)


@contextmanager
def plugin(folder: Path, *args: str, **variables: str) -> Iterator[tuple[Path, subprocess.Popen[bytes], Path]]:
    """Run a plugin until the block ends, and give its socket, its process and its log."""
    path, log = folder / "run" / "kms.sock", folder / "plugin.log"
    command = [*PROGRAM, "kms-plugin", "--socket", str(path), "--key", "cluster", *args]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment() | variables, stdout=out, stderr=out)
    try:
        wait(log, process, "the service is open")
        yield path, process, log
    finally:
        process.kill()
        process.wait()


def wait(log: Path, process: subprocess.Popen[bytes], text: str) -> None:
    until = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


async def encrypted(client: Program) -> dict[str, object]:
    told, made = await client.ask("status"), await client.ask("encrypt", plaintext=SECRET, uid="from-the-api-server")
    assert (told["healthz"], made["code"], made["key_id"]) == ("ok", "", told["key_id"])
    return {name: made[name] for name in ("ciphertext", "key_id", "annotations")}


async def test_a_plugin_serves_until_it_is_told_to_stop_and_takes_its_socket_along(folder: Path) -> None:
    with plugin(folder, KEYSTEAD_SERVER_LOG_FORMAT="json") as (path, process, log):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        async with running(built("plain"), f"unix://{path}") as client:
            made = await encrypted(client)
            assert (await client.ask("decrypt", **made, uid="x y"))["plaintext"] == SECRET
            assert (await client.ask("decrypt", **{**made, "key_id": "canary-id"}))["code"] == "InvalidArgument"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert not path.exists()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        calls = {line["operation"]: line for line in lines if line["event"] == "request" and line["code"] == "OK"}
        assert set(calls) == {"Encrypt", "Decrypt"}
        assert calls["Encrypt"]["request_id"] == "from-the-api-server"
        assert re.fullmatch("[0-9a-f]{16}", calls["Decrypt"]["request_id"])
        assert "INVALID_ARGUMENT" in {line.get("code") for line in lines}
        assert "canary" not in log.read_text()
        assert SECRET.decode() not in log.read_text()


async def test_a_plugin_that_was_killed_is_followed_by_one_that_reads_what_it_wrote(folder: Path) -> None:
    with plugin(folder) as (path, process, _):
        async with running(built("plain"), f"unix://{path}") as client:
            made = await encrypted(client)
        process.kill()
        process.wait()
        assert path.exists()
    with plugin(folder) as (path, process, log):
        async with running(built("plain"), f"unix://{path}") as client:
            assert (await client.ask("decrypt", **made))["plaintext"] == SECRET
        second = run_process(folder, "kms-plugin", "--socket", str(path), "--key", "cluster")
        assert (second.returncode, b"another program listens" in second.stderr) == (1, True)
        assert path.exists()
        assert process.poll() is None, log.read_text()


async def test_a_plugin_is_checked_by_what_an_api_server_asks(folder: Path) -> None:
    with plugin(folder) as (path, process, _):
        checked = run_process(folder, "kms-plugin", "--socket", f"unix://{path}", "--check", "--json")
        told = json.loads(checked.stdout)
        assert (checked.returncode, told["healthz"]) == (0, "ok")
        assert told["key_id"].startswith("keystead/1/keystead.transit/cluster/1/")
        process.kill()
        process.wait()
        gone = run_process(folder, "kms-plugin", "--socket", str(path), "--check")
        assert (gone.returncode, b"nobody listens there" in gone.stderr) == (4, True)


async def test_metrics_are_shown_to_this_machine(folder: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with plugin(folder, "--metrics-port", str(port)) as (path, _, _):
        async with running(built("plain"), f"unix://{path}") as client:
            await encrypted(client)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    assert 'keystead_requests_total{code="OK",operation="Encrypt"} 1.0' in text
    assert 'keystead_requests_total{code="OK",operation="Status"} 1.0' in text


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--socket", "kms.sock", "--key", "cluster"], "absolute"),
        (["--socket", "{run}/kms.sock", "--key", ""], "a key's name"),
        (["--socket", "{run}/kms.sock", "--key", "a/b"], "a key's name"),
        (["--socket", "{run}/kms.sock", "--key", "cluster", "--store", "memory:"], "a store in memory forgets"),
        (["--socket", "{run}/kms.sock", "--key", "cluster", "--store", "sqlite:///{run}/absent.db"], "keystead init"),
        (["--socket", "{run}/absent/kms.sock", "--key", "cluster"], "cannot be used"),
    ],
)
def test_what_cannot_work_ends_it_with_the_reason(folder: Path, args: list[str], why: str) -> None:
    given = [each.replace("{run}", str(folder / "run")) for each in args]
    ended = run_process(folder, "kms-plugin", *given)
    assert ended.returncode == 1
    assert why in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    assert list((folder / "run").iterdir()) == []


def test_the_key_is_named(folder: Path) -> None:
    ended = run_process(folder, "kms-plugin", "--socket", str(folder / "run" / "kms.sock"))
    assert (ended.returncode, b"--key NAME" in ended.stderr) == (2, True)


def test_without_its_packages_it_names_the_extra(folder: Path) -> None:
    (folder / "grpc.py").write_text("raise ImportError('not here', name='grpc')\n")
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
    command = [*PROGRAM, "kms-plugin", "--socket", str(folder / "run" / "kms.sock"), "--key", "cluster"]
    ended = subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "pip install 'keystead[kubernetes]'" in ended.stderr.decode()


def test_the_command_line_loads_nothing_of_it_for_other_commands() -> None:
    code = "import sys; from keystead.cli.main import build_app; build_app(); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False, timeout=60).returncode == 0
