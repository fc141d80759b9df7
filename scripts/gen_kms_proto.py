"""Write the messages of Kubernetes' KMS interface in Python, from ``kms_v2.proto``: ``kms_v2_pb2.py`` and its types."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "src"
FOLDER = Path("keystead") / "server" / "kubernetes"
TARGETS = (FOLDER / "kms_v2_pb2.py", FOLDER / "kms_v2_pb2.pyi")


def texts() -> dict[Path, str]:
    """Return the text of each file, by its path under ``src``."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"--proto_path={SOURCES}"]
        outputs = [f"--python_out={made}", f"--pyi_out={made}"]
        subprocess.run([*command, *outputs, str(SOURCES / FOLDER / "kms_v2.proto")], check=True)
        return {target: (Path(made) / target).read_text(encoding="utf-8") for target in TARGETS}


if __name__ == "__main__":
    for target, text in texts().items():
        (SOURCES / target).write_text(text, encoding="utf-8")
