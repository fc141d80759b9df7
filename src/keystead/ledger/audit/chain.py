"""The log of a trail in memory: its state, and the lines that come next. No I/O. Spec: docs/spec/audit-v1.md, 3."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Self

from keystead.crypto.merkle import Frontier
from keystead.errors import InvalidInputError
from keystead.ledger.audit.entries import canonical
from keystead.ledger.audit.retiring import SETTLED_MS
from keystead.ledger.format.records import Kind, Session
from keystead.ledger.format.tags import NO_TAG
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note, NoteSignature, unbase64
from keystead.ledger.writing.sealer import Sealer
from keystead.ports import Clock

FILE_RECORDS: Final = 100_000
CLOCK_STEP_MS: Final = 1000
_DAY_MS: Final = 86_400_000
_STATE: Final = b"keystead audit v1 state\n"
_NOTHING: Final = sha256(b"").hexdigest()
BEGIN: Final = "audit.begin"
END: Final = "audit.end"
FOUND: Final = "audit.state"
UNMARKED: Final = "unmarked"
"""What an entry ``audit.state`` says has been found where the store was not marked as one that keeps a trail."""


@dataclass(frozen=True, slots=True)
class TrailState:
    """How far a trail's log has come; see the specification, 3.5."""

    stream: str
    size: int = 0
    roots: tuple[bytes, ...] = ()
    tag: bytes = NO_TAG
    time: int = 0
    file: int = 0
    first: int = 0
    begun: int = 0
    ends: int | None = None
    since: int = 0
    over: int | None = None
    horizon: int = 0

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return the state in its bytes.

        Raises:
            ValueError: they are none.
        """
        members = json.loads(content)
        if not isinstance(members, dict) or members.keys() != set(cls.__slots__):
            raise ValueError("not a state")
        roots = tuple(_hash(each) for each in members.pop("roots"))
        state = cls(roots=roots, tag=_hash(members.pop("tag")), **members)
        numbers = [state.size, state.time, state.file, state.first, state.begun, state.ends or 0]
        numbers += [state.since, state.over or 0, state.horizon]
        if any(type(each) is not int or each < 0 for each in numbers) or type(state.stream) is not str:
            raise ValueError("not a state")
        try:
            Frontier(state.size, roots)
        except InvalidInputError as exc:
            raise ValueError("not a state") from exc
        return state

    def content(self) -> bytes:
        """Return its bytes."""
        members: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        members["roots"] = [b64encode(root).decode() for root in self.roots]
        members["tag"] = b64encode(self.tag).decode()
        return canonical(members).encode()

    @property
    def is_on(self) -> bool:
        """Whether the trail has begun, and has not been ended since."""
        return self.since > 0 and self.over is None

    def after(self, members: Mapping[str, Any]) -> Self:
        """Return the state after an entry, as far as that tells whether the trail is kept."""
        since, over = _turned(self.since, self.over, members)
        return replace(self, since=since, over=over)

    def checkpoint(self) -> Checkpoint:
        """Return what a checkpoint over its records says."""
        return Checkpoint(self.stream, self.size, Frontier(self.size, self.roots).root())

    def code(self, key: bytes, store_id: str) -> bytes:
        """Return the code that stands beside it."""
        text = store_id.encode()
        return hmac.digest(key, _STATE + len(text).to_bytes(4, "big") + text + self.content(), "sha256")


@dataclass(frozen=True, slots=True)
class SealedLine:
    """A record that is sealed and not kept yet: its number, its line, and its kind if it is one of the log's own."""

    number: int
    line: bytes
    kind: str | None


