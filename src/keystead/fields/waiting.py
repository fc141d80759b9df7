"""A worker that waits where the application's table is, and plans or re-encrypts when somebody asks for it.

Of several that wait for one field exactly one takes a wish. Whoever took it says again and again that it is at it; of
one that has died another one takes it over, which is no harm: a re-encryption goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from keystead.errors import InvalidInputError, KMSError
from keystead.fields.field import Field
from keystead.fields.importing.reading import Importer
from keystead.fields.job_records import target_of
from keystead.fields.plan_text import plan_text
from keystead.fields.planning import plan
from keystead.fields.progress import ReencryptProgress, ReencryptReport
from keystead.fields.reencrypt import BATCH_ROWS, OnProgress, Place, opened, reencrypt, require_pace
from keystead.fields.surroundings import Manager, Session
from keystead.fields.wishes import event_of
from keystead.jobs.runner import code_of
from keystead.ports import ReencryptionRecord, ReencryptionState, WishKind, WishRecord, WishState

log = logging.getLogger("keystead.fields")

WAIT_S: Final = 15.0
NOTE_S: Final = 30.0
"""How often a worker that waits writes that it does."""
MISSED: Final = 3
"""After so many notes that are missing nobody is taken to wait any more."""
HELD_MS: Final = 60_000
"""How long a wish is its worker's without a word from it."""
HOLD_S: Final = 15.0
SETTLED_MS: Final = 2_000
"""A re-encryption that changed so lately may have a worker that is about to take a part of it."""
LOOKED_AT: Final = 10
_OF_NOW: Final = frozenset({"active", "indexes", "verify"})
"""What of a target follows from the keys there are, and not from how the field is declared."""

OnWish = Callable[[WishRecord], None]


