"""``Verifier``: is a log as it was written?

report = Verifier(TrustPolicy.load("app.policy.json")).verify("app.log")
assert report.valid, report.errors
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from keystead.config import is_production
from keystead.errors import CouldNotVerifyError, InvalidCiphertextError, StorageOperationError
from keystead.ledger.checking import StreamChecker
from keystead.ledger.log_files import LogFiles
from keystead.ledger.policy import PolicyTrust, TrustPolicy
from keystead.ledger.reading import LogFile
from keystead.ledger.records import FileHeader, Kind, MalformedRecordError, parse_line, parse_payload
from keystead.ledger.report import ErrorType, VerifyError, VerifyReport
from keystead.ports import Closes, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime.loop import background_loop

PathLike = str | os.PathLike[str]
_ATTEMPTS: Final = 8


class Verifier:
    """Checks logs against a policy. Synchronous; what a KMS has to open is asked once for each session.

    Args:
        policy: whose keys count.
        providers: KMSs by the names that the log knows them by; others are opened by the URIs in the policy.
    """

    def __init__(self, policy: TrustPolicy, providers: Mapping[str, KmsProvider] | None = None) -> None:
        self._policy = policy
        self._given = dict(providers or {})
        self._opened: dict[str, GuardedProvider] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the KMSs that it opened itself; idempotent."""
        while self._opened:
            _, provider = self._opened.popitem()
            if isinstance(provider, Closes):
                background_loop.run(provider.aclose())

    def verify(
        self,
        path: PathLike | Iterable[PathLike],
        since: bytes | None = None,
        *,
        expect_closed: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> VerifyReport:
        """Check a log.

        Args:
            path: the file that is or was written, with those that ended before it; one file that has ended, alone; a
                folder with the files of one stream; or some of its files, in their order.
            since: a checkpoint that was kept, as ``SealedFile.checkpoint`` returned it: the log has to continue it.
            expect_closed: the writer has closed the log, so that nothing may be missing at its end.
            progress: is told how many bytes of the files were read since the last time.

        Raises:
            CouldNotVerifyError: a KMS or a file could not be reached.
            InvalidInputError: ``since`` is no checkpoint of this log.
        """
        given = path if isinstance(path, str | os.PathLike) else list(path)
        for _ in range(_ATTEMPTS - 1):
            files, is_whole = _files(given)
            seen, failure, report = _identities(files), None, None
            try:
                report = self._verify(files, since, is_whole, expect_closed, progress)
            except CouldNotVerifyError as exc:
                failure = exc
            # Files that ended, or were compressed, while they were read are not where they were looked for.
            if (report is not None and report.valid) or _identities(_files(given)[0]) == seen:
                break
        else:
            files, is_whole = _files(given)
            return self._verify(files, since, is_whole, expect_closed, progress)
        if report is None:
            raise failure or CouldNotVerifyError("nothing was verified")
        return report

    def _verify(
        self,
        files: list[Path],
        since: bytes | None,
        is_whole: bool,
        expect_closed: bool,
        progress: Callable[[int], object] | None,
    ) -> VerifyReport:
        stream = self._stream(files)
        trust = PolicyTrust(self._policy, stream, self._providers())
        kept = None if since is None else trust.kept_checkpoint(since)
        checker = StreamChecker(trust, since=kept)
        read = [LogFile(file, progress) for file in files]
        try:
            report = checker.check(read, is_whole=is_whole, expect_closed=expect_closed)
        except (StorageOperationError, InvalidCiphertextError) as exc:
            raise CouldNotVerifyError(str(exc)) from None
        if stream != self._policy.stream:
            report.warnings.append(f"this is the log {stream} of a forked worker, and not {self._policy.stream} itself")
        if self._policy.quorum and not report.vouched and report.files:
            message = f"no checkpoint is at hand that {self._policy.quorum} of the witnesses have cosigned"
            report.add(VerifyError(ErrorType.CHECKPOINT, message, str(files[-1]), 0, 0, report.size))
        return report

    def _stream(self, files: list[Path]) -> str:
        """Return the stream that the files say they are of, where the policy covers it."""
        header = header_of(files[0]) if files else None
        return header.stream if header is not None and self._policy.covers(header.stream) else self._policy.stream

    def _providers(self) -> dict[str, KmsProvider]:
        for name, kms in self._policy.kms_uris().items():
            if name not in self._given and name not in self._opened:
                opened = open_provider(kms, ProviderSettings(production=is_production()))
                self._opened[name] = GuardedProvider(opened.provider, name)
        return {**self._opened, **self._given}


def header_of(path: Path) -> FileHeader | None:
    """Return what a file's first line says, None where it is none of a log.

    Raises:
        CouldNotVerifyError: it cannot be read.
    """
    try:
        batch = next(LogFile(path).batches(), None)
    except StorageOperationError as exc:
        raise CouldNotVerifyError(str(exc)) from None
    if batch is None:
        return None
    try:
        record = parse_line(batch.lines[0])
        return FileHeader.of(parse_payload(record.payload)) if record.kind == Kind.FILE else None
    except MalformedRecordError:
        return None


def _identities(files: list[Path]) -> list[tuple[Path, int]]:
    """Return what tells whether files are still the same ones."""
    found = []
    for file in files:
        try:
            found.append((file, file.stat().st_ino))
        except OSError:
            found.append((file, 0))
    return found


def _files(path: PathLike | Iterable[PathLike]) -> tuple[list[Path], bool]:
    """Return the files to read in their order, and whether they have to be the whole stream."""
    if not isinstance(path, str | os.PathLike):
        return [Path(each) for each in path], False
    given = Path(path)
    if given.is_dir():
        found = [each for each in sorted(given.iterdir()) if each.is_file()]
        headers = [(header.file, each) for each in found if (header := header_of(each))]
        if not headers:
            raise CouldNotVerifyError(f"{given} holds no file of a log")
        return [each for _, each in sorted(headers)], True
    if LogFiles.is_ended(given):
        return [given], False
    ended = LogFiles(given).ended()
    return [*ended.values(), *([given] if given.exists() or not ended else [])], True
