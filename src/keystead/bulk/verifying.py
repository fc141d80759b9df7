"""Verify a whole dataset: that everything decrypts, and is what was written."""

from __future__ import annotations

import threading

from keystead import blocking
from keystead.bulk.beginning import Beginning, Folder
from keystead.bulk.engines import BulkEngine
from keystead.bulk.job import Work
from keystead.bulk.manifest import Manifest
from keystead.bulk.report import BulkReport, OnProgress
from keystead.bulk.tasks import FileResult, KeyRules, Operation, Task
from keystead.errors import DecryptionError


def verify(
    km: blocking.KeyManager,
    dataset: Folder,
    rules: KeyRules | None = None,
    *,
    engine: BulkEngine | None = None,
    settings: Folder | None = None,
    on_progress: OnProgress | None = None,
) -> BulkReport:
    """Decrypt everything of a dataset, compare it with the manifest, and return what was found; nothing is written.

    With a manifest a file fails that is missing, not in it, of other rows, or not byte for byte the one that was
    written. Without one what fails is what does not decrypt, or is not encrypted.

    Args:
        rules: what the manifest must name; whoever may use another keyring could have sealed one of their own.

    Other arguments are those of ``encrypt``.

    Raises:
        DecryptionError: the manifest was changed by somebody else, or names other rules.
        KMSError: keys that cannot be used, of a store that is not the dataset's.
    """
    begun = Beginning.of(km, dataset, engine, settings)
    known = Manifest(begun.folder, km, rules)
    if rules is not None and not (known.is_known and known.rules == rules):
        raise DecryptionError(f"{begun.folder} has no manifest that names the rules that were given")
    tally = begun.tally(Operation.VERIFY, known.id if known.is_known else "", on_progress)
    todo = begun.known_ones(Operation.VERIFY, known, begun.files, tally)
    for name in {*known.names} - {each.name for each in begun.files}:
        tally.fail(name, DecryptionError.code, "it is in the manifest, and not there")
    tally.expect([each.file for each in todo], unchanged=0)

    def on_result(task: Task, results: list[FileResult]) -> None:
        for result in results:
            entry = known.current(result.name)
            if result.code:
                tally.fail(result.name, result.code, result.reason)
            elif entry is not None and entry.rows != result.rows:
                tally.fail(result.name, DecryptionError.code, f"it has {result.rows} rows, not {entry.rows}")
            else:
                tally.rows += result.rows
            tally.see(result.name)

    work = Work("verify", "", begun.folder, None, todo)
    begun.engine.run(work.tasks(begun.home, begun.engine), begun.home, on_result, threading.Event())
    return tally.report()
