"""``keystead log verify`` of files that fapilog-tamper wrote: its format 1."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType

from keystead.cli.frame import NOT_VERIFIED, say, wrong_usage
from keystead.cli.render import Outcome, table
from keystead.errors import CouldNotVerifyError
from keystead.integrations.fapilog import EnvKeyStore, Verifier, VerifyReport, is_v1_file
from keystead.integrations.fapilog.v1.manifest import SUFFIX
from keystead.model.counts import counted

SHOWN: Final = 50


def v1_files(paths: list[str]) -> list[str]:
    """Return the paths without manifests if the first is a file of format 1, or has a manifest of it; else none.

    Raises:
        CouldNotVerifyError: the file cannot be read.
    """
    files = [path for path in paths if not path.endswith(SUFFIX)]
    is_one = bool(files) and Path(files[0]).is_file() and (is_v1_file(files[0]) or Path(files[0] + SUFFIX).is_file())
    return files if is_one else []


def verified_v1(files: list[str], key_env: str | None) -> Outcome:
    """Verify files, each with its manifest, in the order that they are given in.

    Raises:
        CouldNotVerifyError: the variable or a file is not there.
        ConfigurationError: the variable holds no key.
    """
    if key_env is None:
        wrong_usage(f"{files[0]} is a file of fapilog-tamper: name the variable with its key, --key-env VAR")
    store = EnvKeyStore(variable=key_env)
    if not store.get_keys(""):
        raise CouldNotVerifyError(f"the environment variable {key_env} is not set")
    verifier = Verifier(store)
    report = verifier.check_file(files[0]) if len(files) == 1 else verifier.check_files(files)
    for warning in report.warnings:
        say(f"warning: {warning}")
    return Outcome(asdict(report), _shown(report, len(files)), 0 if report.valid else NOT_VERIFIED)


def _shown(report: VerifyReport, files: int) -> RenderableType:
    state = "as it was written" if report.valid else "NOT as it was written"
    counts = f"{counted(report.records_checked, 'record')}, {counted(files, 'file')}"
    summary = f"fapilog-tamper, format 1: {state} ({counts})"
    if report.valid:
        return summary
    name = os.path.basename(report.file_path)
    rows = [(each.error_type, each.seq, f"{name}:{each.line}", each.offset, each.message) for each in report.errors]
    return Group(summary, table("finding", "record", "file:line", "offset", "what", rows=rows[:SHOWN]))
