"""Which tests coverage is measured by: to measure takes two thirds of a test's time.

Left out are tests on PostgreSQL of what they show on SQLite as well, and those whose work is done by other processes.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

TWICE: Final = ("postgresql", "PostgreSQL")
"""How the identifiers of tests on the second database begin."""
ON_BOTH: Final = frozenset({"stores", "lifecycle", "jobs"})
"""Folders of tests whose subject is not the same on the other database."""
OF_OTHERS: Final = frozenset({"benchmarks", "deploy", "docs", "examples", "scripts", "services", "soak"})
"""Folders of tests that start processes, and watch."""


def is_measured(node_id: str) -> bool:
    """Whether coverage is measured by a test, such as ``tests/jobs/test_runner.py::test_a_job_runs[postgresql]``."""
    path, _, test = node_id.partition("::")
    folder = PurePosixPath(path).parts[1]
    if folder in OF_OTHERS:
        return False
    _, _, parameters = test.partition("[")
    return folder in ON_BOTH or not any(each.startswith(TWICE) for each in parameters.rstrip("]").split("-"))
