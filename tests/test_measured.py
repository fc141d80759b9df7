"""Coverage is measured where it says something new."""

from __future__ import annotations

import pytest

from tests.measured import is_measured


@pytest.mark.parametrize(
    ("test", "is_one"),
    [
        ("tests/server/test_nodes.py::test_a[sqlite]", True),
        ("tests/server/test_nodes.py::test_a[postgresql]", False),
        ("tests/server/vault/test_auth.py::test_a[x-postgresql]", False),
        ("tests/fields/test_live.py::test_a[PostgreSQL]", False),
        ("tests/lifecycle/test_wrap_races.py::test_a[postgresql]", True),
        ("tests/stores/test_leases.py::test_a[postgresql]", True),
        ("tests/manager/test_doctor.py::test_on_postgresql", True),
        ("tests/soak/test_scenarios.py::test_a[crash]", False),
        ("tests/test_config.py::test_a", True),
    ],
)
def test_each_test_is_measured_or_not(test: str, *, is_one: bool) -> None:
    assert is_measured(test) is is_one
