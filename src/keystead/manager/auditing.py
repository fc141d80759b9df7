"""The audit trail of an initialised manager: joining or beginning it, and sealing it beside everything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from keystead import telemetry
from keystead.crypto.keyring import Keyring
from keystead.errors import ConfigurationError, KMSError
from keystead.ledger.audit.audited_store import AuditedStore
from keystead.ledger.audit.beginning import begin_trail
from keystead.ledger.audit.checkpoints import Checkpoints
from keystead.ledger.audit.examining import SessionKeys
from keystead.ledger.audit.exporting import Exporter
from keystead.ledger.audit.keys import ALGORITHM, KeyringSigner, StateKeys, StreamSessions
from keystead.ledger.audit.options import AuditOptions
from keystead.ledger.audit.sequencer import Sequencer
from keystead.ledger.audit.standing import new_stream
from keystead.ledger.audit.trail import Trail
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ledger.tlog.checkpoint_signers_kms import KmsCheckpointSigner
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.manager.assembly import audit_kms
from keystead.manager.audit_mark import AuditMark
from keystead.manager.audit_status import no_trail
from keystead.manager.own_keyrings import own_ring
from keystead.model import AUDIT_KEYRING, WRAP_KEYRING, KeyringPurpose
from keystead.ports import AuditEvent, AuditTrail, Clock, Closes, KeyStore, KmsProvider, Random

log = logging.getLogger("keystead.audit")

CLOSE_WITHIN_S: Final = 10.0
RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class AuditWish:
    """What a manager was told of audit trails.

    Attributes:
        own: a trail of the application's own, in the place of the store's.
        wants: True begins a trail where the store has none, False takes no part, None takes part where there is one.
    """

    own: AuditTrail | None = None
    options: AuditOptions = field(default_factory=AuditOptions)
    wants: bool | None = None

    @classmethod
    def of(cls, given: bool | AuditOptions | AuditTrail | None) -> Self:
        """Return the wish in a manager's argument ``audit``."""
        if given is None or isinstance(given, bool):
            return cls(wants=given)
        return cls(options=given, wants=given.begins or None) if isinstance(given, AuditOptions) else cls(own=given)

    def refusal(self) -> ConfigurationError | None:
        """Return why a manager which was told so must not change a store whose changes are recorded; None: it may."""
        if self.own is None and self.wants is not False:
            return None
        given = "audit=False" if self.own is None else "an audit trail of your own"
        return ConfigurationError(
            f"this store keeps an audit trail, and {given} would change it without a word: leave audit out, or end "
            "the trail (`keystead audit end`)"
        )

    def over(self, store: KeyStore, clock: Clock, random: Random) -> tuple[KeyStore, AuditTrail]:
        """Return a store whose changes are recorded, and what records them."""
        options = self.options
        trail = Trail(store, clock, random, is_strict=options.on_failure == "fail", notes_uses=options.unwraps)
        # Beside a trail of the application's own it stays closed, and refuses changes if another process begins one.
        trail.is_refusing = self.own is not None
        return AuditedStore(trail), self.own or trail


