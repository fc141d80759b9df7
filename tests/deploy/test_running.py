"""What the containers would run, run without them: the page's commands, the image's environment, a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, environment
from tests.cli.serving import free_port
from tests.deploy.containers import (
    command,
    compose,
    health_check,
    image_environment,
    mounted,
    setting_up,
)

DATABASE = "postgresql://keystead@database/keystead"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which the page's commands were run."""
    subprocess.run(["bash", "-euo", "pipefail", "-c", setting_up().text], cwd=tmp_path, check=True)
    return tmp_path


def container(name: str, folder: Path, postgres_url: str) -> dict[str, str]:
    """Return the environment of a service's container, its paths and its database being those of the test."""
    service = compose()["services"][name]
    inside = {**image_environment(), **service["environment"]}
    assert inside["KEYSTEAD_STORE"] == DATABASE
    for target, source in mounted(service, folder).items():
        inside = {variable: value.replace(target, str(source)) for variable, value in inside.items()}
    package = {variable: environment()[variable] for variable in ("PYTHONPATH",)}
    path = os.pathsep.join([str(Path(sys.executable).parent), inside["PATH"]])
    return {**inside, **package, "KEYSTEAD_STORE": postgres_url, "KEYSTEAD_CLIENT_KEYS_READY": "0", "PATH": path}


def line(name: str) -> list[str]:
    """Return the command line of a service's container."""
    assert command("ENTRYPOINT") == ["keystead"]
    return [*PROGRAM, *compose()["services"][name].get("command", command("CMD"))]


def answer(url: str) -> int | None:
    """Return the status of what is answered, or None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return None


def is_healthy(variables: Mapping[str, str]) -> bool:
    return subprocess.run(health_check(), env=variables, capture_output=True, timeout=30, check=False).returncode == 0


def test_the_page_makes_secrets_that_others_cannot_read(folder: Path) -> None:
    files = [*(folder / "secrets").iterdir(), folder / ".env", folder / "secrets", folder / "state"]
    assert {path.name for path in files} == {"kek", "database_password", "pgpass", ".env", "secrets", "state"}
    assert [path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    password = (folder / "secrets" / "database_password").read_text().strip()
    assert (folder / "secrets" / "pgpass").read_text() == f"database:5432:keystead:keystead:{password}\n"
    assert (folder / ".env").read_text() == f"KEYSTEAD_UID={os.getuid()}\nKEYSTEAD_GID={os.getgid()}\n"


def test_the_services_come_up_in_their_order_and_serve(folder: Path, postgres_url: str) -> None:
    before = {path for path in folder.rglob("*") if folder / "state" not in path.parents}
    variables = container("migrate", folder, postgres_url)
    subprocess.run(line("migrate"), cwd="/", env=variables, stdout=subprocess.DEVNULL, timeout=120, check=True)
    port = free_port()
    variables = {**container("serve", folder, postgres_url), "KEYSTEAD_SERVER_PORT": str(port)}
    with (folder / "state" / "log").open("wb") as log:
        served = subprocess.Popen(line("serve"), cwd="/", env=variables, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while answer(f"http://127.0.0.1:{port}/readyz") != 200:
            assert served.poll() is None, (folder / "state" / "log").read_text()
            assert time.monotonic() < until, (folder / "state" / "log").read_text()
            time.sleep(0.05)
        assert is_healthy(variables)
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) in (0, -signal.SIGTERM)
    finally:
        served.kill()
        served.wait()
    assert not is_healthy(variables)
    assert {path for path in folder.rglob("*") if folder / "state" not in path.parents} == before
    assert list((folder / "state").glob("*.journal")), "how far the store had come is not remembered"
