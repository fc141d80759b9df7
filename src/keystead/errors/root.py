"""The root of the error tree."""

from __future__ import annotations

from typing import ClassVar


class KMSError(Exception):
    """Root of everything Keystead raises."""

    code: ClassVar[str] = "kms_error"
    retryable: ClassVar[bool] = False
