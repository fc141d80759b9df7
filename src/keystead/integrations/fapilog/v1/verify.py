"""Verifies logs of fapilog-tamper, format 1, and says what that format cannot tell.

    report = await Verifier(FileKeyStore("keys")).verify_file("app.jsonl")
    assert report.valid, report.errors

Keys and algorithms come from whoever verifies, never from the file.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from keystead.errors import ConfigurationError, CouldNotVerifyError, InvalidInputError, StorageOperationError
from keystead.integrations.fapilog.v1.chain import Chain
from keystead.integrations.fapilog.v1.file import FileCheck, TrustV1
from keystead.integrations.fapilog.v1.keys import KeyStore, KnownKeys, has_sealed
from keystead.integrations.fapilog.v1.records import (
    ED25519,
    GENESIS_HASH,
    HMAC,
    MalformedV1Error,
    hash_of,
    parse_record,
    sealed_of,
)
from keystead.integrations.fapilog.v1.report import VerifyError, VerifyReport
from keystead.ledger.reading.lines import LogFile

log = logging.getLogger("keystead.fapilog")

PathLike = str | os.PathLike[str]
Algorithm = Literal["HMAC-SHA256", "Ed25519"]


class Verifier:
    """Checks files of format 1.

    Args:
        keys: gives the keys that count, by key id.
        algorithm: what records and manifests have to be sealed by; for Ed25519 the keys are public ones.
        algorithms: others for some key ids.
        require_manifest: whether a file without its manifest is a finding. A file that is still written has none.

    Raises:
        ConfigurationError: an algorithm that format 1 has not.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        algorithm: Algorithm = "HMAC-SHA256",
        algorithms: Mapping[str, Algorithm] | None = None,
        require_manifest: bool = True,
    ) -> None:
        self._algorithm = algorithm
        self._algorithms = dict(algorithms or {})
        if not {algorithm, *self._algorithms.values()} <= {HMAC, ED25519}:
            raise ConfigurationError(f"format 1 is sealed by {HMAC} or {ED25519}")
        self._store = keys
        self._require_manifest = require_manifest

    async def verify_file(
        self,
        path: PathLike,
        manifest_path: PathLike | None = None,
        *,
        continues_from: str | None = None,
        reaches: str | None = None,
    ) -> VerifyReport:
        """Verify a file with its manifest, in a thread; see ``check_file``."""
        options = {"continues_from": continues_from, "reaches": reaches}
        return await asyncio.to_thread(self.check_file, path, manifest_path, **options)

    def check_file(
        self,
        path: PathLike,
        manifest_path: PathLike | None = None,
        *,
        continues_from: str | None = None,
        reaches: str | None = None,
    ) -> VerifyReport:
        """Verify a file, compressed or not, with its manifest. Blocks.

        Args:
            manifest_path: ``<path>.manifest.json`` unless given.
            continues_from: the root hash of the file before, where that is known.
            reaches: a chain hash that was kept elsewhere, such as ``root_chain_hash`` of a manifest: a file that does
                not get as far was put back or cut. All records up to there are vouched for, without a key.

        Raises:
            CouldNotVerifyError: a file cannot be read.
            InvalidInputError: ``continues_from`` or ``reaches`` is no hash.
        """
        before = None if continues_from is None else hash_of(continues_from)
        check = FileCheck(Path(path), self.trust(), before=before, kept=_kept(reaches))
        report = check.run(None if manifest_path is None else Path(manifest_path))
        return _reaching(report, reaches, [check])

    def check_files(
        self, paths: Sequence[PathLike], *, continues_from: str | None = None, reaches: str | None = None
    ) -> VerifyReport:
        """Verify files that follow one another, each with its manifest; errors as ``check_file``. Blocks.

        Args:
            continues_from: the root hash of the file before the first; without it the first begins the chain.
            reaches: as of ``check_file``; of any of the files.
        """
        if not paths:
            raise InvalidInputError("name the files to verify, in their order")
        report = VerifyReport(valid=True, file_path=",".join(os.fspath(each) for each in paths))
        before: bytes | None = GENESIS_HASH if continues_from is None else hash_of(continues_from)
        seq = 0 if continues_from is None else None
        trust = self.trust()
        checked: list[VerifyReport] = []
        checks: list[FileCheck] = []
        for path in paths:
            check = FileCheck(Path(path), trust, before=before, before_seq=seq, kept=_kept(reaches))
            checks.append(check)
            checked.append(check.run())
            report.merge(checked[-1])
            if check.chain.last is not None:
                before, seq = check.chain.root, check.chain.last.seq
        report.manifest_valid = _all(each.manifest_valid for each in checked)
        report.manifest_signature_valid = _all(each.manifest_signature_valid for each in checked)
        return _reaching(report, reaches, checks)

    def verify_record(self, record: Mapping[str, Any], key: bytes, algo: str) -> bool:
        """Whether a record's MAC is of its content, by a key and an algorithm."""
        try:
            sealed = sealed_of(record)
        except MalformedV1Error:
            return False
        return has_sealed([key], algo, sealed.payload, sealed.mac)

    def verify_chain(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        expected_first_prev: str | None = None,
        expected_start_seq: int = 1,
    ) -> list[VerifyError]:
        """Return where records do not follow one another; the hashes of the chain are computed again."""
        report = VerifyReport(valid=True, file_path="")
        previous = GENESIS_HASH if expected_first_prev is None else hash_of(expected_first_prev)
        chain = Chain(report, previous, expected_start_seq - 1)
        for number, record in enumerate(records, start=1):
            try:
                chain.follow(sealed_of(record), number, 0)
            except MalformedV1Error as exc:
                report.add(VerifyError(exc.seq, exc.error_type, message=str(exc), line=number))
        return report.errors

    def trust(self) -> TrustV1:
        """Return whose seals count; each key is asked for once."""
        return TrustV1(
            KnownKeys(self._store),
            lambda key_id: self._algorithms.get(key_id, self._algorithm),
            self._require_manifest,
        )


