"""The tamper-evident log: write it with ``SealedFile``, check it with ``Verifier`` and a ``TrustPolicy``.

Below: the format's records and tags, RFC 6962 trees, C2SP checkpoints, proofs and witnesses, and what signs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keystead.ledger.checkpoint_signers import CheckpointSigner, LocalSigner
    from keystead.ledger.checkpoint_signers_kms import KmsCheckpointSigner
    from keystead.ledger.policy import TrustedKey, TrustedSigner, TrustPolicy, Validity
    from keystead.ledger.proof import ProofBundle
    from keystead.ledger.proving import prove, prove_consistency, record_line
    from keystead.ledger.report import ErrorType, VerifyError, VerifyReport
    from keystead.ledger.sealed_file import SealedFile
    from keystead.ledger.verifier import Verifier

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
    "CheckpointSigner": "checkpoint_signers",
    "ErrorType": "report",
    "KmsCheckpointSigner": "checkpoint_signers_kms",
    "LocalSigner": "checkpoint_signers",
    "ProofBundle": "proof",
    "SealedFile": "sealed_file",
    "TrustPolicy": "policy",
    "TrustedKey": "policy",
    "TrustedSigner": "policy",
    "Validity": "policy",
    "Verifier": "verifier",
    "VerifyError": "report",
    "VerifyReport": "report",
    "prove": "proving",
    "prove_consistency": "proving",
    "record_line": "proving",
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
