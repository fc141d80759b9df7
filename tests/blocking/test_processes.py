"""The blocking manager under forks, spawns, a pre-forking web server, and at the interpreter's exit.

Each runs as a program of its own, with warnings as errors: a test runner that forks itself proves less.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where the programs find their KEK and their store."""
    return os.environ | {
        "PROGRAM_KMS": "env:PROGRAM_KEK",
        "PROGRAM_KEK": os.urandom(32).hex(),
        "PROGRAM_STORE": f"sqlite:///{tmp_path}/keys.db",
        "PYTHONWARNINGS": "error",
    }


def run(program: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def rows(tmp_path: Path, query: str) -> list[tuple[int, ...]]:
    database = sqlite3.connect(tmp_path / "keys.db")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def test_forked_children_draw_their_own_salts_and_read_each_other(environment: dict[str, str]) -> None:
    # Forking beside running threads is what is under test; Python 3.12 warns of it.
    ended = run("forks.py", environment | {"PYTHONWARNINGS": "error,ignore::DeprecationWarning"})
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "done 7\n")


def test_spawned_children_open_the_store_themselves(environment: dict[str, str]) -> None:
    ended = run("spawns.py", environment)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "done\n")


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_manager_left_open_is_closed_at_exit_without_a_word(
    how: str, environment: dict[str, str], tmp_path: Path
) -> None:
    began = time.monotonic()
    ended = run("left_open.py", environment, how)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "done\n")
    assert time.monotonic() - began < 30
    assert rows(tmp_path, "SELECT count(*) FROM nodes") == [(0,)]
    assert rows(tmp_path, "SELECT messages FROM data_keys WHERE keyring = 'default'") == [(10,)]


def request(port: int, path: str, body: bytes = b"") -> tuple[str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.headers["X-Pid"], response.read()
    finally:
        connection.close()


def test_gunicorn_workers_share_a_manager_made_before_the_fork(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--no-control-socket"]
        command += ["--bind", f"fd://{listener.fileno()}", "wsgi:application"]
        server = subprocess.Popen(
            command,
            env=environment | {"PYTHONWARNINGS": "default"},
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
                blobs = [blob for made in sealed.values() for blob in made] * 3
                opened = list(pool.map(lambda blob: request(port, "/decrypt", blob), blobs))
                # Which worker takes a connection is for the kernel to say: until each has read what the other wrote.
                while {pid for pid, _ in opened} != set(sealed) and time.monotonic() < deadline + 60:
                    opened += pool.map(lambda blob: request(port, "/decrypt", blob), blobs)
        finally:
            server.send_signal(signal.SIGTERM)
            _, told = server.communicate(timeout=60)
    salts = {pid: {blob[10:26] for blob in made} for pid, made in sealed.items()}
    assert [len(one) for one in salts.values()] == [1, 1]
    assert len(set.union(*salts.values())) == 2
    assert {plaintext for _, plaintext in opened} == {b"pluto"}
    assert {pid for pid, _ in opened} == set(sealed)
    assert server.returncode == 0
    assert "Traceback" not in told, told
    assert "Keystead" not in told, told
    assert "destroyed" not in told, told
    assert rows(tmp_path, "SELECT count(*) FROM nodes") == [(0,)]
