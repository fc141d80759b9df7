"""Random edits of a log: none goes unseen, and none is more than a finding. The soak makes ten million of them."""

from __future__ import annotations

from soak.log_edits import fuzz

EDITS = 1_000


def test_no_edit_goes_unseen_and_none_is_an_exception() -> None:
    number, _, accepted, raised = fuzz(seed=20301, edits=EDITS)
    assert (number, accepted, raised) == (EDITS, [], [])
