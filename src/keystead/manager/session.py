"""An initialised manager: the lifecycle over its store, the bound keyrings, and this process as a node.

Made by ``KeyManager.initialize`` and gone at ``close``. As a node it polls the store's epoch, beats, asks the KMS again
when that is due, adds use counts and runs the jobs whose time has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from keystead import telemetry
from keystead.crypto.keyring import Keyring
from keystead.errors import (
    KeyExpiredError,
    KMSError,
    StaleViewError,
    StorageOperationError,
    StoreRestoredError,
    SystemShutdownError,
)
from keystead.jobs.runner import Job, JobReport, JobRunner
from keystead.ledger.audit.audited_store import AuditedStore
from keystead.ledger.audit.trail import Trail
from keystead.lifecycle.kek_watch import KekWatch
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.maintenance import MaintenanceReport
from keystead.lifecycle.surroundings import Surroundings
from keystead.manager.assembly import Lifecycle
from keystead.manager.audit_mark import AuditMark
from keystead.manager.auditing import Auditing, AuditWish
from keystead.manager.consent import TwoPeople
from keystead.manager.own_keyrings import own_ring
from keystead.manager.subject_keys import SubjectKeys
from keystead.manager.use_counts import UseCounts
from keystead.model import DataKeyInfo, KeyringPurpose
from keystead.ports import ErasureLog, SourceScanner

log = logging.getLogger("keystead.manager")

INDEX_KEYRING: Final = "keystead.index"
FILES_KEYRING: Final = "files"
LEAST_HEARTBEAT_S: Final = 5.0
"""A node counts as gone after two poll intervals without a heartbeat, and never sooner: a busy process is late."""
STOP_WITHIN_S: Final = 2.0
"""How long closing waits for what the background task is in the middle of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a session needs besides its surroundings."""

    keyring: str = "default"
    epoch_max_age_s: float = 30.0
    kek_recheck_s: float = 3600.0
    grace_s: float | None = 3600.0
    messages_per_salt: int = 2**31
    keyring_cache: int = 1024
    is_background: bool = True
    audit: AuditWish = field(default_factory=AuditWish)
    two_person: bool = False
    erasures: ErasureLog | None = None


class Session:
    """See the module.

    Args:
        default: the ring that was handed out before it was loaded.
        wake: starts the background task.

    Attributes:
        jobs: what is done from time to time; rooms above add theirs.
        kek_watch: whether the KMS's last answer still counts.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        options: SessionOptions,
        default: Keyring,
        sources: Mapping[str, SourceScanner],
        wake: Callable[[], None],
    ) -> None:
        self.surroundings = self._s = surroundings
        self._options = options
        self._wake = wake
        self.live = LiveKeyrings(
            surroundings,
            gate=self.gate,
            messages_per_salt=options.messages_per_salt,
            cache_size=options.keyring_cache,
        )
        self.lifecycle = Lifecycle.over(self.live, sources)
        trail = surroundings.audit
        self.auditing = Auditing(trail, self.live, surroundings, options.audit) if isinstance(trail, Trail) else None
        self._mark = AuditMark(self.live) if self.auditing is None else self.auditing.mark
        self.kek_watch = KekWatch(self.live, recheck_s=options.kek_recheck_s, grace_s=options.grace_s)
        self.jobs = JobRunner(surroundings.store, lambda: surroundings.node.value, surroundings.clock)
        self._default = default
        self._index: Keyring | None = None
        self._task: asyncio.Task[None] | None = None
        self.uses = UseCounts(self.live, self.lifecycle.maintenance, default.name)
        self.subjects = SubjectKeys(self.live, options.erasures)
        self.consent = TwoPeople(self.live, is_wanted=options.two_person)
        self._poll_lock = asyncio.Lock()
        self._is_closing = self._is_closed = False
        self._is_node = False
        self._known_until: float | None = None
        self._is_resting = False
        # In a child of a fork, and where the loop of the background task is gone, until something starts it again.
        self._is_asleep = False

    async def open(self) -> None:
        """Open the store, load the bound keyrings with one KMS call, and start the background task."""
        async with contextlib.nullcontext() if self.auditing is None else self.auditing.trail.gathering():
            await self._open()

    async def _open(self) -> None:
        await self.live.open()
        is_kept = await self._mark.is_on()
        if is_kept and (refusal := self._options.audit.refusal()) is not None:
            raise refusal
        self.kek_watch.confirm()
        if self.auditing is not None:
            await self.auditing.open(is_kept=is_kept)
        s = self._s
        await self.live.load(self._default.name, create=s.new_keyring(self._default.name), into=self._default)
        # A restored store may be older than its INDEX keyring; recovering it and starting again makes one.
        with contextlib.suppress(StoreRestoredError):
            self._index = await own_ring(self.live, INDEX_KEYRING, KeyringPurpose.INDEX, "HMAC-SHA256")
        maintenance = self.lifecycle.maintenance
        interval = self._options.epoch_max_age_s
        self.jobs.add(Job("keystead.rotate", interval, lambda lease: maintenance.rotate_due()))
        self.jobs.add(Job("keystead.promote", interval, lambda lease: maintenance.promote_waiting()))
        self.jobs.add(Job("keystead.maintain", self._options.kek_recheck_s, lambda lease: maintenance.run()), wait=True)
        await self.rotate_if_expired(self._default)
        await self.subjects.open()
        await self.consent.uphold()
        if self._options.is_background:
            # First known as a node, then up to date: a rotation in between waits for this process.
            self._known_until = await self._beat()
            await self.live.refresh()
            self.start()

    @property
    def is_restored(self) -> bool:
        """Whether the store must be recovered before it encrypts."""
        return self.live.state is not None and self.live.state.restored

    def gate(self, ring: Keyring, encrypting: bool) -> KMSError | None:
        """Return why ``ring`` must not be used now, or None."""
        if self._is_closed:
            return SystemShutdownError("the key manager is closed; open another")
        if self._is_asleep and not self._is_closing:
            self._wake()  # whoever uses nothing but the hot path comes by here alone
        if (refusal := self.kek_watch.refusal() or self.subjects.refusal(ring)) is not None or not encrypting:
            return refusal
        if self.live.is_wrap_ring(ring):
            return None  # who wraps asks the store itself whether it is restored: a recovery wraps new versions
        if self.is_restored:
            return StoreRestoredError()
        until = ring.snapshot.encrypt_until
        if until is not None and until <= self._s.clock.now():
            return KeyExpiredError(
                f"the active version of keyring {ring.name!r} has expired and could not be replaced; it still decrypts"
            )
        return None

    def start(self) -> None:
        """Start the background task unless it runs, or was not wanted."""
        loop = asyncio.get_running_loop()
        is_running = self._task is not None and not self._task.done() and self._task.get_loop() is loop
        self._is_asleep = False
        if self._options.is_background and not is_running:
            self._is_resting = False
            self._task = loop.create_task(self._serve(), name="keystead-node")
            self._task.add_done_callback(self._fall_asleep)
        if self._options.is_background and self.auditing is not None and self.auditing.trail.is_on:
            self.auditing.start()

    def _fall_asleep(self, task: asyncio.Task[None]) -> None:
        """Its loop ended the background task, or is gone: the next one that asks for a key starts another."""
        if task is self._task and not self._is_closing:
            self._is_asleep = True

    async def run_due(self) -> list[JobReport]:
        """Poll the store, and run what is due: what the background task does, for callers who own the schedule."""
        await self.poll()
        reports = await self.jobs.run_due()
        if not self._options.is_background and self.auditing is not None:
            await self.auditing.step_alone()
        if self.uses.is_due:
            await self.uses.flush()
        return reports

    async def poll(self) -> None:
        """Load what changed in the store, beat, and ask the KMS again if that is due."""
        async with self._poll_lock:
            known_until = await self._refresh()
            if self.auditing is not None:
                await self.auditing.keep_up()
            elif isinstance(self._s.store, AuditedStore):
                # Beside a trail of the application's own nothing is changed any more.
                self._s.store.trail.is_kept_elsewhere = await self._mark.is_on(asks_journal=False)
            if self.kek_watch.is_due:
                await self.kek_watch.ask()
            renewed_until = await self._beat()
            if known_until is not None and self._s.clock.monotonic() < known_until:
                self._known_until = renewed_until
            for ring in self.live.rings() if not self._is_closed else ():
                if self.gate(ring, False) is not None or self.gate(ring, True) is not None:
                    ring.block()
            if (since := self._default.snapshot.active_since) is not None:
                telemetry.data_key_age(self._default.name, (self._s.clock.now() - since).total_seconds())
            await self.consent.uphold()

    async def _refresh(self) -> float | None:
        """Load what changed, and return until when the other nodes know this one, by the monotonic clock.

        What may not be used any more goes out of use although the trail cannot be written.
        """
        try:
            # First known as a node, then up to date: what changes in between waits for this process.
            known_until = self._known_until if self.has_current_view else await self._beat()
            if self.auditing is not None:
                await self.auditing.trail.ensure()
        except KMSError:
            await self.live.refresh()
            raise
        await self.live.refresh()
        await self.subjects.follow()
        return known_until

    async def become_node(self) -> None:
        """Be known to the other nodes from now on, with all they have changed until now."""
        if not self.has_current_view:
            await self.poll()

    @property
    def has_current_view(self) -> bool:
        """Whether the heartbeat of this process holds, and has held since it last read what changed."""
        return self._known_until is not None and self._s.clock.monotonic() < self._known_until

    def require_current_view(self) -> None:
        """Raise unless the heartbeat of this process holds, so that others wait for what it has not loaded yet.

        Raises:
            StaleViewError: it does not.
        """
        if not self.has_current_view:
            raise StaleViewError(
                "this process has not polled the store for too long to know every index key; `await km.run_due()` "
                "polls, where no background task does"
            )

    async def _beat(self) -> float | None:
        """Tell the other nodes which epoch is loaded here, and return until when, by the monotonic clock, they know."""
        if self.live.state is None:
            return None
        lease_s = max(2 * self._options.epoch_max_age_s, LEAST_HEARTBEAT_S)
        begun = self._s.clock.monotonic()
        # Beforehand: a heartbeat that was written although its task was cancelled is dropped at the end all the same.
        self._is_node = True
        async with self._s.store.transaction() as work:
            await work.beat(self._s.node.value, self.live.state.epoch, int(lease_s * 1000))
        return begun + lease_s

    async def maintain(self) -> MaintenanceReport:
        """Flush counts, poll, and do every maintenance step."""
        failures = {}
        for name, step in (("uses", self.uses.flush), ("poll", self.poll)):
            try:
                await step()
            except KMSError as exc:
                failures[name] = exc.code
        report = await self.lifecycle.maintenance.run()
        return replace(report, failures={**failures, **report.failures})

    async def rotate(
        self, name: str, ring: Keyring, *, min_age: timedelta | None = None, promote: str = "auto"
    ) -> DataKeyInfo:
        """Rotate a keyring; see ``Rotation.rotate``."""
        active = ring.snapshot.active_key
        try:
            row = await self.lifecycle.rotation.rotate(
                name, observed=active.version if active else None, min_age=min_age, promote=promote
            )
        except KMSError as exc:
            telemetry.rotation(exc.code)
            raise
        return DataKeyInfo.from_record(row)

    async def versions(self, name: str) -> list[DataKeyInfo]:
        """Return every version of a keyring, oldest first."""
        async with self._s.store.reading() as work:
            rows = await all_keys(work, keyring=name)
        return sorted((DataKeyInfo.from_record(row) for row in rows), key=lambda info: info.version)

    def index_key(self) -> bytes:
        """Return the key that ``hash_field`` uses."""
        if self._index is None:
            raise StoreRestoredError
        return self._index.copy_active()

    async def close(self) -> None:
        """Stop the task, write the counts, drop the heartbeat, and wipe every key."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            await self._stop()
            if self.auditing is not None:
                # While keys may still be used: what was done has to be sealed.
                await self.auditing.close()
            self._is_closed = True
            with contextlib.suppress(StorageOperationError):
                await self.uses.flush()
                if self._is_node:
                    async with self._s.store.transaction() as work:
                        await work.drop_node(self._s.node.value)
        finally:
            self._is_closed = True
            self.live.wipe()

    async def _stop(self) -> None:
        """End the background task, wherever it is; one that belongs to a loop which is gone has ended already."""
        task, self._task = self._task, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        if not self._is_resting:
            # Cancelled inside a statement, the driver loses the connection and says so on stderr.
            await asyncio.wait({task}, timeout=STOP_WITHIN_S)
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    def in_child(self, node_id: str) -> None:
        """Begin again as another process: another node, no task, no lock of the parent's event loop."""
        self._s.node.value = node_id
        self._task = None
        self.uses.forget()
        self.subjects.in_child()
        self._is_node = False
        self._known_until = None
        self._poll_lock = asyncio.Lock()
        self.live.drop_handles()
        if self.auditing is not None:
            self.auditing.in_child()
        self._is_asleep = self._options.is_background
        for ring in self.live.rings():
            ring.renew()  # first: a lock that another thread of the parent held would never open
            ring.block()

    async def _serve(self) -> None:
        while not self._is_closing:
            try:
                await self.run_due()
            except KMSError as exc:
                if not self._is_closing:
                    log.warning("background poll failed: %s", exc.code)
            except Exception:
                log.exception("background poll failed")
            if not self._is_closing:
                self._is_resting = True
                await self.subjects.rest(self._options.epoch_max_age_s)
                self._is_resting = False

    async def rotate_if_expired(self, ring: Keyring) -> None:
        """Replace an active version that ran out while no process was there to do it; what is there still decrypts."""
        until = ring.snapshot.encrypt_until
        if until is None or until > self._s.clock.now() or self.is_restored:
            return
        try:
            await self.rotate(ring.name, ring)
        except KMSError as exc:
            log.warning("an expired data key could not be replaced: %s", exc.code, extra={"keyring": ring.name})
