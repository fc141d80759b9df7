"""The chain of fapilog-tamper, format 1, as its records are followed."""

from __future__ import annotations

from keystead.integrations.fapilog.v1.records import SealedV1, b64url_encode
from keystead.integrations.fapilog.v1.report import VerifyError, VerifyReport


class Chain:
    """Follows records. The hashes that they state are only compared with what is computed again.

    Args:
        previous: the hash before the first record; None where nobody knows.
        seq: the number before the first; None where nobody knows.
        kept: a chain hash that somebody kept elsewhere.

    Attributes:
        reached: whether a record has the hash that was kept. No key is needed for it to vouch for all before it.
    """

    def __init__(
        self, report: VerifyReport, previous: bytes | None, seq: int | None, *, kept: bytes | None = None
    ) -> None:
        self._report = report
        self._previous = previous
        self._seq = seq
        self._kept = kept
        self.reached = False
        self.first: SealedV1 | None = None
        self.last: SealedV1 | None = None
        self.root: bytes | None = None

    def follow(self, sealed: SealedV1, line: int, offset: int) -> None:
        """Take the next record."""
        if self._seq is not None and sealed.seq != self._seq + 1:
            expected = str(self._seq + 1)
            message = f"record {expected} should stand here"
            self._report.add(VerifyError(sealed.seq, "seq_gap", expected, str(sealed.seq), message, line, offset))
        if self._previous is not None and sealed.prev_chain_hash != self._previous:
            expected, actual = b64url_encode(self._previous), b64url_encode(sealed.prev_chain_hash)
            message = "the record does not follow the one before"
            self._report.add(VerifyError(sealed.seq, "chain_break", expected, actual, message, line, offset))
        computed = sealed.computed_chain_hash()
        if computed is None:
            self._report.warn("records without a timestamp: their hashes cannot be computed again")
        elif computed != sealed.chain_hash:
            expected, actual = b64url_encode(computed), b64url_encode(sealed.chain_hash)
            message = "the chain hash is not of this record"
            self._report.add(VerifyError(sealed.seq, "chain_break", expected, actual, message, line, offset))
        self.reached = self.reached or (computed is not None and computed == self._kept)
        self.first = self.first or sealed
        self.last = sealed
        self.root = computed or sealed.chain_hash
        self._previous, self._seq = sealed.chain_hash, sealed.seq
