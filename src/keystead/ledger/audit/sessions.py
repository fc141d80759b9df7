"""The session in which this process authenticates its entries, and opening those of others.

Spec: docs/spec/audit-v1.md, 1.2 and 2.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from keystead.crypto.context import encode_context
from keystead.crypto.envelope import from_text, parse_header, to_text
from keystead.crypto.keyring import Keyring
from keystead.errors import InvalidCiphertextError, InvalidSignatureError
from keystead.ledger.audit.entries import coder
from keystead.ledger.audit.numbers import Numbers
from keystead.ledger.format.tags import Tagger
from keystead.ports import AuditSessionRow, Clock, Detail, Random

KEY_SIZE: Final = 32
LIFETIME_S: Final = 86_400.0
"""After so long another session begins."""
LONGEST_MS: Final = 2 * 86_400_000
"""An entry's time lies within so long after its session began."""
SLACK_MS: Final = 600_000
"""How far a clock may be set back, or forward, in a session."""
SESSION: Final = "audit.session"
"""The action of an entry that a session begins with."""
_ENDS_BACK_MS: Final = SLACK_MS // 2
"""A clock that was set back so far, behind the beginning of its session, has another session begun."""

Opens = Callable[[AuditSessionRow], Tagger | None]
"""Returns what makes the codes of a session; None where its key is not at hand.

Raises ``InvalidSignatureError`` where it is no session of this store.
"""


@dataclass(slots=True)
class NodeSession:
    """A session of this process: what makes codes, and which of its entries have been committed.

    Attributes:
        wrapped_by: the WRAP key that its key is wrapped by.
        lost: numbers whose transaction was undone, or whose end is not known.
    """

    row: AuditSessionRow
    make_code: Tagger = field(repr=False)
    wrapped_by: int
    began_s: float
    number: int = 0
    lost: Numbers = field(default_factory=Numbers)
    open: set[int] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Its id."""
        return self.row.id

    def is_over(self, clock: Clock) -> bool:
        """Whether another is to follow: a day has gone by, by either time, or the clock was set back behind it."""
        if clock.monotonic() - self.began_s >= LIFETIME_S:
            return True
        # The monotonic time stands still while a machine sleeps, and knows nothing of a clock that is set.
        return not -_ENDS_BACK_MS <= wall_ms(clock) - self.row.begun_ms < LIFETIME_S * 1000

    def serves(self, clock: Clock) -> bool:
        """Whether an entry of now would be taken."""
        return is_in_time(self.row, wall_ms(clock))

    def draw(self) -> int:
        """Return the number of another entry, which is open until it is settled."""
        number = self.number
        self.number += 1
        self.open.add(number)
        return number

    def settled(self) -> tuple[int, list[list[int]]]:
        """Return ``ok`` and ``undone`` as an entry says them."""
        ok = min(self.open, default=self.number)
        return ok, self.lost.ranges(ok)

    def settle(self, numbers: list[int], ok: int, *, is_committed: bool) -> None:
        """Note how the transaction of entries ended that had said ``ok``."""
        self.open.difference_update(numbers)
        if not is_committed:
            for number in numbers:
                self.lost.add(number)
            return
        # What was told is told: nothing below has to be said again.
        self.lost.drop_below(ok)


def is_in_time(row: AuditSessionRow, time_ms: float) -> bool:
    """Whether an entry of a time, in milliseconds since 1970, can be of a session."""
    return row.begun_ms - SLACK_MS <= time_ms <= row.begun_ms + LONGEST_MS + SLACK_MS


def session_context(store_id: str, session_id: str, node: str, begun_ms: int) -> bytes:
    """Return the encoded context that a session's key is wrapped with."""
    return encode_context(
        {
            "keystead.purpose": "audit-session",
            "keystead.store": store_id,
            "keystead.session": session_id,
            "keystead.node": node,
            "keystead.begun": str(begun_ms),
        }
    )


def begin_session(
    ring: Keyring, store_id: str, node: str, clock: Clock, random: Random
) -> tuple[NodeSession, dict[str, Detail]]:
    """Return a new session, and what its entry 0 says of it.

    Raises:
        KMSError: the WRAP keyring cannot be used now.
    """
    key, session_id = random(KEY_SIZE), random(16).hex()
    begun_ms = int(wall_ms(clock))
    wrapped = ring.seal(key, session_context(store_id, session_id, node, begun_ms))
    row = AuditSessionRow(session_id, node, wrapped, begun_ms)
    made = NodeSession(row, coder(key, store_id), parse_header(wrapped).key_id, clock.monotonic())
    where: dict[str, Detail] = {"host": platform.node(), "pid": os.getpid(), "release": _release()}
    return made, {"key": to_text(wrapped), "begun": begun_ms, **where}


def open_session(ring: Keyring, store_id: str, row: AuditSessionRow) -> Tagger:
    """Return what makes the codes of a session's entries.

    Raises:
        DecryptionError: it is another session's key, or was altered.
        DataKeyNotLoadedError: the WRAP key that it is wrapped by is not loaded.
        KMSError: the WRAP keyring cannot be used now.
    """
    context = session_context(store_id, row.id, row.node, row.begun_ms)
    return coder(ring.open(row.wrapped_key, context), store_id)


def first_opened(opens: Opens, told: Iterable[AuditSessionRow]) -> tuple[AuditSessionRow, Tagger] | None:
    """Return the first of what is told of one session that is true, with what makes its codes; None where none is.

    Raises:
        InvalidSignatureError: all of it is of another store, or was altered.
    """
    refusal: InvalidSignatureError | None = None
    is_out_of_reach = False
    for row in told:
        try:
            make_code = opens(row)
        except InvalidSignatureError as exc:
            refusal = exc
            continue
        if make_code is not None:
            return row, make_code
        is_out_of_reach = True
    if refusal is not None and not is_out_of_reach:
        raise refusal
    return None


def wrapped_by(row: AuditSessionRow) -> int | None:
    """Return the id of the WRAP key that a session's key is wrapped by; None where it is no wrapped key."""
    try:
        return parse_header(row.wrapped_key).key_id
    except InvalidCiphertextError:
        return None


def told_session(members: Mapping[str, Any]) -> AuditSessionRow | None:
    """Return the session that an entry 0 tells of; None where it tells of none."""
    details = members.get("details")
    if members.get("action") != SESSION or members.get("n") != 0 or not isinstance(details, dict):
        return None
    key, begun_ms = details.get("key"), details.get("begun")
    if not isinstance(key, str) or not isinstance(begun_ms, int):
        return None
    try:
        wrapped = from_text(key)
    except InvalidCiphertextError:
        return None
    return AuditSessionRow(str(members.get("session")), str(members.get("node")), wrapped, begun_ms)


def wall_ms(clock: Clock) -> float:
    """Return the wall time in milliseconds since 1970."""
    return clock.now().timestamp() * 1000


@cache
def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("keystead")
    except PackageNotFoundError:
        return "unknown"
