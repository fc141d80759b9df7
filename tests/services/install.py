"""Install the services that come from the package index: ``python -m tests.services.install [NAME...]``.

One environment for each, below ``.venv-services``, since their dependencies contradict each other and ours.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
ENVIRONMENTS: Final = Path(__file__).resolve().parents[2] / ".venv-services"


def program(service: str, name: str) -> Path | None:
    """Return a program of a service's environment, or None where the service is not installed."""
    path = ENVIRONMENTS / service / "bin" / name
    return path if path.exists() else None


def install(service: str) -> None:
    """Make the environment of a service, unless it is as its requirements say."""
    wanted = (REQUIREMENTS / f"{service}.txt").read_bytes()
    stamp = ENVIRONMENTS / service / "installed"
    digest = hashlib.sha256(wanted).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    folder = stamp.parent
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    hashes = ["--require-hashes"] if b"--hash" in wanted else []
    subprocess.run([*pip, *hashes, "-r", str(REQUIREMENTS / f"{service}.txt")], check=True)
    stamp.write_text(digest)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in REQUIREMENTS.glob("*.txt")):
        install(name)
