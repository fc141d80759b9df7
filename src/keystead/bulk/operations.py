"""Encrypt, re-encrypt and rotate whole datasets: what each finds to do, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from keystead import blocking
from keystead.bulk.beginning import Beginning, Folder, active_versions, name_of_work, require_noted, require_ours
from keystead.bulk.datasets import FoundFile, require_apart
from keystead.bulk.engines import BulkEngine
from keystead.bulk.job import Run, ToDo, Work
from keystead.bulk.manifest import Manifest
from keystead.bulk.report import BulkReport, OnProgress
from keystead.bulk.tasks import KeyRules, Operation
from keystead.errors import InvalidInputError
from keystead.parquet.keys import material_of


def encrypt(
    km: blocking.KeyManager,
    source: Folder,
    target: Folder,
    rules: KeyRules,
    *,
    engine: BulkEngine | None = None,
    settings: Folder | None = None,
    on_progress: OnProgress | None = None,
) -> BulkReport:
    """Write a dataset of plain Parquet files anew, encrypted, and return what was done. The plain one stays.

    A file is committed whole or not at all. Call it again after any failure or crash: what was committed is not done
    again, and where everything was, nothing is. Files that were changed or added since are done, and none is removed.

    Args:
        km: an initialised ``keystead.blocking.KeyManager``.
        source: a folder of Parquet files, in folders of any depth; each must end in ``.parquet``.
        target: a folder that is new, empty, or the target of an earlier run.
        rules: which columns are under which keyrings.
        engine: what runs the work; this thread unless given.
        settings: the settings file by which workers in other processes open the same store as ``km``; without it their
            environment and working folder say.
        on_progress: called in this thread after each file.

    Raises:
        InvalidInputError: folders that cannot be, or a target whose files were made by other rules or by nobody known.
        ConflictError: another process is at work on the target, or took over.
        StoreFullError: the disk is full.
        WorkersLostError: no worker is left, or no scheduler.
        KMSError: keys that cannot be used.
    """
    target = Path(target)
    require_apart(Path(source), target)
    begun = Beginning.of(km, source, engine, settings)
    require_ours(target)
    with Run(begun.home, target, rules) as run:
        known = run.manifest
        if known.is_known and known.rules != rules:
            raise InvalidInputError(
                f"{target} was written by other rules: name another target, or give it new ones by re-encrypting it"
            )
        require_noted(target, known)
        name = name_of_work("encrypt", rules.arguments())
        left = [each for each in begun.files if not _is_copied(known, each, name)]
        tally = begun.tally(Operation.ENCRYPT, known.id, on_progress)
        tally.expect(left, unchanged=len(begun.files) - len(left))
        todo = [ToDo(Operation.ENCRYPT, each) for each in left]
        run.do(Work(name, active_versions(km, rules), begun.folder, rules, todo), rules, begun.engine, tally)
    return tally.report()


def reencrypt(
    km: blocking.KeyManager,
    source: Folder,
    target: Folder | None = None,
    rules: KeyRules | None = None,
    *,
    again: bool = False,
    engine: BulkEngine | None = None,
    settings: Folder | None = None,
    on_progress: OnProgress | None = None,
) -> BulkReport:
    """Write an encrypted dataset anew under new data keys, in its place or in another, and return what was done.

    In its place each new file takes the name of the old one when it is whole: at any time every file is whole, and
    readable. What is done already is that under the same rules and the same active versions of their keyrings.

    Args:
        target: another folder; without it the dataset itself.
        rules: by which it is written; those of its manifest unless given.
        again: do every file, also where an earlier run has.

    Other arguments and errors are those of ``encrypt``, and:

    Raises:
        InvalidInputError: no rules, or rules that keep keys beside the files of a dataset that is written in its place.
        DecryptionError: a manifest that was changed by somebody else. A single file that was is among the failures.
    """
    begun = Beginning.of(km, source, engine, settings)
    target = None if target is None else Path(target)
    if target is not None:
        require_apart(begun.folder, target)
        require_ours(target)
    origin = Manifest(begun.folder, km, rules)
    rules = _rules(begun.folder, rules, origin)
    if target is None and not rules.in_file:
        raise InvalidInputError(
            "in its place a dataset is written with the keys in its files, each of which is exchanged at once: set "
            "in_file, or name a target"
        )
    with Run(begun.home, target or begun.folder, rules) as run:
        known = run.manifest
        under = active_versions(km, rules)
        name = name_of_work("reencrypt", under, again=again)
        if target is not None:
            require_noted(target, known)
            left = [each for each in begun.files if not _is_copied(known, each, name)]
        else:
            origin = known
            left = [each for each in begun.files if (entry := known.current(each.name)) is None or entry.job != name]
        tally = begun.tally(Operation.REENCRYPT, known.id, on_progress)
        todo = begun.known_ones(Operation.REENCRYPT, origin, left, tally)
        tally.expect([each.file for each in todo], unchanged=len(begun.files) - len(left))
        run.do(Work(name, under, begun.folder, rules, todo), rules, begun.engine, tally)
    return tally.report()


def rotate_master_keys(
    km: blocking.KeyManager,
    dataset: Folder,
    rules: KeyRules | None = None,
    *,
    rewrap_only: bool = False,
    engine: BulkEngine | None = None,
    settings: Folder | None = None,
    on_progress: OnProgress | None = None,
) -> BulkReport:
    """Bring the keys of every file of a dataset under the active versions of their keyrings; return what was done.

    Of a file with its keys beside it these are wrapped anew, which does not touch the data. A file that has them in
    itself is written anew, as by ``reencrypt``, which costs what that costs. A file that needs nothing is left.

    Args:
        rules: as for ``reencrypt``, for files with their keys in themselves.
        rewrap_only: refuse the dataset where some file would have to be written anew.

    Other arguments and errors are those of ``encrypt`` and ``reencrypt``.
    """
    begun = Beginning.of(km, dataset, engine, settings)
    folder = begun.folder
    beside = {each for each in begun.files if material_of(folder / each.name).exists()}
    inside = [each for each in begun.files if each not in beside]
    if rewrap_only and inside:
        raise InvalidInputError(f"{inside[0].name} has its keys in itself, and would have to be written anew")
    if inside and not Manifest(folder, km, rules).names:
        # A manifest that names some files only would make strangers of the others.
        beside, inside = set(), list(begun.files)
    with Run(begun.home, folder, rules) as run:
        known = run.manifest
        rules = _rules(folder, rules, known) if inside else rules or known.rules or KeyRules()
        under = active_versions(km, rules)
        left = [each for each in inside if (entry := known.current(each.name)) is None or entry.under != under]
        tally = begun.tally(Operation.ROTATE, known.id, on_progress)
        todo = [ToDo(Operation.ROTATE, each) for each in begun.files if each in beside]
        todo += begun.known_ones(Operation.REENCRYPT, known, left, tally)
        tally.expect([each.file for each in todo], unchanged=len(inside) - len(left))
        work = Work(name_of_work("reencrypt", under), under, folder, _inside(rules), todo)
        run.do(work, rules, begun.engine, tally)
    return tally.report()


def _rules(folder: Path, given: KeyRules | None, known: Manifest) -> KeyRules:
    rules = given or known.rules
    if rules is None:
        raise InvalidInputError(f"{folder} has no manifest: say which columns are under which keyring")
    return rules


def _inside(rules: KeyRules) -> KeyRules:
    """Return rules by which a file that has its keys in itself keeps them there."""
    return replace(rules, in_file=True)


def _is_copied(known: Manifest, file: FoundFile, work: str) -> bool:
    """Return whether the file made of ``file`` is there, and ``file`` is what it was then."""
    entry = known.current(file.name)
    made_of = None if entry is None else (entry.source_size, entry.source_mtime_ns)
    return entry is not None and entry.job == work and made_of == (file.size, file.mtime_ns)
