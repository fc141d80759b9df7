"""Reading the vectors of others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

THIRD_PARTY: Final = Path(__file__).resolve().parents[2] / "testvectors" / "third_party"


def read(path: str) -> Any:
    """Return the content of a file of JSON below ``testvectors/third_party``."""
    return json.loads((THIRD_PARTY / path).read_text(encoding="utf-8"))


def unbase64(text: str | None) -> bytes:
    """Return the bytes of standard base64; none where there is none."""
    return base64.b64decode(text or "")
