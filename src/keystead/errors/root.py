"""The root of the error tree."""

from __future__ import annotations

from typing import ClassVar


class KMSError(Exception):
    """Root of everything Keystead raises; raised itself only where no class says more.

    ``cure`` says what to do about errors of the class; a message that knows better says so itself.
    """

    code: ClassVar[str] = "kms_error"
    retryable: ClassVar[bool] = False
    cure: ClassVar[str] = "do as the message says; `keystead doctor` examines every provider and the store"
