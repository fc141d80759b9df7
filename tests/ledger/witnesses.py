"""Witnesses that answer over real HTTP, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.tlog.note import NoteVerifier
from keystead.ledger.witness.server import WitnessServer
from keystead.ledger.witness.witness import FolderState, Witness

NAME: Final = "witness.example.org"
NOW: Final = 1_900_000_000
ED25519: Final = WitnessSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(32)))
ML_DSA_44: Final = WitnessSigner(NAME, MLDSA44PrivateKey.from_seed_bytes(bytes(32)))


@contextmanager
def serving(
    folder: Path,
    logs: Mapping[str, Sequence[NoteVerifier]],
    signers: Sequence[WitnessSigner] = (ED25519,),
    *,
    port: int = 0,
) -> Iterator[WitnessServer]:
    """Serve a witness whose memory is in ``folder``."""
    server = WitnessServer(("127.0.0.1", port), Witness(signers, logs, FolderState(folder), lambda: NOW), signers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.close()
