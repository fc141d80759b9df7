"""Install the libraries that are compared, one by one: what a Python has no package for is reported, not fatal."""

from __future__ import annotations

import os
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

ARGON2_FLAGS: Final = "-O2 -mavx2"
ARGON2_BUILT: Final = Path(sys.prefix) / "argon2-built"
"""Is there if Argon2id was built so."""


def main() -> int:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    for requirement in groups["bench"]:
        if subprocess.run([*pip, requirement], check=False).returncode:
            print(f"not installed, and reported so in the table: {requirement}", file=sys.stderr)
    if not _build_argon2(pip):
        print("not built for this processor: argon2-cffi, of which the wheel is measured", file=sys.stderr)
    if not _install_apollo():
        print("not installed, and reported so in the table: the service over Apollo Server", file=sys.stderr)
    return 0


def _build_argon2(pip: list[str]) -> bool:
    """Build Argon2id for this processor, as docs/guides/operate-the-service.md advises."""
    told = Path("/proc/cpuinfo")
    if shutil.which("cc") is None or not told.exists() or " avx2 " not in told.read_text(encoding="utf-8"):
        return False
    bindings = "argon2-cffi-bindings"
    command = [*pip, "--force-reinstall", "--no-deps", "--no-cache-dir", "--no-binary", bindings, bindings]
    if subprocess.run(command, check=False, env={**os.environ, "CFLAGS": ARGON2_FLAGS}).returncode:
        return False
    ARGON2_BUILT.touch()
    return True


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
