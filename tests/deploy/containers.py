"""The files for containers, read as an engine reads them."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.components import missing
from tests.docs.blocks import ROOT, Block, read_blocks

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "compose.yaml"
PAGE = ROOT / "docs" / "guides" / "containers.md"


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """Return the instructions of the Dockerfile, by a parser of Dockerfiles, in order."""
    try:
        from dockerfile_parse import DockerfileParser
    except ImportError:
        missing("dockerfile-parse", "pip install dockerfile-parse")
    with DOCKERFILE.open("rb") as file:
        parsed = DockerfileParser(fileobj=file).structure
    return tuple((str(each["instruction"]), str(each["value"])) for each in parsed if each["instruction"] != "COMMENT")


def last_stage() -> list[tuple[str, str]]:
    """Return the instructions that the image is made by, from its FROM on."""
    names = [name for name, _ in instructions()]
    return list(instructions()[len(names) - 1 - names[::-1].index("FROM") :])


def values_of(name: str) -> list[str]:
    """Return what stands behind an instruction of the last stage, each time it is there."""
    return [value for given, value in last_stage() if given == name]


def command(name: str) -> list[str]:
    """Return what ENTRYPOINT or CMD says, which has to be in the form that no shell is needed for."""
    (text,) = values_of(name)
    found: list[str] = json.loads(text)
    return found


def health_check() -> list[str]:
    """Return the command of HEALTHCHECK, in the same form."""
    (text,) = values_of("HEALTHCHECK")
    found: list[str] = json.loads(re.sub(r"^.*?\bCMD\s+", "", text, count=1))
    return found


def image_environment() -> dict[str, str]:
    """Return the environment of the image."""
    pairs = [pair.partition("=") for text in values_of("ENV") for pair in shlex.split(text)]
    return {name: value for name, _, value in pairs}


@cache
def compose() -> dict[str, Any]:
    """Return the compose file, its merges made."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def setting_up() -> Block:
    """Return the commands of the page that make the secrets."""
    (block,) = [each for each in read_blocks(PAGE.read_text(encoding="utf-8")) if each.language == "bash"]
    return block


def mounted(service: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Return what a service sees at which path: its secrets and its bind mounts, where they are beside the file."""
    secrets = {f"/run/secrets/{name}": compose()["secrets"][name]["file"] for name in service.get("secrets", ())}
    binds = {each["target"]: each["source"] for each in service["volumes"] if isinstance(each, dict)}
    return {target: folder / os.path.normpath(source) for target, source in {**secrets, **binds}.items()}
