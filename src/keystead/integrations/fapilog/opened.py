"""Which sealed logs this process has open, and how they end with it.

fapilog never stops its sinks, and where the interpreter exits it cannot drain its loggers either: draining starts
threads, which can no longer be done then. So the logs here end by themselves: what loggers still hold is sealed first.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import ConfigurationError
from keystead.integrations.fapilog.log import SinkLog
from keystead.model.counts import counted
from keystead.runtime import fork

if TYPE_CHECKING:
    from keystead.integrations.fapilog.keys import SinkKeys
    from keystead.integrations.fapilog.settings import SinkSettings
    from keystead.integrations.fapilog.sink import SealedSink

EXIT_S: Final = 60.0
EXIT_EACH_S: Final = 0.01
"""How long the end of a process waits for a logger to hand over what it holds, and besides for each record of that."""


class OpenLogs:
    """The logs by their files: two sinks with the same settings, of two loggers, share one."""

    def __init__(self) -> None:
        self._logs: dict[Path, SinkLog] = {}
        self._users: dict[Path, weakref.WeakSet[SealedSink]] = {}
        self._made: list[weakref.ref[SealedSink]] = []
        self._is_registered = False
        self._renew_lock()
        fork.in_child(self._renew_lock)

    def note(self, sink: SealedSink) -> None:
        """Remember a sink that was made: fapilog makes the enrichers of a logger right after its sinks."""
        with self._lock:
            self._made = [each for each in self._made if each() is not None]
            self._made.append(weakref.ref(sink))

    def find_sink(self, stream: str | None = None) -> SealedSink | None:
        """Return the sink of a stream, or the last one that was made; None where there is none."""
        for reference in reversed(self._made):
            sink = reference()
            if sink is not None and stream in (None, sink.stream):
                return sink
        return None

    def acquire(self, sink: SealedSink, settings: SinkSettings, keys: SinkKeys) -> SinkLog:
        """Return the log of a sink's file.

        Raises:
            ConfigurationError: another sink of this process writes that file by other settings.
        """
        with self._lock:
            if not self._is_registered:
                atexit.register(self._at_exit)
                self._is_registered = True
            log = self._logs.get(settings.path)
            if log is None or (log.settings != settings and log.is_idle):
                log = self._logs[settings.path] = SinkLog(settings, keys)
                self._users[settings.path] = weakref.WeakSet()
            elif log.settings != settings:
                raise ConfigurationError(
                    f"two sealed sinks of this process write {settings.path} by settings that differ; give them the "
                    "same, or each a file and stream of its own"
                )
            self._users[settings.path].add(sink)
            return log

    def release(self, sink: SealedSink, log: SinkLog) -> None:
        """Close a log unless another sink uses it; errors as ``SinkLog.close``. Blocks."""
        path = log.settings.path
        with self._lock:
            users = self._users.get(path)
            if users is None or self._logs.get(path) is not log:
                return
            users.discard(sink)
            if users:
                return
        log.close()
        with self._lock:
            # What could not be closed stays, with what waits in it; what another sink has taken up meanwhile as well.
            if not users and self._logs.get(path) is log:
                del self._logs[path], self._users[path]

    def _at_exit(self) -> None:
        held = _drain_loggers(list(self._users.values()))
        for log in list(self._logs.values()):
            if held:
                log.alarm.say(f"{held}; what it still held is lost: drain it before the process ends", "exit_drain")
            try:
                log.close(is_whole=not held)
            except Exception as exc:
                lost = f"; {counted(log.waiting, 'record is', 'records are')} lost" if log.waiting else ""
                log.alarm.say(f"it could not be ended well: {exc}{lost}", "exit")

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


class _Waited:
    """A logger's thread, waited for as long as its queue may take: fapilog throws away what is left after 5 s."""

    def __init__(self, thread: threading.Thread, most_s: float) -> None:
        self._thread = thread
        self._most_s = most_s

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(self._most_s)


def sinks_beside(enricher: object) -> list[SealedSink] | None:
    """Return the sealed sinks of the logger that an enricher is of; None where no logger is known that it is of."""
    from keystead.integrations.fapilog.sink import SealedSink

    with contextlib.suppress(Exception):  # these are none of fapilog's public names
        from fapilog.core import shutdown

        for logger in list(shutdown._registered_loggers):
            if any(each is enricher for each in logger._enrichers):
                return [sink for sink in logger._sinks if isinstance(sink, SealedSink)]
    return None


def _drain_loggers(users: Iterable[weakref.WeakSet[SealedSink]]) -> str:
    """Drain the loggers that write to these sinks; return what is wrong where more might come from one of them.

    What is used here of fapilog is none of its public names, which start threads. Where it is not there, loggers are
    left as they are, and so are the logs, which are signed and stay open.
    """
    ours = {id(sink) for sinks in users for sink in sinks}
    try:
        from fapilog.core import shutdown

        loggers: list[Any] = list(shutdown._registered_loggers)
    except Exception:
        return "a logger of this fapilog cannot be drained here" if ours else ""
    wrong = ""
    for logger in loggers:
        if any(id(sink) in ours for sink in getattr(logger, "_sinks", ())):
            wrong = _drain(logger) or wrong
    return wrong


def _drain(logger: Any) -> str:
    try:
        thread = logger._worker_thread
        if thread is None:
            return ""
        most_s = EXIT_S + EXIT_EACH_S * logger._queue.qsize()
        logger._worker_thread = _Waited(thread, most_s)
        logger._drain_thread_mode(warn_on_timeout=False)
    except Exception:
        return "a logger of this fapilog cannot be drained here"
    return f"a logger did not end within {most_s:g} s" if thread.is_alive() else ""


open_logs: Final = OpenLogs()
"""Of this process; a child of a fork goes on with its parent's, as streams of its own."""
