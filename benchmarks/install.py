"""Install the libraries that are compared, one by one: what a Python has no package for is reported, not fatal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
APOLLO_SOURCE: Final = Path(__file__).resolve().parent / "apollo"
APOLLO: Final = Path(sys.prefix) / "apollo"
"""Where the service over Apollo Server is installed: a folder of this environment."""
NODE: Final = 20
"""The version of Node.js that it takes, or a newer one."""


def main() -> int:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    for requirement in groups["bench"]:
        if subprocess.run([*pip, requirement], check=False).returncode:
            print(f"not installed, and reported so in the table: {requirement}", file=sys.stderr)
    if not _install_apollo():
        print("not installed, and reported so in the table: the service over Apollo Server", file=sys.stderr)
    return 0


def _install_apollo() -> bool:
    npm = shutil.which("npm")
    if npm is None:
        return False
    APOLLO.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(APOLLO_SOURCE / name, APOLLO / name)
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run([npm, "ci", *quietly], cwd=APOLLO, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
