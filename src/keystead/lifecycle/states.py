"""The state machine of a data key. Spec: docs/spec/key-states.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystead.errors import KeyStateError
from keystead.model import DataKeyState, KeyRecord

_S = DataKeyState

TRANSITIONS: Final[Mapping[DataKeyState, frozenset[DataKeyState]]] = {
    _S.PRE_ACTIVE: frozenset({_S.ACTIVE, _S.DECRYPT_ONLY}),
    _S.ACTIVE: frozenset({_S.DECRYPT_ONLY}),
    _S.DECRYPT_ONLY: frozenset({_S.DISABLED, _S.PENDING_DESTROY}),
    _S.DISABLED: frozenset({_S.DECRYPT_ONLY, _S.PENDING_DESTROY}),
    _S.PENDING_DESTROY: frozenset({_S.DISABLED, _S.DESTROYED}),
    _S.DESTROYED: frozenset(),
}
"""From each state, the states a key may go to."""


def require_transition(key: KeyRecord, target: DataKeyState) -> None:
    """Raise unless ``key`` may go to ``target``.

    Raises:
        KeyStateError: naming the states from which it may.
    """
    if target in TRANSITIONS[key.state]:
        return
    sources = " or ".join(state for state, targets in TRANSITIONS.items() if target in targets)
    raise KeyStateError(
        f"data key {key.id} (keyring {key.keyring!r} version {key.version}) is {key.state} and cannot become "
        f"{target}; that takes a key that is {sources or 'in no state at all'}"
    )
