"""Checks one file of fapilog-tamper, format 1, with its manifest: line by line, in constant memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystead.errors import CouldNotVerifyError, StorageOperationError
from keystead.integrations.fapilog.v1.chain import Chain
from keystead.integrations.fapilog.v1.keys import has_sealed
from keystead.integrations.fapilog.v1.manifest import SUFFIX, Manifest
from keystead.integrations.fapilog.v1.records import GENESIS_HASH, MalformedV1Error, b64url_encode, parse_record, shown
from keystead.integrations.fapilog.v1.report import LIMITS, VerifyError, VerifyReport
from keystead.ledger.reading.lines import LogFile

UNSIGNED: Final = "there is no manifest, so that nothing vouches for order, number and end of the records"


@dataclass(frozen=True, slots=True)
class TrustV1:
    """Whose seals count.

    Attributes:
        keys: the keys of an id, the newest first.
        algorithm_of: what the seals under an id have to be made by.
        requires_manifest: whether a file without its manifest is a finding.
    """

    keys: Callable[[str], Sequence[bytes]]
    algorithm_of: Callable[[str], str]
    requires_manifest: bool


class FileCheck:
    """One file, checked by ``run``.

    Args:
        before: the chain hash before its first record, ``before_seq`` that record's number; None where nobody knows.
        kept: a chain hash that was kept; ``chain.reached`` says whether a record has it.

    Attributes:
        report: what was found.
        chain: where the file ended.
    """

    def __init__(
        self,
        path: Path,
        trust: TrustV1,
        *,
        before: bytes | None = None,
        before_seq: int | None = None,
        kept: bytes | None = None,
    ) -> None:
        self._path = path
        self._trust = trust
        self._before = before
        self._before_seq = before_seq
        self._kept = kept
        self.report = VerifyReport(valid=True, file_path=str(path), warnings=list(LIMITS))
        self.chain = Chain(self.report, None, None)

    def run(self, manifest_path: Path | None = None) -> VerifyReport:
        """Check the file and return the report.

        Args:
            manifest_path: beside the file unless given.

        Raises:
            CouldNotVerifyError: a file cannot be read.
        """
        started = time.monotonic()
        report = self.report
        manifest = self._read_manifest(manifest_path)
        is_vouched = manifest is not None and self._is_signed(manifest)
        self.chain = self._begin(manifest, is_vouched=is_vouched)
        self._check_records()
        if manifest is not None:
            is_equal = self._is_of_this_file(manifest)
            report.manifest_signature_valid = is_vouched
            report.manifest_valid = is_vouched and is_equal
        if not report.records_checked and not (is_vouched and report.manifest_valid):
            self._find("empty_file", "the file has no records")
        report.records_invalid = report.records_checked - report.records_valid
        report.duration_ms = (time.monotonic() - started) * 1000
        return report

    def _read_manifest(self, given: Path | None) -> Manifest | None:
        # A file that was compressed has the manifest of what it was before.
        plain = str(self._path).removesuffix(".gz")
        places = [given] if given is not None else [Path(f"{self._path}{SUFFIX}"), Path(f"{plain}{SUFFIX}")]
        try:
            for place in places:
                if (found := Manifest.read(place)) is not None:
                    return found
        except MalformedV1Error as exc:
            self.report.manifest_valid = self.report.manifest_signature_valid = False
            self._find("manifest_mismatch", f"the manifest cannot be used: {exc}")
            return None
        if given is not None or self._trust.requires_manifest:
            cure = "require_manifest=False is for a file that is still written"
            self._find("missing_manifest", f"there is no manifest {places[0]}; {cure}")
        self.report.warn(UNSIGNED)
        return None

    def _is_signed(self, manifest: Manifest) -> bool:
        algorithm = self._trust.algorithm_of(manifest.key_id)
        keys = self._trust.keys(manifest.key_id)
        if manifest.signature is None:
            problem = "manifest_signature", "the manifest is not signed"
        elif not keys:
            problem = "missing_key", f"no key for {shown(manifest.key_id)}, which signed the manifest"
        elif manifest.algorithm != algorithm:
            told = f"the manifest is signed by {shown(manifest.algorithm)}, and trusted is {algorithm}"
            problem = "manifest_signature", told
        elif has_sealed(keys, algorithm, manifest.payload, manifest.signature):
            return True
        else:
            problem = "manifest_signature", "the signature is not of this manifest, by this key"
        self._find(*problem)
        return False

    def _begin(self, manifest: Manifest | None, *, is_vouched: bool) -> Chain:
        """Return the chain as it has to begin: where it is known what stood before, there."""
        told = None if manifest is None else manifest.continues_from
        if self._before is not None:
            if told not in (None, self._before):
                self._find("chain_break", "the manifest continues from another file", self._before, told)
            return Chain(self.report, self._before, self._before_seq, kept=self._kept)
        if told is not None:
            self.report.warn("the file continues another one, which was not looked at")
            return Chain(self.report, told, None, kept=self._kept)
        if is_vouched and manifest is not None and manifest.first_seq not in (None, 1):
            self.report.warn("the manifest does not say what the file continues, as after a restart of its writer")
            return Chain(self.report, None, (manifest.first_seq or 1) - 1, kept=self._kept)
        return Chain(self.report, GENESIS_HASH, 0, kept=self._kept)

    def _check_records(self) -> None:
        file = LogFile(self._path)
        seen = 0
        try:
            for batch in file.batches():
                offset = batch.offset
                for index, line in enumerate(batch.lines):
                    number = batch.line + index
                    if number != seen:  # a line that is longer than any record comes in pieces
                        self._check_line(line, number, offset)
                    seen = number
                    offset += len(line) + 1
        except StorageOperationError as exc:
            raise CouldNotVerifyError(str(exc)) from None
        if file.is_damaged:
            self._find("malformed", "the compressed file is damaged, and ends there")

    def _check_line(self, line: bytes, number: int, offset: int) -> None:
        self.report.records_checked += 1
        try:
            sealed = parse_record(line)
        except MalformedV1Error as exc:
            self.report.add(VerifyError(exc.seq, exc.error_type, message=str(exc), line=number, offset=offset))
            return
        keys = self._trust.keys(sealed.key_id)
        algorithm = self._trust.algorithm_of(sealed.key_id)
        problem = None
        if not keys:
            problem = "missing_key", f"no key for {shown(sealed.key_id)}"
        elif sealed.algo != algorithm:
            problem = "mac_mismatch", f"sealed by {shown(sealed.algo)}, and trusted is {algorithm}"
        elif not has_sealed(keys, algorithm, sealed.payload, sealed.mac):
            problem = "mac_mismatch", "the MAC is not of this record, by this key"
        if problem is None:
            self.report.records_valid += 1
        else:
            self.report.add(VerifyError(sealed.seq, problem[0], message=problem[1], line=number, offset=offset))
        self.chain.follow(sealed, number, offset)

    def _is_of_this_file(self, manifest: Manifest) -> bool:
        first, last, root = self.chain.first, self.chain.last, self.chain.root
        told: dict[str, tuple[object, object]] = {
            "record_count": (manifest.record_count, self.report.records_checked),
            "first_seq": (manifest.first_seq, None if first is None else first.seq),
            "last_seq": (manifest.last_seq, None if last is None else last.seq),
            "first_ts": (manifest.first_ts, None if first is None else first.timestamp),
            "last_ts": (manifest.last_ts, None if last is None else last.timestamp),
            "root_chain_hash": (manifest.root, root),
        }
        is_equal = True
        for name, (expected, actual) in told.items():
            if expected != actual:
                is_equal = False
                self._find("manifest_mismatch", f"the file's {name} is not the manifest's", expected, actual)
        name = os.path.basename(manifest.file)
        if name != self._path.name.removesuffix(".gz"):
            self.report.warn(f"the manifest is of a file called {shown(name)}")
        return is_equal

    def _find(self, error_type: str, message: str, expected: object = None, actual: object = None) -> None:
        """Take a finding about the whole file."""
        self.report.add(VerifyError(0, error_type, _told(expected), _told(actual), message))


def _told(value: object) -> str | None:
    if value is None:
        return None
    return b64url_encode(value) if isinstance(value, bytes) else shown(str(value))