class Chain:
    """Goes on where a trail stands, in a session of its own. What it seals is taken by ``taken``."""

    def __init__(self, state: TrailState, session: Session, key: bytes, clock: Clock) -> None:
        self._clock = clock
        self._lines: list[SealedLine] = []
        self.stream = state.stream
        self.file, self.first, self.begun, self.ends = state.file, state.first, state.begun, state.ends
        self._since, self._over, self.horizon = state.since, state.over, state.horizon
        self._sealer = _sealer(state, session, key)
        self._begin_clock(session)
        if not state.size or state.ends:
            self._begin_file(state.ends or 1)
            return
        self._take(self._sealer.resume(session, key, self._now_ms()), Kind.SESSION)
        if state.ends is None:
            # Whether the process before crashed or was ended: in a table it leaves nothing behind its last record.
            self._control(Kind.RECOVERY, {"bytes": 0, "sha256": _NOTHING})
        self.ends = None

    def __repr__(self) -> str:
        return f"<Chain {self.stream!r} at record {self.size}, key hidden>"

    def copy(self) -> Chain:
        """Return the same chain, to be given up if what it seals is not kept."""
        made = Chain.__new__(Chain)
        made.__dict__ |= self.__dict__
        made._sealer, made._lines = self._sealer.copy(), list(self._lines)
        return made

    @property
    def size(self) -> int:
        """How many records the log has, those that are not kept yet included."""
        return self._sealer.number

    @property
    def session(self) -> Session:
        """The session it seals in."""
        return self._sealer.session

    @property
    def state(self) -> TrailState:
        """The state after everything that was sealed."""
        sealer = self._sealer
        return TrailState(
            self.stream,
            sealer.number,
            sealer.roots,
            self._tag,
            sealer.time_ms,
            self.file,
            self.first,
            self.begun,
            self.ends,
            self._since,
            self._over,
            self.horizon,
        )

    def taken(self) -> list[SealedLine]:
        """Return what was sealed since the last time."""
        lines, self._lines = self._lines, []
        return lines

    def seal(self, payloads: Sequence[bytes]) -> None:
        """Seal records of the application."""
        self._advance()
        self._take(self._sealer.seal(payloads, self._now_ms()), None)

    def turn(self, members: Mapping[str, Any]) -> None:
        """Take it where an authentic entry says that the trail begins, or ends."""
        self._since, self._over = _turned(self._since, self._over, members)

    def retain(self, files: Sequence[Mapping[str, int]], reason: str, horizon: int) -> None:
        """Say that files were removed on purpose, and take none of their entries a second time."""
        # Of sessions that may still have entries to come nothing is moved away.
        self.horizon = max(self.horizon, min(horizon, self._now_ms() - SETTLED_MS))
        self._advance()
        self._control(Kind.RETENTION, {"files": list(files), "reason": reason})

    def cut(self) -> Checkpoint:
        """Announce a checkpoint over all records so far, and return what is to be signed."""
        self._advance()
        checkpoint = self._sealer.checkpoint()
        self._control(Kind.CUT, {})
        return checkpoint

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint over all records so far, to be signed and put right behind them."""
        if self.ends is None:
            self._advance()
        return self._sealer.checkpoint()

    def put_checkpoint(self, checkpoint: Checkpoint, signature: NoteSignature) -> bytes:
        """Put a signed checkpoint into the log, and return it as a note."""
        note = Note(checkpoint.text(), (signature,)).render()
        # With the time of the record before: a signature may take longer than what is left of the epoch.
        self._control(Kind.CHECKPOINT, {"note": note.decode()}, self._sealer.time_ms)
        return note

    @property
    def needs_new_file(self) -> bool:
        """Whether the next record belongs into another file: another day has begun, or this one is long enough."""
        is_other_day = self._now_ms() // _DAY_MS > self.begun // _DAY_MS
        return self.ends is None and (is_other_day or self.size - self.first >= FILE_RECORDS)

    def end_file(self, *, is_last: bool) -> None:
        """Say that the file ends; the stream goes on in another, or is closed. At most a checkpoint comes behind it."""
        self._advance()
        self.ends = 0 if is_last else self.file + 1
        self._control(Kind.CLOSE, {} if is_last else {"next": self.ends})

    def next_file(self, session: Session | None, key: bytes | None) -> None:
        """Begin the file that the stream goes on in, in a session of its own if there is one."""
        if session is not None and key is not None:
            sealer, self._sealer = self._sealer, _sealer(self.state, session, key)
            sealer.wipe()
            self._begin_clock(session)
        self._begin_file(self.ends or self.file + 1)

    def wipe(self) -> None:
        """Erase the session's key."""
        self._sealer.wipe()

    def _begin_file(self, number: int) -> None:
        self._sealer.end_epochs(self._epoch())
        self.file, self.first, self.ends = number, self.size, None
        self._take(self._sealer.file(number, self._expected_ms()), Kind.FILE)
        self.begun = self._sealer.time_ms

    def _advance(self) -> None:
        """Write what comes before the next record: of an epoch that began, of a clock that was set."""
        sealer = self._sealer
        sealer.end_epochs(self._epoch())
        if sealer.is_in_new_epoch:
            self._take(sealer.epoch(self._expected_ms()), Kind.EPOCH)
        step = self._now_ms() - self._expected_ms()
        if sealer.session.epoch_s and abs(step) > CLOCK_STEP_MS:
            self._take(sealer.clock_step(step, self._now_ms()), Kind.CLOCK)

    def _control(self, kind: Kind, payload: Mapping[str, Any], now_ms: int | None = None) -> None:
        self._take(self._sealer.control(kind, payload, self._now_ms() if now_ms is None else now_ms), kind)

    def _take(self, lines: bytes, kind: Kind | None) -> None:
        found = lines.split(b"\n")[:-1]
        number = self._sealer.number - len(found)
        name = None if kind is None else kind.value
        self._lines += [SealedLine(at, line, name) for at, line in enumerate(found, number)]
        self._tag = self._sealer.tag

    def _begin_clock(self, session: Session) -> None:
        self._started_s = self._clock.monotonic()
        self._start_ms = session.start

    def _epoch(self) -> int:
        epoch_s = self._sealer.session.epoch_s
        return int((self._clock.monotonic() - self._started_s) // epoch_s) if epoch_s else 0

    def _expected_ms(self) -> int:
        elapsed_s = self._clock.monotonic() - self._started_s
        return self._start_ms + self._sealer.session.steps + int(elapsed_s * 1000)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _turned(since: int, over: int | None, members: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return when a trail began and was ended, after an entry; of several the one with the highest epoch counts."""
    epoch, action, details = members.get("epoch"), members.get("action"), members.get("details")
    is_found = action == FOUND and isinstance(details, Mapping) and details.get("found") == UNMARKED
    if not (is_found or action in (BEGIN, END)) or type(epoch) is not int or epoch <= max(since, over or 0):
        return since, over
    return (since, epoch) if action == END else (epoch, None)


def _sealer(state: TrailState, session: Session, key: bytes) -> Sealer:
    tree = Frontier(state.size, state.roots)
    return Sealer(state.stream, session, key, tree=tree, tag=state.tag, time_ms=state.time)


def _hash(text: object) -> bytes:
    content = unbase64(text) if isinstance(text, str) else None
    if content is None or len(content) != len(NO_TAG):
        raise ValueError("not a hash")
    return content
