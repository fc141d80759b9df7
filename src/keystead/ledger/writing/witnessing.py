"""The witnesses that a log asks at each of its checkpoints: all at once, within a time, in no record's way.

One that cannot be reached is told of once, and asked again for the next checkpoint. One that refuses since it has seen
another history of the log is told of each time: the log was put back, or there are two of it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import consistency_proof, verify_consistency
from keystead.errors import ConfigurationError, InvalidInputError, InvalidProofError, KMSError, ProviderConnectionError
from keystead.ledger.reading.checkpoints_kept import root_at
from keystead.ledger.reading.proving import LogTree
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import Note, NoteSignature
from keystead.ledger.witness.client import cosigned, require_url, with_cosignatures

log = logging.getLogger("keystead.ledger")

AGAIN_TIMEOUT_S: Final = 2.0
"""How long one is waited for that did not answer the last time."""

WitnessKeys = Mapping[str, tuple[WitnessKey, ...]]
"""The keys of witnesses by their URLs."""


def witness_keys(given: Mapping[str, str | Sequence[str]] | None) -> WitnessKeys:
    """Return the keys of witnesses, given their verifier keys by their URLs.

    Raises:
        ConfigurationError: no URL of a witness, or one without keys.
        InvalidInputError: what is no verifier key of a witness.
    """
    found = {}
    for url, vkeys in (given or {}).items():
        require_url(url)
        found[url] = tuple(WitnessKey.parse(each) for each in ([vkeys] if isinstance(vkeys, str) else vkeys))
        if not found[url]:
            raise ConfigurationError("a witness is given with its verifier keys: what it answers could not be checked")
    return found


def require_quorum(quorum: int, witnesses: WitnessKeys) -> int:
    """Return how many witnesses readers are to ask for: none where there are none.

    Raises:
        ConfigurationError: more than there are.
    """
    names = {key.name for keys in witnesses.values() for key in keys}
    if quorum < 0 or quorum > max(1, len(names)):
        raise ConfigurationError(f"quorum is a number of the witnesses, of which there are {len(names)}")
    return min(quorum, len(names))


class Witnesses:
    """Asks a log's witnesses.

    Args:
        path: the log's file; proofs come from there.
        keys: see ``witness_keys``.

    Attributes:
        failures: why the last checkpoint lacks the cosignature of a witness, by its URL.
    """

    def __init__(self, path: Path, stream: str, keys: WitnessKeys) -> None:
        self.failures: dict[str, KMSError] = {}
        self._path = path
        self._stream = stream
        self._keys = keys
        self._seen: dict[str, int] = dict.fromkeys(keys, 0)
        self._asked: dict[str, threading.Thread] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def cosigned(self, note: bytes, timeout_s: float) -> bytes:
        """Return a signed checkpoint of the log with the cosignatures that came within the time; blocks."""
        growth = _Growth(self._path, Checkpoint.parse(Note.parse(note).text))
        answers: dict[str, Sequence[NoteSignature] | KMSError] = {}
        for url in self._keys:
            if url not in self._asked or not self._asked[url].is_alive():
                within_s = min(timeout_s, AGAIN_TIMEOUT_S) if self._is_away(url) else timeout_s
                self._asked[url] = threading.Thread(
                    target=self._ask, args=(url, note, growth, within_s, answers), daemon=True
                )
                self._asked[url].start()
        until = time.monotonic() + timeout_s
        for url in self._keys:
            # What resolves its name has no time of its own.
            self._asked[url].join(max(0.0, until - time.monotonic()))
        for url in self._keys:
            answer = answers.get(url, ProviderConnectionError("a witness did not answer in time"))
            if isinstance(answer, KMSError):
                self._failed(url, answer)
            else:
                note = with_cosignatures(note, answer)
                self._seen[url] = growth.checkpoint.size
                if self.failures.pop(url, None) is not None:
                    log.info("a witness cosigns a log again", extra={"stream": self._stream})
        return note

    def require_one_history(self) -> None:
        """Raise ``InvalidProofError`` where a witness has refused the last checkpoint: it saw another history."""
        for failure in self.failures.values():
            if isinstance(failure, InvalidProofError):
                raise failure

    def require_all(self) -> None:
        """Raise what kept the last checkpoint from being cosigned by each of them."""
        self.require_one_history()
        for failure in self.failures.values():
            raise failure

    def _is_away(self, url: str) -> bool:
        return isinstance(self.failures.get(url), ProviderConnectionError)

    def _ask(
        self,
        url: str,
        note: bytes,
        growth: _Growth,
        timeout_s: float,
        answers: dict[str, Sequence[NoteSignature] | KMSError],
    ) -> None:
        old = min(self._seen[url], growth.checkpoint.size)
        try:
            answers[url] = cosigned(note, url, self._keys[url], growth.proof, old=old, timeout_s=timeout_s)
        except KMSError as exc:
            answers[url] = exc

    def _failed(self, url: str, failure: KMSError) -> None:
        before, self.failures[url] = self.failures.get(url), failure
        if isinstance(failure, InvalidProofError):
            log.error("a witness refuses a log's checkpoint: %s", failure, extra={"stream": self._stream})
        elif before is None or before.code != failure.code:
            log.warning("a log's checkpoint is not cosigned: %s", failure, extra={"stream": self._stream})


class _Growth:
    """Proves that a checkpoint continues what the log was, from the log's files."""

    def __init__(self, path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._path = path
        self._turn = threading.Lock()

    def proof(self, old: int) -> Sequence[bytes]:
        """Return the proof.

        Raises:
            InvalidProofError: the files are not what was written.
            InvalidInputError: some are missing for it.
            StorageOperationError: one cannot be read.
        """
        with self._turn:
            try:
                return self._proof(old, is_cached=True)
            except (InvalidProofError, InvalidInputError):
                # The index is a cache, and never believed.
                return self._proof(old, is_cached=False)

    def _proof(self, old: int, *, is_cached: bool) -> Sequence[bytes]:
        new = self.checkpoint
        tree = LogTree.open_end(self._path, old, is_cached=is_cached)
        proof = consistency_proof(old, new.size, tree.subtree)
        verify_consistency(old, new.size, root_at(tree, old), new.root, proof)
        return proof
