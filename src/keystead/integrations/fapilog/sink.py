"""The sink ``sealed`` of fapilog: what it writes cannot be changed without being seen.

    settings = Settings(
        core={"sinks": ["sealed"]},
        plugins={"allow_external": True},
        sink_config={"sealed": {"inner_config": {"directory": "/var/log/app"}}},
    )

The key is in ``FAPILOG_TAMPER_KEY`` unless the settings say otherwise. Records are sealed here, as the bytes that are
written, behind enrichers and redactors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keystead import __version__
from keystead.errors import ConfigurationError, KMSError, StorageOperationError
from keystead.integrations.fapilog.alarm import Alarm, SealedLogRefusedError
from keystead.integrations.fapilog.keys import SinkKeys
from keystead.integrations.fapilog.log import RETRY_S, SinkLog
from keystead.integrations.fapilog.opened import open_logs
from keystead.integrations.fapilog.payload import Encoder
from keystead.integrations.fapilog.settings import sink_settings
from keystead.model.counts import counted

if TYPE_CHECKING:
    from pydantic import BaseModel

    from keystead.integrations.tamper_config import TamperConfig
    from keystead.ledger import TrustPolicy

T = TypeVar("T")

logger = logging.getLogger("keystead.fapilog")

ENOUGH_AT_ONCE: Final = 4096
"""Records that wait before whoever writes the next one waits for them to be sealed."""
_MOST_TURNS: Final = 4096
_QUIET_TURNS: Final = 2

PLUGIN_METADATA: Final = {
    "name": "sealed",
    "version": __version__,
    "plugin_type": "sink",
    "entry_point": "keystead.integrations.fapilog.sink:SealedSinkPlugin",
    "description": "Writes a tamper-evident log: sealed records, signed checkpoints.",
    "author": "Keystead",
    "license": "Apache-2.0",
    "compatibility": {"min_fapilog_version": "0.16.0"},
    "api_version": "1.0",
    "dependencies": ["fapilog>=0.16"],
    "tags": ["audit", "integrity", "tamper-evident"],
}


class SealedSink:
    """A sink of fapilog that writes a sealed log. Construction opens nothing; ``open``, or the first record, does.

    A record that was taken is in the file as soon as the batch it came in is written, and on disk after ``flush``, or
    at once with ``fsync_on_write``. Nothing here waits for a disk or a KMS on the event loop. Sinks of one process that
    have the same settings write one log.

    Args:
        inner_sink: ``rotating_file``, or fapilog's rotating file sink: its file is the one that is sealed.
        config: settings, as ``SealedSinkConfig``, ``TamperConfig`` or a dict of both's fields; so are ``options``.
        key: 32 bytes to seal with, instead of what the settings say.
        provider: a key provider of ``keystead.integrations.tamper``, or one of your own that has ``get_key``.

    Raises:
        ConfigurationError: a setting that is not known, that cannot be, or that contradicts another.
        MissingDependencyError: fapilog, or the KMS's SDK, is not installed.
    """

    name = "sealed"

    def __init__(
        self,
        inner_sink: object = None,
        config: BaseModel | Mapping[str, Any] | None = None,
        *,
        key: bytes | None = None,
        provider: object | None = None,
        **options: Any,
    ) -> None:
        self._settings = sink_settings(inner_sink, config, key=key, provider=provider, **options)
        self._keys = SinkKeys(self._settings)
        self._encoder = Encoder()
        self._log: SinkLog | None = None
        self._alarm = Alarm(self._settings.path.name)
        self._settling: asyncio.Task[None] | None = None
        self._taken = 0
        self._spills = self._settings.own.on_failure == "stderr"
        self._syncs = self._settings.keys.fsync_on_write
        open_logs.note(self)

    def __repr__(self) -> str:
        return f"<SealedSink {self._settings.path.name!r} of {self._settings.stream!r}>"

    @property
    def path(self) -> Path:
        """The file that is written, unless another process already writes it."""
        return self._settings.path

    @property
    def stream(self) -> str:
        """The stream's name; a process that writes beside others has one below it."""
        return self._settings.stream

    @property
    def session_id(self) -> str | None:
        """The session that is sealed in; None while the log is not open."""
        return None if self._log is None else self._log.session_id

    @property
    def keys(self) -> TamperConfig:
        """What says which keys seal."""
        return self._settings.keys

    def open(self) -> None:
        """Open the log, so that what is wrong is seen when the application starts. Blocks, on a KMS as well.

        Raises:
            ConfigurationError, KeyNotFoundError: there is no key, it is another one than the log's, or the file is no
                log of this stream.
            ConflictError: another process writes it, and ``on_conflict`` is ``refuse``.
            KMSError: the KMS gives no session key.
            StorageOperationError: the files cannot be read or written.
        """
        self._attached().open()

    def trust_policy(self) -> TrustPolicy:
        """Return what a reader of the log has to trust: save it, away from the log. Errors as ``open``; blocks."""
        return self._attached().trust_policy()

    async def start(self) -> None:
        """Open the log, off the event loop; errors as ``open``."""
        await off_loop(self.open)

    async def stop(self) -> None:
        """Seal what waits, sign that the stream is closed; idempotent. What fails is said, as fapilog asks, not raised.

        A record that comes later opens the log again.
        """
        log, self._log = self._log, None
        if log is None:
            return
        failure = await off_loop(lambda: _errors_of(lambda: open_logs.release(self, log)))
        if failure is not None:
            lost = f"; {counted(log.waiting, 'record was', 'records were')} not sealed" if log.waiting else ""
            log.alarm.say(f"it could not be closed: {failure}{lost}", failure.code)

    async def write(self, entry: dict[str, Any]) -> None:
        """Take one record, whatever is in it.

        Raises:
            SinkWriteError: with ``on_failure="stderr"``: it cannot be sealed now.
        """
        await self._take(self._encoder.of_entry(entry))

    async def write_serialized(self, view: object) -> None:
        """Take one record that fapilog has serialized, as it is; errors as ``write``."""
        await self._take(self._encoder.of_view(view))

    async def flush(self) -> None:
        """Return once everything that was taken is on disk.

        Raises:
            KMSError: the log cannot be opened or written. What was taken goes on waiting.
        """
        await off_loop(self._attached().flush)

    async def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint: keep it where the log's writer cannot change it.

        Raises:
            KMSError: it cannot be opened, written or signed.
        """
        return await off_loop(self._attached().checkpoint)

    async def rotate(self) -> Path:
        """End the file and begin the next one; return the one that has ended. Errors as ``checkpoint``."""
        return await off_loop(self._attached().rotate)

    async def health_check(self) -> bool:
        """Return whether the log could be opened and written when that was tried last."""
        return self._log is None or self._log.failure is None

    async def _take(self, record: bytes) -> None:
        try:
            log = self._log or self._attached()
        except ConfigurationError as exc:
            self._lose(None, exc)
            return
        if self._spills and log.failure is not None:
            await self._retry(log)
        try:
            log.take(record)
        except StorageOperationError as exc:
            self._lose(log, exc)
            return
        self._taken += 1
        if self._syncs and await self._try(log, log.flush) is None:
            return
        loop = asyncio.get_running_loop()
        settling = self._settling
        if settling is None or settling.done() or settling.get_loop() is not loop:
            self._settling = loop.create_task(self._settle(log))
        if log.waiting >= ENOUGH_AT_ONCE and log.failure is None:
            await self._try(log, log.drain)

    async def _settle(self, log: SinkLog) -> None:
        """Seal what waits as soon as no more comes with it, and again and again while that fails.

        fapilog cancels it when a logger is drained, and waits for it: then what waits is sealed at once.
        """
        try:
            while log.is_waiting:
                await self._quiet()
                if await self._try(log, log.drain) is not None:
                    await asyncio.sleep(RETRY_S)
        finally:
            if log.is_waiting:
                self._say(log, _errors_of(log.drain))

    async def _quiet(self) -> None:
        """Return when a batch has been written: when the loop has gone round without a further record."""
        quiet = 0
        for _ in range(_MOST_TURNS):
            seen = self._taken
            await asyncio.sleep(0)
            quiet = quiet + 1 if seen == self._taken else 0
            if quiet == _QUIET_TURNS:
                return

    async def _retry(self, log: SinkLog) -> None:
        """Let a record be taken only once the log works again."""
        from fapilog.core.errors import SinkWriteError

        await self._try(log, log.probe)
        failure = log.failure
        if failure is not None:
            log.lose()
            raise SinkWriteError(f"not sealed: {failure}", sink_name=self.name, cause=failure)

    async def _try(self, log: SinkLog, work: Callable[[], object]) -> KMSError | None:
        failure = await off_loop(lambda: _errors_of(work))
        self._say(log, failure)
        return failure

    def _say(self, log: SinkLog, failure: KMSError | None) -> None:
        if failure is not None:
            does = "go to stderr unsealed" if self._spills else "wait, and are lost if that goes on"
            log.alarm.say(f"it cannot be written, and records {does}: {failure}", failure.code)

    def _lose(self, log: SinkLog | None, exc: KMSError) -> None:
        alarm = self._alarm if log is None else log.alarm
        if log is not None:
            log.lose()
        if self._spills:
            from fapilog.core.errors import SinkWriteError

            alarm.say(f"records go to stderr unsealed: {exc}", "spilled")
            raise SinkWriteError(f"not sealed: {exc}", sink_name=self.name, cause=exc) from None
        alarm.say(f"records are lost: {exc}", "lost")

    def _attached(self) -> SinkLog:
        if self._log is None:
            self._log = open_logs.acquire(self, self._settings, self._keys)
        return self._log


class SealedSinkPlugin(SealedSink):
    """The sink as fapilog's loader makes it: it opens the log at once, and where it cannot, the application ends.

    The loader would catch an ``Exception``, and have records written to stdout instead, unsealed and without a word.
    With ``on_failure="stderr"`` only settings that cannot be are refused. Where a KMS has to be called and an event
    loop runs in this thread, the first record opens the log, in a thread.

    Raises:
        SealedLogRefusedError: the settings cannot be, there is no key, or the log cannot be opened.
    """

    def __init__(self, inner_sink: object = None, config: Any = None, **options: Any) -> None:
        refusal: KMSError | None = None
        try:
            super().__init__(inner_sink, config, **options)
            log = self._attached()
            if not (self._settings.is_remote and _is_on_loop()):
                refusal = self._opened(log)
        except KMSError as exc:
            refusal = exc
        if refusal is not None:
            raise SealedLogRefusedError(refusal)

    def _opened(self, log: SinkLog) -> KMSError | None:
        failure = _errors_of(log.open)
        if failure is not None and self._spills:
            self._say(log, failure)
            return None
        return failure


def _errors_of(work: Callable[[], object]) -> KMSError | None:
    try:
        work()
    except KMSError as exc:
        return exc
    except Exception as exc:
        # fapilog would contain it without a word, and whoever reads the log would learn nothing of it.
        logger.exception("a fault of the sealed sink")
        return StorageOperationError(f"a fault of the sealed sink itself ({type(exc).__name__})")
    return None


async def off_loop(work: Callable[[], T]) -> T:
    """Do blocking work in a thread, or here where the interpreter exits and starts no thread any more."""
    try:
        done = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError:
        return work()
    return await done


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
