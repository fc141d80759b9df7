"""Build the programs of ``examples/vault-clients`` by their lock files: ``python -m tests.services.vault_clients``.

They are built below ``.venv-services``. Go comes from the package index as the services do; Node.js with npm, and a JDK
with Maven, are the machine's, and what there is no tool for is left out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.components import missing
from tests.services.install import ENVIRONMENTS

SOURCES: Final = Path(__file__).resolve().parents[2] / "examples" / "vault-clients"
BUILT: Final = ENVIRONMENTS / "vault-clients"
CURE: Final = "python -m tests.services.install go && python -m tests.services.vault_clients"
TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class VaultClient:
    """One program.

    Attributes:
        tools: the programs that it takes, of which the first builds it.
        build: the arguments of the first tool.
        run: the command that runs it, in which ``{tool}`` stands for the last tool.
    """

    name: str
    tools: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is built and run."""
        return BUILT / self.name

    def is_built(self) -> bool:
        """Whether it is as its sources are."""
        stamp = self.folder / "installed"
        return stamp.exists() and stamp.read_text() == _digest(SOURCES / self.name)

    def install(self) -> str | None:
        """Build it unless it is built; return what is missing, or None."""
        if self.is_built():
            return None
        if (absent := next((tool for tool in self.tools if _tool(tool) is None), None)) is not None:
            return absent
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(SOURCES / self.name, self.folder, ignore=shutil.ignore_patterns("node_modules", "target"))
        command = [str(_tool(self.tools[0])), *self.build]
        subprocess.run(command, cwd=self.folder, check=True, env=os.environ | {"GOTOOLCHAIN": "local"})
        (self.folder / "installed").write_text(_digest(SOURCES / self.name))
        return None

    def tour(self, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run it to its end with these variables and no others that a client of Vault reads."""
        if not self.is_built():
            missing(f"vault-client-{self.name}", CURE)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))}
        command = [part.format(tool=_tool(self.tools[-1])) for part in self.run]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**environ, "PYTHONPATH": "lib", **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


_QUIET_PIP: Final = ("-m", "pip", "--quiet", "--disable-pip-version-check")
_LOCKED: Final = ("--no-deps", "-r", "requirements.txt")
_QUIET_NPM: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
CLIENTS: Final[Mapping[str, VaultClient]] = {
    client.name: client
    for client in (
        VaultClient(
            "python", ("python",), (*_QUIET_PIP, "install", "--target", "lib", *_LOCKED), ("{tool}", "tour.py")
        ),
        VaultClient("go", ("go",), ("build", "-mod=readonly", "-o", "tour", "."), ("./tour",)),
        VaultClient("node", ("npm", "node"), _QUIET_NPM, ("{tool}", "tour.mjs")),
        VaultClient(
            "java", ("mvn", "java"), ("--batch-mode", "--quiet", "package"), ("{tool}", "-jar", "target/tour.jar")
        ),
    )
}


def install_all() -> None:
    """Build every program that there are tools for, and say which are left out."""
    for client in CLIENTS.values():
        if (absent := client.install()) is not None:
            print(f"not built, since there is no {absent}: examples/vault-clients/{client.name}", file=sys.stderr)


def _tool(name: str) -> str | None:
    """Return a program by its path."""
    if name == "python":
        return sys.executable
    if name == "go":
        found = sorted((ENVIRONMENTS / "go").glob("lib/*/site-packages/go/bin/go"))
        return str(found[0]) if found else None
    return shutil.which(name)


def _digest(folder: Path) -> str:
    """Return the hash of what stands in a folder of sources, without what was built there by hand."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not {"node_modules", "target", "__pycache__"} & set(name.parts):
            digest.update(str(name).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    install_all()
