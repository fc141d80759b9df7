"""``keystead serve``: a process of its own, from its first word to its end."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.cli.serving import free_port, serving

_GENERATE = 'mutation { generateClientEncryptionKey(input: { deviceId: "device-123" }) { keyId publicKey } }'


def ask(url: str, query: str, **headers: str) -> Any:
    given = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{url}/graphql", json.dumps({"query": query}).encode(), given)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


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
    token = cli.ok("token", "create", "ada", "--scope", "devices:use").stdout.strip()
    with serving(folder, "--workers", "2", port=free_port()) as url:
        answers = [ask(url, _GENERATE, Authorization=f"Bearer {token}") for _ in range(12)]
        assert len({answer["data"]["generateClientEncryptionKey"]["keyId"] for answer in answers}) == 1


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