async def serve_wishes(
    km: Manager,
    url: str,
    field: Field,
    *,
    key_column: str | tuple[str, ...] | None = None,
    plaintext_column: str | None = None,
    importer: Importer | None = None,
    batch_rows: int = BATCH_ROWS,
    workers: int = 1,
    rows_per_s: float | None = None,
    poll_s: float = WAIT_S,
    once: bool = False,
    on_wish: OnWish | None = None,
    on_progress: OnProgress | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> int:
    """Wait for wishes of a field, and do each; return how many were done. The field is registered.

    A re-encryption of this declaration that runs and that nobody works on any more is gone on with as well. Cancel it
    to stop it: a re-encryption ends after the batch at hand, and goes on with the next worker.

    Args:
        km, url, field, key_column, plaintext_column, importer, batch_rows, workers, rows_per_s: as of ``reencrypt``.
        poll_s: how often the store is asked.
        once: do what was asked for by now, and return.
        on_wish: called with each wish when it is taken, and when it has ended.
        on_progress: as of ``reencrypt``.
        sleep: waits.

    Raises:
        InvalidInputError: as ``reencrypt``, before anything is waited for.
        KMSError: the store cannot be used, and it is no use to ask again.
    """
    require_pace(batch_rows, rows_per_s, workers)
    if poll_s <= 0:
        raise InvalidInputError("poll_s is above zero")
    place = Place(url, field, key_column, plaintext_column)
    key = await asyncio.to_thread(place.check)
    cipher, registered, session = await opened(km, field, url)
    found: dict[str, Any] = {"key_column": key_column, "plaintext_column": plaintext_column, "importer": importer}
    pace: dict[str, Any] = {"batch_rows": batch_rows, "workers": workers, "rows_per_s": rows_per_s}

    async def planned() -> str:
        return plan_text(await plan(km, url, field, **found))

    async def run(on_progress: OnProgress) -> ReencryptReport:
        return await reencrypt(km, url, field, **found, **pace, on_progress=on_progress)

    name = None if importer is None else importer.name
    waiting = Waiting(
        session=session,
        field_id=registered.id,
        target=target_of(cipher, registered, plaintext_column, key, name).to_json(),
        locator=registered.locator,
        poll_s=poll_s,
        plan=planned,
        run=run,
        on_wish=on_wish or (lambda wish: None),
        on_progress=on_progress or (lambda progress: None),
    )
    done = 0
    try:
        while True:
            try:
                has_done = await waiting.look()
            except KMSError as exc:
                if once or not exc.retryable:
                    raise
                log.warning("waiting for wishes of %s: %s; it is tried again", registered.id, exc.code)
                has_done = False
            done += has_done
            if has_done:
                continue
            if once:
                return done
            await sleep(poll_s)
    finally:
        await waiting.stop()


@dataclass(slots=True)
class Waiting:
    """One worker that waits. ``plan`` and ``run`` do what is asked for."""

    session: Session
    field_id: str
    target: str
    locator: str
    poll_s: float
    plan: Callable[[], Awaitable[str]]
    run: Callable[[OnProgress], Awaitable[ReencryptReport]]
    on_wish: OnWish
    on_progress: OnProgress
    name: str = ""
    noted_ms: int | None = None
    job_id: str | None = None

    def __post_init__(self) -> None:
        """Take a name that no other worker has."""
        self.name = f"{self.session.surroundings.node.value[:200]}/{secrets.token_hex(4)}"

    async def look(self) -> bool:
        """Do what is asked for, if anything is; return whether a wish was ended here."""
        await self.session.poll()
        s = self.session.surroundings
        async with s.store.reading() as work:
            now, asked = await work.now_ms(), await work.unfinished_wish(self.field_id)
        await self._note(now)
        if asked is None:
            await self._go_on(now)
            return False
        if asked.state is WishState.TAKEN and asked.until_ms > now:
            return False
        async with s.store.transaction() as work:
            taken = await work.take_wish(asked.id, self.name, HELD_MS)
            if taken is not None:
                await s.audit.record(work, event_of("reencrypt.take_wish", taken))
        return taken is not None and await self._do(taken)

    async def stop(self) -> None:
        """Say that nobody waits here any more."""
        with contextlib.suppress(KMSError):
            async with self.session.surroundings.store.transaction() as work:
                await work.listen(self.field_id, self.name, 0)

    async def _note(self, now: int) -> None:
        """Write that this worker waits, if that was written long enough ago."""
        if self.noted_ms is not None and now - self.noted_ms < NOTE_S * 1000:
            return
        ttl_s = MISSED * max(self.poll_s, NOTE_S)
        async with self.session.surroundings.store.transaction() as work:
            await work.listen(self.field_id, self.name, int(ttl_s * 1000))
        self.noted_ms = now

    async def _do(self, taken: WishRecord) -> bool:
        """Do a wish and write what became of it; return False where somebody else has it meanwhile."""
        self.on_wish(taken)
        self.job_id, has_begun = taken.job_id, asyncio.Event()

        def told(progress: ReencryptProgress) -> None:
            if self.job_id != progress.job_id:
                self.job_id = progress.job_id
                has_begun.set()
            self.on_progress(progress)

        keeping = asyncio.create_task(self._keep(has_begun, taken.id))
        ended = replace(taken, state=WishState.DONE)
        try:
            if taken.kind is WishKind.PLAN:
                ended = replace(ended, plan=await self.plan())
            else:
                ended = replace(ended, job_id=(await self.run(told)).job_id)
        except asyncio.CancelledError:
            await _stopped(keeping)
            with contextlib.suppress(KMSError):
                async with self.session.surroundings.store.transaction() as work:
                    await work.hold_wish(taken.id, self.name, 0, self.job_id)
            raise
        except Exception as exc:
            ended = replace(taken, state=WishState.FAILED, job_id=self.job_id, error_code=code_of(exc))
            log.warning("a %s of %s failed: %s", taken.kind, self.field_id, ended.error_code, exc_info=True)
        finally:
            await _stopped(keeping)
        return await self._end(ended)

    async def _end(self, ended: WishRecord) -> bool:
        async with self.session.surroundings.store.transaction() as work:
            is_ours = await work.end_wish(
                ended.id, self.name, ended.state, job_id=ended.job_id, plan=ended.plan, error_code=ended.error_code
            )
        if is_ours:
            self.on_wish(ended)
        return is_ours

    async def _keep(self, has_begun: asyncio.Event, wish_id: str | None = None) -> None:
        """Say that there is a worker, and that the wish is being done: by which re-encryption, once there is one."""
        s = self.session.surroundings
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(has_begun.wait(), HOLD_S)
            has_begun.clear()
            with contextlib.suppress(KMSError):
                async with s.store.transaction() as work:
                    if wish_id is not None:
                        await work.hold_wish(wish_id, self.name, HELD_MS, self.job_id)
                    now = await work.now_ms()
                await self._note(now)

    async def _go_on(self, now: int) -> None:
        """Go on with a re-encryption of this declaration that runs, and that nobody works on any more."""
        async with self.session.surroundings.store.reading() as work:
            jobs = await work.newest_reencryptions(self.field_id, limit=LOOKED_AT)
            left = next((each for each in jobs if self._is_ours(each)), None)
            held = 0
            if left is not None and (totals := (await work.chunk_totals([left.id])).get(left.id)) is not None:
                held = totals.held
        if left is None or held or now - left.updated_ms < SETTLED_MS:
            return
        keeping = asyncio.create_task(self._keep(asyncio.Event()))
        try:
            await self.run(self.on_progress)
        except Exception as exc:
            log.warning("re-encryption %s was gone on with, and failed: %s", left.id, code_of(exc), exc_info=True)
        finally:
            await _stopped(keeping)

    def _is_ours(self, job: ReencryptionRecord) -> bool:
        is_running = job.state is ReencryptionState.RUNNING and not job.dry_run
        return is_running and job.locator == self.locator and _declared(job.target) == _declared(self.target)


def _declared(target: str) -> object:
    """Return what of a target is the declaration's, by which rows of one field are told from those of another."""
    try:
        told = json.loads(target)
    except ValueError:
        return target
    return {name: value for name, value in told.items() if name not in _OF_NOW} if isinstance(told, dict) else target


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