class Auditing:
    """A manager's part in the trail of its store."""

    def __init__(self, trail: Trail, live: LiveKeyrings, surroundings: Surroundings, wish: AuditWish) -> None:
        self.trail = trail
        self.options = wish.options
        self._live = live
        self._s = surroundings
        self._wants = wish.wants
        self.mark = AuditMark(live)
        self._sequencer: Sequencer | None = None
        self._exporter: Exporter | None = None
        self._ring: Keyring | None = None
        self._kms: KmsProvider | None = None
        self._signer: CheckpointSigner | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_resting = self._is_closing = self._has_waited = False
        self._joining = asyncio.Lock()
        trail.joins = self.join

    @property
    def surroundings(self) -> Surroundings:
        """The ports of the manager."""
        return self._s

    @property
    def providers(self) -> dict[str, KmsProvider]:
        """The KMS of the trail's own, by its name, where it has one."""
        given = self.options.kms
        own = self._kms if isinstance(given, str) else given
        return {} if own is None or isinstance(own, str) else {own.provider_name: own}

    @property
    def ring(self) -> Keyring:
        """The keyring that the trail's state is vouched for with.

        Raises:
            ConfigurationError: this store has no trail.
        """
        if self._ring is None:
            raise no_trail()
        return self._ring

    async def open(self, *, is_kept: bool) -> None:
        """Take part in the trail, or begin it.

        Args:
            is_kept: whether the store keeps one.

        Raises:
            KMSError: the trail cannot be joined; then nothing may be changed either.
        """
        if not is_kept and not self._wants:
            self.trail.is_refusing = True
        elif await self._has_to_wait(is_kept=is_kept):
            self.trail.is_refusing = self._has_waited = True
            log.warning("a restored store begins its audit trail once it has been recovered")
        else:
            await self._join(begins=bool(self._wants))

    async def join(self) -> None:
        """Take part from now on in the trail, which is begun where there is none. Errors as ``open``."""
        await self._join(begins=False)

    async def begin(self) -> None:
        """Take part from now on in the trail, which is begun where there is none or it has been ended; as ``open``."""
        await self._join(begins=True)

    async def keep_up(self) -> None:
        """Take part in a trail that was begun meanwhile. Errors as ``open``."""
        # The journal knows of a trail that the store has no trace of: only where the store was restored.
        asks_journal = self._has_waited or self._live.has_noticed_restore
        if self.trail.is_on or not await self.mark.is_on(asks_journal=asks_journal):
            return
        if not await self._has_to_wait(is_kept=True):
            await self.join()

    async def _has_to_wait(self, *, is_kept: bool) -> bool:
        """Whether a trail can begin only when the store is recovered: restored, it makes no keyring."""
        state = self._live.state
        if state is None or not state.restored:
            return False
        async with self._s.store.reading() as work:
            return not is_kept or await work.find_keyring(AUDIT_KEYRING) is None

    async def _join(self, *, begins: bool) -> None:
        async with self._joining:
            if self.trail.is_on:
                if begins:
                    await self.trail.ensure()
                    await self._begin(begins=True)
                return
            self.trail.is_wanted_elsewhere = False
            try:
                with self.trail.opening.by_this_task():
                    async with self.trail.gathering():
                        await self._open_trail(begins=begins)
            except BaseException:
                self.trail.is_on, self.trail.is_refusing = False, True
                self.trail.wipe()
                raise

    async def _open_trail(self, *, begins: bool) -> None:
        trail, live, s = self.trail, self._live, self._s
        wrap = await live.wrap_ring(WRAP_KEYRING)
        self._ring = await own_ring(live, AUDIT_KEYRING, KeyringPurpose.SIGN, ALGORITHM)
        trail.begin(wrap, live.store_id, s.node.value)
        await trail.ensure()
        await self._begin(begins=begins)
        if live.has_noticed_restore:
            async with s.store.transaction() as work:
                await trail.record(work, AuditEvent("store.restored"))
        self._sequencer = self._new_sequencer(wrap, StateKeys(self._ring))

    async def _begin(self, *, begins: bool) -> None:
        trail, known, marks = self.trail, await self.mark.known(), await self.mark.reader()
        stream = new_stream(trail.store_id, self._s.random)
        begun = await retry_conflicts(lambda: begin_trail(trail, marks, stream, known=known, begins=begins))
        if begun.is_new:
            log.info("the audit trail of this store has begun")
        if begun.epoch is not None:
            await self.mark.note(begun.epoch)

    async def step(self, *, is_urgent: bool = False) -> int:
        """Seal what waits, if that is this process's to do, and return how many entries; errors as ``Sequencer``."""
        return 0 if self._sequencer is None else await self._sequencer.step(is_urgent=is_urgent)

    async def step_alone(self) -> None:
        """Seal everything that waits, if no other process is there to do it."""
        is_alone = await self.is_alone()
        while await self.step(is_urgent=is_alone):
            pass

    async def is_alone(self) -> bool:
        """Whether no other process is known that would seal."""
        async with self.trail.store.reading() as work:
            return not await self._s.other_nodes(work)

    def start(self) -> None:
        """Seal in the background from now on, on the event loop that runs."""
        loop = asyncio.get_running_loop()
        is_running = self._task is not None and not self._task.done() and self._task.get_loop() is loop
        if not is_running:
            self._task = loop.create_task(self._serve(), name="keystead-audit")

    async def close(self) -> None:
        """Say that this process ends, have everything sealed if nobody else will, and erase keys. Raises nothing."""
        self._is_closing = True
        await self._stop()
        try:
            if self.trail.is_on:
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await self._end()
        except (KMSError, TimeoutError) as exc:
            log.warning("the audit trail was not sealed at the end: %s", getattr(exc, "code", "time"))
        finally:
            # A task that began before may still be at work.
            self.trail.is_over = self.trail.is_on
            self.trail.is_refusing |= self.trail.is_over
            self.trail.is_on = False
            self.trail.wipe()
            if self._sequencer is not None:
                self._sequencer.forget()
            await self._give_back()

    def in_child(self) -> None:
        """Begin again in a child of a fork."""
        self.trail.in_child()
        self.trail.node = self._s.node.value
        self._task, self._joining = None, asyncio.Lock()
        if self._sequencer is not None:
            self._sequencer.forget()
        if self._exporter is not None:
            self._exporter.forget()

    def redraw(self) -> None:
        """Begin another session, and another one of the log: the machine's memory was put back to an earlier time."""
        self.trail.wipe()
        if self._sequencer is not None:
            self._sequencer.forget()

    async def _end(self) -> None:
        sequencer = self._sequencer
        if sequencer is not None and (sequencer.leads or await self.is_alone()):
            while await sequencer.step(is_urgent=True):
                pass
        await self.trail.end()
        if sequencer is not None and sequencer.leads:
            while await sequencer.step():
                pass
            await sequencer.close()
        if self._exporter is not None:
            await self._exporter.finish(CLOSE_WITHIN_S / 2)

    async def _serve(self) -> None:
        while not self._is_closing:
            pause_s = self.options.interval_s
            try:
                taken = await self.step()
                if taken and self._sequencer is not None and self._sequencer.has_more:
                    pause_s = 0.0
                telemetry.audit_waiting(taken)
            except KMSError as exc:
                log.warning("the audit trail could not be sealed: %s", exc.code)
                pause_s = RETRY_S
            except Exception:
                log.exception("the audit trail could not be sealed")
                pause_s = RETRY_S
            if not self._is_closing:
                self._is_resting = True
                await self._s.clock.sleep(pause_s)
                self._is_resting = False

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        if not self._is_resting:
            await asyncio.wait({task}, timeout=CLOSE_WITHIN_S)
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    async def _give_back(self) -> None:
        kms, self._kms = self._kms, None
        with contextlib.suppress(KMSError):
            if isinstance(kms, Closes):
                await kms.aclose()
        signer, self._signer = self._signer, None
        if signer is not None and isinstance(self.options.signer, str):
            with contextlib.suppress(KMSError):
                await asyncio.to_thread(signer.close)

    def _new_sequencer(self, wrap: Keyring, keys: StateKeys) -> Sequencer:
        s, live, options = self._s, self._live, self.options
        file = None if options.checkpoint_file is None else Path(options.checkpoint_file)
        self._exporter = Exporter(self.trail.store, file=file, witnesses=options.witnesses)
        return Sequencer(
            self.trail.store,
            self.trail,
            sessions=SessionKeys(wrap, live.store_id, self.mark.load_wrap_key, self.trail.store),
            stream_sessions=self._stream_sessions(),
            state_keys=keys,
            checkpoints=Checkpoints(
                self._signer_of, s.clock, records=options.checkpoint_records, seconds=options.checkpoint_s
            ),
            clock=s.clock,
            exports=self._exporter,
        )

    def _stream_sessions(self) -> StreamSessions:
        s, options = self._s, self.options
        provider, key_id = s.wrapper.provider(s.kek.provider), s.kek.key_id
        if isinstance(options.kms, str):
            provider, default = audit_kms(options.kms, clock=s.clock, random=s.random)
            self._kms, key_id = provider, options.kms_key_id or default or ""
        elif options.kms is not None:
            provider, key_id = options.kms, options.kms_key_id or ""
        return StreamSessions(provider, key_id, s.random, s.clock, options.epoch_s)

    def _signer_of(self, stream: str) -> CheckpointSigner:
        given = self.options.signer
        if self._signer is None:
            if isinstance(given, str):
                self._signer = KmsCheckpointSigner.open(given, stream)
            else:
                self._signer = given or KeyringSigner(self.ring, stream)
        return self._signer
