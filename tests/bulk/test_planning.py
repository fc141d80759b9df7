"""What a plan tells, and that it leaves nothing behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import KeyRules, Operation
from keystead.errors import ConfigurationError, InvalidInputError
from tests.bulk.conftest import FILES, ROWS, RULES, content_of, plain_dataset


@pytest.mark.parametrize("operation", list(Operation))
def test_a_plan_counts_everything_and_writes_nothing(
    km: KeyManager, plain: Path, encrypted: Path, operation: Operation
) -> None:
    source = plain if operation is Operation.ENCRYPT else encrypted
    before = content_of(source)
    found = bulk.plan(km, operation, source, RULES)
    assert (found.files, found.rows, found.keys_beside, found.workers) == (FILES, FILES * ROWS, 0, 1)
    assert found.bytes == sum(path.stat().st_size for path in source.glob("country*/*.parquet"))
    assert found.largest_bytes * FILES >= found.bytes
    assert found.sample_rows == 3 * ROWS
    assert found.seconds > 0
    assert content_of(source) == before


def test_the_estimate_is_near_what_it_takes(km: KeyManager, tmp_path: Path) -> None:
    """Within a factor of thirty: other processes share the machine, at one time and not at another."""
    plain = plain_dataset(tmp_path / "large", 10, 20_000)
    found = bulk.plan(km, Operation.ENCRYPT, plain, RULES)
    started = time.perf_counter()
    bulk.encrypt(km, plain, tmp_path / "encrypted", RULES)
    took = time.perf_counter() - started
    assert took / 30 < found.seconds < took * 30
    assert bulk.plan(km, Operation.ENCRYPT, plain, RULES, engine=bulk.ProcessPool(2)).workers == 2


def test_keys_beside_files_cost_next_to_nothing(km: KeyManager, plain: Path, tmp_path: Path) -> None:
    bulk.encrypt(km, plain, tmp_path / "beside", KeyRules(in_file=False))
    found = bulk.plan(km, Operation.ROTATE, tmp_path / "beside")
    assert (found.keys_beside, found.seconds) == (FILES, 0.0)


def test_a_plan_refuses_what_the_job_would(km: KeyManager, plain: Path, encrypted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        bulk.plan(km, Operation.ENCRYPT, plain, KeyRules(columns={"pii": "absent"}))
    with pytest.raises(InvalidInputError, match="not encrypted"):
        bulk.plan(km, Operation.REENCRYPT, plain)
    with pytest.raises(InvalidInputError, match="encrypted already"):
        bulk.plan(km, Operation.ENCRYPT, encrypted, RULES)
    with pytest.raises(InvalidInputError, match="no folder"):
        bulk.plan(km, Operation.VERIFY, tmp_path / "absent")
