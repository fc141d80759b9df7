"""Asking a witness for its cosignature (c2sp.org/tlog-witness), and believing only what verifies.

A witness that cannot be reached is one thing (``ProviderConnectionError``); one that answers and refuses is another
(``InvalidProofError``): it has seen the log as it cannot have been, if what is shown to it now is true.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidProofError,
    InvalidSignatureError,
    ProviderConnectionError,
)
from keystead.ledger.tlog.checkpoint import Checkpoint, hash_lines
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import Note, NoteSignature, parse_signatures
from keystead.ledger.witness.witness import SIZE_TYPE
from keystead.runtime.exchange import Answer, AnswerTooLargeError, ExchangeError, exchange

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 1 << 16
_ROUNDS: Final = 4
_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,18})\n\Z")
_BUSY: Final = frozenset({408, 425, 429})

Proof = Callable[[int], Sequence[bytes]]
"""Returns the proof that the log continues what it was at a size; ``InvalidInputError`` where that cannot be proved."""


def cosigned(
    note: bytes, url: str, witnesses: Sequence[WitnessKey], proof: Proof, *, old: int = 0, timeout_s: float = TIMEOUT_S
) -> list[NoteSignature]:
    """Return a witness's cosignatures of a signed checkpoint, every one of them verified.

    Args:
        url: of the witness, without ``/add-checkpoint``.
        witnesses: the keys it may cosign with; what others sign is ignored.
        proof: of what the witness says that it saw last.
        old: what it is thought to have seen last; it says if that was something else.
        timeout_s: for the whole conversation.

    Raises:
        ConfigurationError: this is no URL of a witness.
        InvalidProofError: the witness refuses: it has seen another history of the log, or a later state of it.
        InvalidSignatureError: the note is no checkpoint, the witness does not know its key, or what it answered is no
            cosignature of it by one of ``witnesses``.
        ProviderConnectionError: it cannot be reached, or cannot answer now.
    """
    if not witnesses:
        raise InvalidInputError("name the witness's key: what it answers could not be checked")
    checkpoint = Checkpoint.parse(Note.parse(note).text)
    place = _Place.parse(url)
    deadline = time.monotonic() + timeout_s
    for _ in range(_ROUNDS):
        lines = hash_lines(proof(old)) if 0 < old < checkpoint.size else ""
        body = f"old {old}\n{lines}\n".encode() + note
        answer = place.post(body, deadline)
        if answer.status == 200:
            return _verified(answer.content, checkpoint, witnesses, place)
        if answer.status != 409:
            raise _refusal(answer.status, place)
        found = _SIZE.match(answer.content.decode("ascii", "replace"))
        if found is None or answer.kind.partition(";")[0].strip() != SIZE_TYPE:
            raise ProviderConnectionError(f"{place} answers as no witness does")
        seen = int(found[1])
        if seen > checkpoint.size:
            raise InvalidProofError(
                f"{place} has seen {seen} records of this log, and this checkpoint is over {checkpoint.size}: the log "
                "was cut back, or there is a later checkpoint"
            )
        if seen == old:
            raise _refusal(answer.status, place)
        old = seen
    raise ProviderConnectionError(f"{place} is asked by others for this log at the same time; try again")


def require_url(url: str) -> None:
    """Raise ``ConfigurationError`` for what is no URL of a witness."""
    _Place.parse(url)


def with_cosignatures(note: bytes, signatures: Sequence[NoteSignature]) -> bytes:
    """Return a note with further signatures; of one key the newer one stays."""
    parsed = Note.parse(note)
    replaced = {(each.name, each.key_id) for each in signatures}
    kept = tuple(each for each in parsed.signatures if (each.name, each.key_id) not in replaced)
    return Note(parsed.text, (*kept, *signatures)).render()


class _Place:
    """Where a witness is."""

    def __init__(self, url: str, host: str, port: int | None) -> None:
        self._url, self._host, self._port = url, host, port

    def __str__(self) -> str:
        return f"the witness at {self._host}" + (f":{self._port}" if self._port else "")

    @classmethod
    def parse(cls, url: str) -> _Place:
        """Return the place that a URL names.

        Raises:
            ConfigurationError: it is no URL of a witness. The message does not repeat it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError("a witness's URL reads https://host[:port][/path]") from None
        plain = not (parts.query or parts.fragment or parts.username or parts.password) and url.isprintable()
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain or " " in url:
            raise ConfigurationError("a witness's URL reads https://host[:port][/path], without credentials and query")
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.hostname, port)

    def post(self, body: bytes, deadline: float) -> Answer:
        """Return the answer to ``add-checkpoint``."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        url = f"{self._url}/add-checkpoint"
        try:
            return exchange("POST", url, deadline=deadline, most=MAX_ANSWER_BYTES, body=body, headers=headers)
        except AnswerTooLargeError:
            raise ProviderConnectionError(f"{self} answers more than any witness does") from None
        except ExchangeError as exc:
            raise ProviderConnectionError(f"{self} cannot be reached: {exc}") from None


def _verified(
    answer: bytes, checkpoint: Checkpoint, witnesses: Sequence[WitnessKey], place: _Place
) -> list[NoteSignature]:
    keys = {(key.name, key.key_id): key for key in witnesses}
    try:
        found = parse_signatures(answer.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidSignatureError(f"{place} answered what is no signature") from None
    kept: dict[tuple[str, bytes], NoteSignature] = {}
    for each in found:
        key = keys.get((each.name, each.key_id))
        if key is not None:
            key.verify(checkpoint.text(), each.value)
            kept[each.name, each.key_id] = each
    if not kept:
        raise InvalidSignatureError(f"{place} cosigned by no key that is trusted: compare its vkey with the policy's")
    return list(kept.values())


def _refusal(status: int, place: _Place) -> Exception:
    if status >= 500 or status in _BUSY:
        return ProviderConnectionError(f"{place} cannot answer now (status {status})")
    if status == 403:
        return InvalidSignatureError(f"{place} does not trust the key that signed this checkpoint")
    if status == 404:
        return InvalidSignatureError(f"{place} does not know this log; give it the log's policy or verifier key")
    if status in (409, 422):
        return InvalidProofError(
            f"{place} has seen another history of this log: it was changed, or there are two of it"
        )
    return ProviderConnectionError(f"{place} answers as no witness does (status {status})")
