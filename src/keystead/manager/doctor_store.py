"""The examination of a store: read, and every WRAP key unwrapped. Nothing is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from keystead.errors import (
    DecryptionError,
    ForeignSchemaError,
    KMSError,
    ProviderConnectionError,
    SchemaVersionError,
    StoreNotFoundError,
)
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.surroundings import NoJournal
from keystead.lifecycle.wrapping import KekWrapper
from keystead.manager.audit_status import status_of
from keystead.manager.doctor_audit import ABOUT, trail_findings
from keystead.manager.doctor_erasures import look_at_erasures
from keystead.manager.findings import Finding, Notes
from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, StoreState, WrapState
from keystead.model.counts import counted
from keystead.ports import Clock, ErasureLog, ErasureMark, KeyStore, NodeRecord, SeenState, StateJournal

AT_ONCE: Final = 8
"""How many WRAP keys are unwrapped at the same time."""
TOLD: Final = 5
LATE: Final = timedelta(hours=1)
_LATER_CHECKS: Final = ("restored", "WRAP keys", "wraps", "exports", "nodes", "index keys", "rotation")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUnderTest:
    """A store to be examined; ``wrapper`` None: no provider is there to unwrap its keys."""

    store: KeyStore
    wrapper: KekWrapper | None
    journal: StateJournal
    clock: Clock
    erasures: ErasureLog | None = None


@dataclass(frozen=True, slots=True)
class _Contents:
    state: StoreState
    rows: Sequence[KeyRecord]
    nodes: Sequence[NodeRecord]
    erasures: ErasureMark | None


class StoreExamination:
    """Looks at one store within ``deadline_s``."""

    def __init__(self, under_test: StoreUnderTest, *, deadline_s: float) -> None:
        self._it = under_test
        self._deadline_s = deadline_s
        self._notes = Notes("store")

    async def run(self) -> list[Finding]:
        """Return what was found."""
        try:
            async with asyncio.timeout(self._deadline_s):
                if (contents := await self._read()) is not None:
                    await self._examine(contents)
        except TimeoutError:
            self._notes.fail(
                "time",
                f"it had not answered everything within {self._deadline_s:g} s",
                "look for what holds the database up, or give it more time with --timeout",
            )
        return self._notes.findings

    async def _read(self) -> _Contents | None:
        begun = self._it.clock.monotonic()
        try:
            await self._open()
            contents = await self._contents()
        except StoreNotFoundError as exc:
            self._notes.error("reachable", exc)
            self._notes.skip(("schema", *_LATER_CHECKS), "not looked at: there is no store")
            return None
        except (SchemaVersionError, ForeignSchemaError) as exc:
            self._notes.ok("reachable", "it answered")
            self._notes.error("schema", exc)
        except KMSError as exc:
            self._notes.error("reachable", exc)
            self._notes.skip("schema", "not looked at: the store cannot be read")
        else:
            self._notes.ok("reachable", f"answered in {1000 * (self._it.clock.monotonic() - begun):.0f} ms")
            self._notes.ok("schema", "this release works on it")
            return contents
        self._notes.skip(_LATER_CHECKS, "not looked at: the store cannot be read")
        return None

    async def _open(self) -> None:
        file: Path | None = getattr(self._it.store, "file", None)
        if file is not None:
            from keystead.stores.creation import require_filled

            await require_filled(file)
        await self._it.store.open()

    async def _contents(self) -> _Contents:
        async with self._it.store.reading() as work:
            state, nodes, mark = await work.state(), await work.live_nodes(), await work.erasure_mark()
            rows = await all_keys(work, only=lambda row: row.state is not DataKeyState.DESTROYED)
        return _Contents(state, rows, nodes, mark)

    async def _examine(self, contents: _Contents) -> None:
        if contents.state.restored:
            cure = "if this is the store you mean: `keystead store recover`"
            self._notes.fail("restored", "it is older than a state already seen: it decrypts only", cure)
        else:
            self._notes.ok("restored", "it is as far as any state seen")
        await self._unwrap(contents)
        await self._compare_exports(contents)
        self._look_at_nodes(contents)
        self._look_at_index_keys(contents)
        self._look_at_rotation(contents)
        seen = await self._seen(contents)
        await look_at_erasures(self._notes, self._it.erasures, contents.erasures, seen.erasures)
        self._notes.findings += await self._look_at_trail(contents, seen)

    async def _look_at_trail(self, contents: _Contents, seen: SeenState) -> list[Finding]:
        try:
            return trail_findings(await status_of(self._it.store, known=seen.audited), len(contents.nodes))
        except KMSError as exc:
            notes = Notes(ABOUT)
            notes.error("kept", exc)
            return notes.findings

    async def _seen(self, contents: _Contents) -> SeenState:
        with contextlib.suppress(KMSError):
            return await asyncio.to_thread(self._it.journal.read, contents.state.store_id)
        return SeenState()

    async def _unwrap(self, contents: _Contents) -> None:
        wraps = [row for row in contents.rows if row.purpose is KeyringPurpose.WRAP and row.state.can_decrypt]
        if self._it.wrapper is None:
            self._notes.skip(("WRAP keys", "wraps"), "not tried: no provider could be opened")
            return
        gate, wrapper, store_id = asyncio.Semaphore(AT_ONCE), self._it.wrapper, contents.state.store_id

        async def of(row: KeyRecord) -> tuple[KMSError | None, dict[str, WrapState]]:
            async with gate:
                try:
                    await wrapper.unwrap(store_id, row)
                    return None, dict(await wrapper.check_wraps(store_id, row, opens=True))
                except KMSError as exc:
                    return exc, {}

        outcomes = dict(zip((row.id for row in wraps), await asyncio.gather(*map(of, wraps)), strict=True))
        self._tell_unwrapped({key_id: error for key_id, (error, _) in outcomes.items()})
        self._tell_wraps([(key_id, states) for key_id, (_, states) in outcomes.items() if states])

    def _tell_unwrapped(self, outcomes: dict[int, KMSError | None]) -> None:
        refused = {key_id: exc for key_id, exc in outcomes.items() if isinstance(exc, DecryptionError)}
        others = {key_id: exc for key_id, exc in outcomes.items() if exc is not None and key_id not in refused}
        for exc in list(refused.values())[:TOLD]:
            self._notes.error("WRAP keys", exc)
        if len(refused) > TOLD:
            cure = "`keystead store verify` names every one"
            self._notes.fail("WRAP keys", f"{counted(len(refused) - TOLD, 'more does', 'more do')} not unwrap", cure)
        for other in list(others.values())[:1]:
            if isinstance(other, ProviderConnectionError):
                told = f"{len(others)} could not be asked for ({other.code}): see the providers"
                self._notes.skip("WRAP keys", told)
            else:
                self._notes.error("WRAP keys", other)
        if not refused and not others:
            told = "each one unwraps" if outcomes else "none is there yet: the first start makes one"
            self._notes.ok("WRAP keys", told)

    def _tell_wraps(self, checked: Sequence[tuple[int, dict[str, WrapState]]]) -> None:
        """Tell how the wraps of several KEKs stand, where there are such rows."""
        total = counted(len(checked), "WRAP key")
        counts = Counter((name, state) for _, states in checked for name, state in states.items())
        for key_id, states in checked:
            if refusing := [name for name, state in states.items() if state is WrapState.REFUSED]:
                self._notes.fail(
                    "wraps",
                    f"WRAP key {key_id}: {', '.join(refusing)} refuses its wrap of what another KEK opens: it was "
                    "damaged, or another key was slipped in",
                    "compare the row with an export; `keystead key rewrap` makes a new WRAP key that all agree on",
                )
        for (name, state), count in counts.items():
            if state.is_mended_by_rewrap:
                told = f"{name}: {state.value} in {count} of {total}"
                self._notes.warn("wraps", told, "`keystead key rewrap`")
            elif state is WrapState.UNREACHABLE:
                self._notes.skip("wraps", f"{name}: could not be asked for {count} of {total}")
        if checked and {state for _, state in counts} == {WrapState.CURRENT}:
            self._notes.ok("wraps", "every KEK opens each WRAP key")

    async def _compare_exports(self, contents: _Contents) -> None:
        if isinstance(self._it.journal, NoJournal):
            self._notes.skip("exports", "no state_dir is set, where exports would be remembered")
            return
        try:
            seen = await asyncio.to_thread(self._it.journal.read, contents.state.store_id)
        except KMSError as exc:
            self._notes.error("exports", exc, is_warning=True)
            return
        newest = max((row.created_at for row in contents.rows), default=None)
        cure = "`keystead store export FILE` now, and after each new key; keep it apart from the KEK"
        if newest is None:
            self._notes.ok("exports", "there is no key to export yet")
        elif seen.exported_at is None:
            self._notes.warn("exports", "no export of this store is known here", cure)
        elif seen.exported_at < newest:
            told = f"the last known one ({seen.exported_at:%Y-%m-%d %H:%MZ}) is older than the newest key"
            self._notes.warn("exports", told, cure)
        else:
            self._notes.ok("exports", f"the last known one is of {seen.exported_at:%Y-%m-%d %H:%MZ}")

    def _look_at_nodes(self, contents: _Contents) -> None:
        waiting = [row for row in contents.rows if row.state is DataKeyState.PRE_ACTIVE and not _is_index(row)]
        behind = [node for node in contents.nodes if any(node.seen_epoch < row.published_epoch for row in waiting)]
        told = counted(len(contents.nodes), "running process", "running processes")
        if behind:
            names = ", ".join(sorted({repr(row.keyring) for row in waiting})[:TOLD])
            self._notes.warn(
                "nodes",
                f"{told}; {counted(len(behind), 'has', 'have')} not loaded the new version of keyring {names} yet",
                "if that lasts longer than two poll intervals, look at the logs of these processes",
            )
        else:
            self._notes.ok("nodes", told)

    def _look_at_index_keys(self, contents: _Contents) -> None:
        pending = sorted(
            row.keyring for row in contents.rows if _is_index(row) and row.state is DataKeyState.PRE_ACTIVE
        )
        for keyring in pending:
            self._notes.warn(
                "index keys",
                f"keyring {keyring!r} is between two index keys: every write computes both",
                "re-encrypt its fields (`keystead reencrypt`), or give up: `keystead key rotate-index --abandon`",
            )
        if not pending:
            self._notes.ok("index keys", "no rotation of one is under way")

    def _look_at_rotation(self, contents: _Contents) -> None:
        now = self._it.clock.now()
        active = [row for row in contents.rows if row.state is DataKeyState.ACTIVE]
        expired = sorted(row.keyring for row in active if row.expires_at is not None and row.expires_at <= now)
        late = sorted(row.keyring for row in active if row.rotate_after is not None and row.rotate_after + LATE < now)
        cure = "`keystead maintain`; and see why no running process rotates"
        if expired:
            told = f"the active version of {_told(expired)} has expired: nothing is encrypted under it"
            self._notes.fail("rotation", told, cure)
        elif late:
            self._notes.warn("rotation", f"overdue for {_told(late)}", cure)
        else:
            self._notes.ok("rotation", "nothing is overdue")


def _is_index(row: KeyRecord) -> bool:
    return row.purpose is KeyringPurpose.INDEX


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(repr(name) for name in names[:TOLD]) + more
