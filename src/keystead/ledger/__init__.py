"""The tamper-evident log: write it with ``SealedFile``, check it with ``Verifier`` and a ``TrustPolicy``.

Rooms: ``format`` (lines and their keys), ``writing``, ``reading``, ``tlog`` (C2SP checkpoints and proofs), ``signers``,
``witness``, and ``audit``, Keystead's own trail.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keystead.ledger.reading.policy import TrustedKey, TrustedSigner, TrustPolicy, Validity
    from keystead.ledger.reading.proving import prove, prove_consistency, record_line
    from keystead.ledger.reading.report import ErrorType, VerifyError, VerifyReport
    from keystead.ledger.reading.verifier import Verifier
    from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner, LocalSigner
    from keystead.ledger.tlog.checkpoint_signers_kms import KmsCheckpointSigner
    from keystead.ledger.tlog.proof import ProofBundle
    from keystead.ledger.writing.sealed_file import SealedFile

__all__ = [
    "CheckpointSigner",
    "ErrorType",
    "KmsCheckpointSigner",
    "LocalSigner",
    "ProofBundle",
    "SealedFile",
    "TrustPolicy",
    "TrustedKey",
    "TrustedSigner",
    "Validity",
    "Verifier",
    "VerifyError",
    "VerifyReport",
    "prove",
    "prove_consistency",
    "record_line",
]

_HOMES: Final = {
    "CheckpointSigner": "tlog.checkpoint_signers",
    "ErrorType": "reading.report",
    "KmsCheckpointSigner": "tlog.checkpoint_signers_kms",
    "LocalSigner": "tlog.checkpoint_signers",
    "ProofBundle": "tlog.proof",
    "SealedFile": "writing.sealed_file",
    "TrustPolicy": "reading.policy",
    "TrustedKey": "reading.policy",
    "TrustedSigner": "reading.policy",
    "Validity": "reading.policy",
    "Verifier": "reading.verifier",
    "VerifyError": "reading.report",
    "VerifyReport": "reading.report",
    "prove": "reading.proving",
    "prove_consistency": "reading.proving",
    "record_line": "reading.proving",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and sees a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'keystead.ledger' has no attribute {name!r}")
        value = getattr(import_module(f"keystead.ledger.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
