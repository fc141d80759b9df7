"""What the guide has people write is what its readers take: Kubernetes, systemd, and Keystead itself."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc import StatusCode
from typer.main import get_group

from keystead import errors
from keystead.cli.main import build_app
from keystead.config.sources import load
from keystead.server.causes import cause_of
from keystead.server.kubernetes.answers import code_of, health_of, text_of
from keystead.server.kubernetes.names import annotations_of
from keystead.server.kubernetes.socket import socket_path
from tests.components import missing
from tests.docs.blocks import ROOT, read_blocks
from tests.services.cluster import built, running

TEXT = (ROOT / "docs" / "guides" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = read_blocks(TEXT)
SOCKET = "/run/keystead/kms.sock"


def written(kind: str) -> tuple[str, dict[str, Any]]:
    """Return the text and the value of the one YAML block of a kind; an empty one is Keystead's settings."""
    texts = [block.text for block in BLOCKS if block.language == "yaml"]
    ((text, value),) = [(text, value) for text in texts if (value := yaml.safe_load(text)).get("kind", "") == kind]
    return text, value


def unit() -> tuple[str, ConfigParser]:
    ((text),) = [block.text for block in BLOCKS if block.language == "ini"]
    parsed = ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(text)
    return text, parsed


def options(arguments: list[str]) -> dict[str, Any]:
    """Return what the command line makes of the arguments of a plugin."""
    name, *rest = arguments
    assert name == "kms-plugin"
    command = get_group(build_app()).commands[name]
    parsed: dict[str, Any] = command.make_context("kms-plugin", rest).params
    return {key: value for key, value in parsed.items() if value not in (None, False)}


async def test_the_configuration_is_taken_by_an_api_server(tmp_path: Path) -> None:
    text, value = written("EncryptionConfiguration")
    assert value["apiVersion"] == "apiserver.config.k8s.io/v1"
    (kms,) = [each["kms"] for each in value["resources"][0]["providers"] if "kms" in each]
    assert (kms["apiVersion"], socket_path(kms["endpoint"])) == ("v2", Path(SOCKET))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    async with running(built("apiserver")) as server:
        assert (await server.ask("load", config=str(path)))["error"] == ""


async def test_the_pod_has_no_field_that_a_pod_has_not_and_runs_a_plugin_on_that_socket() -> None:
    text, value = written("Pod")
    async with running(built("apiserver")) as server:
        assert (await server.ask("pod", data=text.encode()))["error"] == ""
        assert (await server.ask("pod", data=text.replace("hostNetwork", "hostNet").encode()))["error"]
    (container,) = value["spec"]["containers"]
    given = options(container["args"])
    assert (given["socket"], given["key"]) == (SOCKET, "cluster")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(Path(SOCKET).parent), str(Path(given["config"]).parent)} <= mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in value["spec"]["volumes"]}
    assert not re.search(r"secret|configMap|env", yaml.safe_dump(value["spec"]))
    assert "livenessProbe" not in container


def test_the_service_runs_a_plugin_on_that_socket_in_a_folder_that_stays(tmp_path: Path) -> None:
    text, parsed = unit()
    service = parsed["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    given = options(arguments)
    assert (given["socket"], given["key"]) == (SOCKET, "cluster")
    assert Path("/run") / service["RuntimeDirectory"] == Path(SOCKET).parent
    assert (service["RuntimeDirectoryMode"], service["RuntimeDirectoryPreserve"]) == ("0700", "yes")
    analyze = shutil.which("systemd-analyze") or missing("systemd", "apt-get install systemd")
    path = tmp_path / "keystead-kms.service"
    # What is not installed here is no fault of the unit.
    path.write_text(text.replace(program, "/bin/true").replace("User=keystead", "User=root"))
    verified = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if path.name in line]) == (0, [])
    path.write_text(text.replace("RestartSec", "RestartSek").replace(program, "/bin/true"))
    verified = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert "RestartSek" in verified.stderr


def test_the_settings_are_settings(tmp_path: Path) -> None:
    text, value = written("")
    path = tmp_path / "keystead.yaml"
    path.write_text(text)
    settings = load(path, environ={}).settings
    assert (settings.store, settings.kms, settings.is_production) == (value["store"], value["kms"], True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StoreUnavailableError(), "UNAVAILABLE"),
        (errors.ProviderAuthError("no"), "UNAVAILABLE"),
        (errors.NotInitializedError("no"), "UNAVAILABLE"),
        (errors.SystemShutdownError("no"), "UNAVAILABLE"),
        (errors.InvalidCiphertextError("no"), "INVALID_ARGUMENT"),
        (errors.DecryptionError("no"), "INVALID_ARGUMENT"),
        (errors.InvalidInputError("no"), "INVALID_ARGUMENT"),
        (errors.DataKeyNotLoadedError(7), "NOT_FOUND"),
        (errors.KeyStateError("no"), "FAILED_PRECONDITION"),
        (errors.StoreRestoredError(), "FAILED_PRECONDITION"),
        (errors.KeyDecryptionFailError("no"), "DATA_LOSS"),
        (RuntimeError("canary"), "INTERNAL"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_errors_have_the_codes_that_the_guide_lists(error: Exception, code: str) -> None:
    assert code_of(error) is StatusCode[code]
    assert f"| `{code}` |" in TEXT
    assert "canary" not in text_of(error)
    assert text_of(error)


def test_the_guide_shows_the_health_of_a_kms_that_denies_and_names_the_annotation() -> None:
    assert health_of(cause_of(errors.ProviderAuthError("no"))) in TEXT
    assert any(name in TEXT for name in annotations_of("id"))
    assert "must not live in the cluster" in TEXT