async def verify_chain_across_files(
    files: Sequence[PathLike],
    keys: KeyStore,
    *,
    continues_from: str | None = None,
    reaches: str | None = None,
    **options: Any,
) -> VerifyReport:
    """Verify files that follow one another, each with its manifest, in a thread; see ``Verifier.check_files``.

    Args:
        options: of ``Verifier``.
    """
    verifier = Verifier(keys, **options)
    told = {"continues_from": continues_from, "reaches": reaches}
    return await asyncio.to_thread(verifier.check_files, files, **told)


async def run_self_check(paths: Iterable[PathLike], verifier: Verifier) -> list[VerifyReport]:
    """Verify files, log an error for each that is not as it was written, and return the reports."""
    reports = []
    for path in paths:
        report = await verifier.verify_file(path)
        reports.append(report)
        if not report.valid:
            found = [asdict(error) for error in report.errors[:10]]
            log.error("self-check failed", extra={"file": str(path), "findings": report.findings, "errors": found})
    return reports


def is_v1_file(path: PathLike) -> bool:
    """Whether a file begins with a record of format 1.

    Raises:
        CouldNotVerifyError: it cannot be read.
    """
    try:
        batch = next(LogFile(path).batches(), None)
    except StorageOperationError as exc:
        raise CouldNotVerifyError(str(exc)) from None
    if batch is None:
        return False
    try:
        parse_record(batch.lines[0])
    except MalformedV1Error:
        return False
    return True


def _kept(reaches: str | None) -> bytes | None:
    return None if reaches is None else hash_of(reaches)


def _reaching(report: VerifyReport, reaches: str | None, checks: Sequence[FileCheck]) -> VerifyReport:
    """Return a report, with a finding where no record has the hash that was kept."""
    if reaches is not None and not any(check.chain.reached for check in checks):
        message = "no record has the hash that was kept: what it stands for was cut off, changed, or put back"
        report.add(VerifyError(0, "chain_break", reaches, None, message))
    return report


def _all(values: Iterable[bool | None]) -> bool | None:
    """Return whether all are true; None where one is not known and none is false."""
    found = list(values)
    return False if False in found else None if None in found else True
