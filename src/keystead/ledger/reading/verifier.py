"""``Verifier``: is a log as it was written?

report = Verifier(TrustPolicy.load("app.policy.json")).verify("app.log")
assert report.valid, report.errors
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from keystead.config import is_production
from keystead.errors import CouldNotVerifyError, StorageOperationError
from keystead.ledger.format.records import (
    MAX_LINE_BYTES,
    FileHeader,
    MalformedRecordError,
)
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.files import LogFiles, without_companions
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.policy import PolicyTrust, TrustPolicy
from keystead.ledger.reading.report import ErrorType, VerifyError, VerifyReport
from keystead.ports import Closes, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime.loop import background_loop

PathLike = str | os.PathLike[str]
_ATTEMPTS: Final = 8
_LISTINGS: Final = 16
"""How often files are listed anew that changed while they were, or of which one is not there."""


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
            CouldNotVerifyError: a KMS or a file could not be reached, or no file was named.
            InvalidInputError: ``since`` is no checkpoint of this log.
        """
        given = path if isinstance(path, str | os.PathLike) else list(path)
        if not isinstance(given, str | os.PathLike) and not given:
            raise CouldNotVerifyError("no file of the log was named, and nothing was verified")
        for _ in range(_ATTEMPTS - 1):
            files, is_whole = _files(given, progress)
            seen, failure, report = _identities(files), None, None
            try:
                report = self._verify(files, since, is_whole, expect_closed)
            except CouldNotVerifyError as exc:
                failure = exc
            # Files that were removed while they were read are not where they were looked for.
            if (report is not None and report.valid) or _identities(_files(given, None)[0]) == seen:
                break
        else:
            files, is_whole = _files(given, progress)
            return self._verify(files, since, is_whole, expect_closed)
        if report is None:
            raise failure or CouldNotVerifyError("nothing was verified")
        return report

    def providers(self) -> dict[str, KmsProvider]:
        """Return the KMSs that it was given, and those that the policy names, opened; ``close`` closes these."""
        return self._providers()

    def _verify(
        self,
        files: list[LogFile],
        since: bytes | None,
        is_whole: bool,
        expect_closed: bool,
    ) -> VerifyReport:
        stream = self._stream(files)
        trust = PolicyTrust(self._policy, stream, self._providers())
        kept = None if since is None else trust.kept_checkpoint(since)
        checker = StreamChecker(trust, since=kept)
        try:
            report = checker.check(files, is_whole=is_whole, expect_closed=expect_closed)
        except StorageOperationError as exc:
            raise CouldNotVerifyError(str(exc)) from None
        if stream != self._policy.stream:
            report.warnings.append(f"this is the log {stream} of a forked worker, and not {self._policy.stream} itself")
        if self._policy.quorum and not report.vouched:
            message = f"no checkpoint is at hand that {self._policy.quorum} of the witnesses have cosigned"
            report.add(VerifyError(ErrorType.CHECKPOINT, message, str(files[-1].path), 0, 0, report.size))
        return report

    def _stream(self, files: list[LogFile]) -> str:
        """Return the stream that the files say they are of, where the policy covers it."""
        header = header_in(files[0])
        return header.stream if header is not None and self._policy.covers(header.stream) else self._policy.stream

    def _providers(self) -> dict[str, KmsProvider]:
        for name, kms in self._policy.kms_uris().items():
            if name not in self._given and name not in self._opened:
                opened = open_provider(kms, ProviderSettings(production=is_production()))
                self._opened[name] = GuardedProvider(opened.provider, name)
        return {**self._opened, **self._given}


def header_of(path: Path) -> FileHeader | None:
    """Return what a file's first line says, None where it is none of a log; errors as ``header_in``."""
    return header_in(LogFile(path))


def header_in(file: LogFile) -> FileHeader | None:
    """Return what a file's first line says, None where it is none of a log.

    Raises:
        CouldNotVerifyError: it cannot be read.
    """
    try:
        return file.beginning()[1]
    except StorageOperationError as exc:
        raise CouldNotVerifyError(str(exc)) from None
    except MalformedRecordError:
        return None


def _identities(files: list[LogFile]) -> list[tuple[Path, int]]:
    """Return what tells whether files are still the same ones."""
    found = []
    for file in files:
        try:
            found.append((file.path, file.path.stat().st_ino))
        except OSError:
            found.append((file.path, 0))
    return found


def _files(path: PathLike | Iterable[PathLike], progress: Callable[[int], object] | None) -> tuple[list[LogFile], bool]:
    """Return the files to read in their order, and whether they have to be the whole stream."""
    if not isinstance(path, str | os.PathLike):
        return [LogFile(each, progress) for each in path], False
    given = Path(path)
    if given.is_dir():
        headers = _headers_in(given)
        logs = {LogFiles.log_of(each) for _, each in headers}
        if len(logs) > 1:
            return [LogFile(each, progress) for _, each in sorted(headers)], True
        given = logs.pop()
    elif LogFiles.is_ended(given):
        return [LogFile(given, progress)], False
    return _of_stream(given, progress), True


def _headers_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the files of logs in a folder, each with its number.

    Raises:
        CouldNotVerifyError: there is none, or one cannot be read.
    """
    found = []
    for each in without_companions(sorted(each for each in folder.iterdir() if each.is_file())):
        try:
            header = header_of(each)
        except CouldNotVerifyError:
            # What has just ended or been compressed has another name now.
            if each.exists():
                raise
            continue
        if header is not None:
            found.append((header.file, each))
    if not found:
        raise CouldNotVerifyError(f"{folder} holds no file of a log")
    return found


def _of_stream(given: Path, progress: Callable[[int], object] | None) -> list[LogFile]:
    """Return the files of a stream as they were at one moment: its writer may end and compress them meanwhile."""
    files = LogFiles(given)
    for _ in range(_LISTINGS):
        first = _first_line(files.path)
        header = None
        with contextlib.suppress(MalformedRecordError):
            _, header = FileHeader.of_line(first.removesuffix(b"\n"))
        ended = files.ended()
        numbers = [*ended, *([] if header is None else [header.file])]
        has_gap = any(after != before + 1 for before, after in pairwise(numbers))
        if not has_gap and _first_line(files.path) == first:
            break
    found = [LogFile(each, progress) for each in ended.values()]
    if header is not None:
        name = files.name_of(header.file)
        later = (name, name.with_name(f"{name.name}.gz"))
        found.append(LogFile(given, progress, first=first, later=later))
    elif given.exists() or not ended:
        found.append(LogFile(given, progress))
    return found


def _first_line(path: Path) -> bytes:
    """Return the first line of the file that is written, nothing where it cannot be read."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                return file.readline(MAX_LINE_BYTES)
    except OSError:
        pass
    return b""
