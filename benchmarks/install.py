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

ARGON2_FLAGS: Final = {" avx512f ": "-O2 -mavx512f", " avx2 ": "-O2 -mavx2"}
"""How Argon2id is built for a processor that can do so much, as docs/guides/operate-the-service.md advises."""
ARGON2_BUILT: Final = Path(sys.prefix) / "argon2-built"
"""Says how it was built, if it was."""


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
    """Build Argon2id for this processor."""
    told = Path("/proc/cpuinfo")
    can = told.read_text(encoding="utf-8") if told.exists() else ""
    flags = next((flags for what, flags in ARGON2_FLAGS.items() if what in can), None)
    if shutil.which("cc") is None or flags is None:
        return False
    bindings = "argon2-cffi-bindings"
    command = [*pip, "--force-reinstall", "--no-deps", "--no-cache-dir", "--no-binary", bindings, bindings]
    if subprocess.run(command, check=False, env={**os.environ, "CFLAGS": flags}).returncode:
        return False
    ARGON2_BUILT.write_text(flags, encoding="utf-8")
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
