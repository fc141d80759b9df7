"""Install the libraries that are compared, one by one: what a Python has no package for is reported, not fatal."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    for requirement in groups["bench"]:
        if subprocess.run([*pip, requirement], check=False).returncode:
            print(f"not installed, and reported so in the table: {requirement}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
