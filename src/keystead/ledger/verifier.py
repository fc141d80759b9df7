"""``Verifier``: is a log as it was written?

report = Verifier(TrustPolicy.load("app.policy.json")).verify("app.log")
assert report.valid, report.errors
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from keystead.config import is_production
from keystead.errors import CouldNotVerifyError, InvalidCiphertextError, StorageOperationError
from keystead.ledger.checking import StreamChecker
from keystead.ledger.log_files import LogFiles
from keystead.ledger.policy import PolicyTrust, TrustPolicy
from keystead.ledger.reading import LogFile
from keystead.ledger.records import FileHeader, Kind, MalformedRecordError, parse_line, parse_payload
from keystead.ledger.report import VerifyReport
from keystead.ports import Closes, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import open_provider
from keystead.providers.uri import ProviderSettings
from keystead.runtime.loop import background_loop

PathLike = str | os.PathLike[str]


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
        self, path: PathLike | Iterable[PathLike], since: bytes | None = None, *, expect_closed: bool = False
    ) -> VerifyReport:
        """Check a log.

        Args:
            path: the file that is or was written, with those that ended before it; one file that has ended, alone; a
                folder with the files of one stream; or some of its files, in their order.
            since: a checkpoint that was kept, as ``SealedFile.checkpoint`` returned it: the log has to continue it.
            expect_closed: the writer has closed the log, so that nothing may be missing at its end.

        Raises:
            CouldNotVerifyError: a KMS or a file could not be reached.
            InvalidInputError: ``since`` is no checkpoint of this log.
        """
        files, is_whole = _files(path)
        stream = self._stream(files)
        trust = PolicyTrust(self._policy, stream, self._providers())
        kept = None if since is None else trust.kept_checkpoint(since)
        checker = StreamChecker(trust, since=kept)
        try:
            return checker.check(map(LogFile, files), is_whole=is_whole, expect_closed=expect_closed)
        except (StorageOperationError, InvalidCiphertextError) as exc:
            raise CouldNotVerifyError(str(exc)) from None

    def _stream(self, files: list[Path]) -> str:
        """Return the stream that the files say they are of, where the policy covers it."""
        header = header_of(files[0]) if files else None
        return header.stream if header is not None and self._policy.covers(header.stream) else self._policy.stream

    def _providers(self) -> dict[str, KmsProvider]:
        for key in self._policy.keys:
            if key.kms is not None and key.provider not in self._given and key.provider not in self._opened:
                opened = open_provider(key.kms, ProviderSettings(production=is_production()))
                self._opened[key.provider] = GuardedProvider(opened.provider, key.provider)
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
