"""An engine on a Dask cluster, for datasets that are larger than one machine.

Whoever can talk to a scheduler can have its workers run anything. So off this machine a cluster is spoken to by TLS
alone, with certificates on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keystead.bulk.engines import OnResult, lost
from keystead.bulk.here import Crew, leave, run_task
from keystead.bulk.tasks import Task, parse_results
from keystead.bulk.worker import Worker
from keystead.errors import ConfigurationError, KMSError, MissingDependencyError, WorkersLostError
from keystead.providers.uri import is_loopback

if TYPE_CHECKING:
    from distributed import Client, Future, Security

AHEAD: Final = 2
"""Tasks that are handed over for each thread of a worker: nobody waits while a result is committed here."""
LOOK_S: Final = 1.0
PATIENCE_S: Final = 60.0
"""How long a cluster may be without any worker."""
CONNECT_S: Final = 30.0
_ALONE: Final = "-alone"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files, in PEM, by which the two sides of a connection know each other: the authority's, ours, and our key's."""

    ca: str
    cert: str
    key: str


class Dask:
    """Runs tasks on the workers of a Dask scheduler, each of which opens a manager of the same store.

    Give a worker its settings by KEYSTEAD_STORE and KEYSTEAD_KMS, or KEYSTEAD_CONFIG, in its environment, and the
    dataset at the path by which this process knows it.

    Args:
        scheduler: its address, ``tls://host:port``; ``tcp://`` on this machine alone. Or a client of yours.
        certificates: for ``tls://``.
        patience_s: how long the cluster may be without any worker.
        connect_s: how long reaching the scheduler may take.

    Raises:
        ConfigurationError: an address off this machine without TLS and certificates.
        MissingDependencyError: the extra ``bulk`` is not installed.
    """

    name = "dask"

    def __init__(
        self,
        scheduler: str | Client,
        *,
        certificates: Certificates | None = None,
        patience_s: float = PATIENCE_S,
        connect_s: float = CONNECT_S,
    ) -> None:
        _require_dask()
        self._scheduler = scheduler
        self._certificates = certificates
        self._patience_s = patience_s
        self._connect_s = connect_s
        if isinstance(scheduler, str):
            require_safe(scheduler, has_certificates=certificates is not None)

    @property
    def workers(self) -> int:
        """How many tasks run at once; of an address that is not spoken to yet nobody knows, and a few are taken."""
        return 8 if isinstance(self._scheduler, str) else max(1, _threads(self._scheduler))

    def run(self, tasks: Iterable[Task], home: Worker, on_result: OnResult, stop: threading.Event) -> None:
        """Run the tasks.

        Raises:
            KMSError: as ``BulkEngine.run``.
            ConfigurationError: a scheduler or worker off this machine to which no TLS leads, or workers without
                Keystead.
        """
        with self._client() as client:
            _require_safe_all(client)
            shift = _Shift(client, home, on_result, self._patience_s)
            try:
                shift.run(iter(tasks), stop)
            finally:
                shift.close()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        if not isinstance(self._scheduler, str):
            yield self._scheduler
            return
        from distributed import Client

        try:
            client = Client(
                self._scheduler,
                security=self._security(),
                timeout=self._connect_s,
                set_as_default=False,
                name="keystead",
            )
        except (OSError, TimeoutError) as exc:
            raise WorkersLostError(
                f"the scheduler at {self._scheduler} cannot be reached, or not with these certificates: "
                f"{type(exc).__name__}"
            ) from exc
        try:
            yield client
        finally:
            # Of a scheduler that is gone nothing can be taken leave.
            with contextlib.suppress(Exception):
                client.close(timeout=LOOK_S)

    def _security(self) -> Security | None:
        from distributed import Security

        given = self._certificates
        if given is None:
            return None
        return Security(
            tls_ca_file=given.ca, tls_client_cert=given.cert, tls_client_key=given.key, require_encryption=True
        )


class _Shift:
    """The workers of a cluster, for one run."""

    def __init__(self, client: Client, home: Worker, on_result: OnResult, patience_s: float) -> None:
        self._client = client
        self._crew = Crew(home.settings)
        self._on_result = on_result
        self._patience_s = patience_s
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._under_way: dict[str, tuple[Future, Task]] = {}
        self._suspects: deque[Task] = deque()
        self._nthreads = 0
        self._look_at = 0.0
        self._seen_at = time.monotonic()

    def run(self, tasks: Iterator[Task], stop: threading.Event) -> None:
        """Hand over tasks, and take their results; errors as ``Dask.run``."""
        while not stop.is_set():
            self._look()
            while len(self._under_way) < AHEAD * max(1, self._nthreads):
                if (task := next(tasks, None)) is None:
                    break
                self._submit(task)
            if not self._under_way:
                if not self._suspects:
                    return
                self._submit(self._suspects.popleft(), is_alone=True)
            with contextlib.suppress(queue.Empty):
                future = self._ended.get(timeout=LOOK_S)
                self._take(future)

    def close(self) -> None:
        """Take back what is under way, and have the workers close their managers."""
        if not self._is_there:
            return
        with contextlib.suppress(Exception):
            self._client.cancel([future for future, _ in self._under_way.values()], force=True)
            self._client.run(leave, self._crew, on_error="ignore")

    @property
    def _is_there(self) -> bool:
        return bool(self._client.status == "running")

    def _look(self) -> None:
        """See from time to time who works.

        Raises:
            WorkersLostError: nobody has for too long, or the scheduler is gone.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        try:
            self._nthreads = _threads(self._client)
        except Exception as exc:
            raise _gone() from exc
        self._look_at = now + LOOK_S
        if self._nthreads:
            self._seen_at = now
        elif now - self._seen_at > self._patience_s:
            raise WorkersLostError("the cluster has had no worker for too long; what was committed stays: run again")

    def _submit(self, task: Task, *, is_alone: bool = False) -> None:
        try:
            future = self._client.submit(
                run_task, self._crew, task.text(), pure=False, retries=0, key=_key_of(task, is_alone=is_alone)
            )
        except Exception as exc:
            if self._is_there:
                raise
            raise _gone() from exc
        self._under_way[future.key] = (future, task)
        future.add_done_callback(self._ended.put)

    def _take(self, future: Future) -> None:
        """Take what became of a task.

        Dask blames whatever was under way on workers that died, and a result may be lost with the worker that had it.
        So each file of such a task is tried once more with nothing beside it.
        """
        from distributed import KilledWorker

        known = self._under_way.pop(future.key, None)
        if known is None:
            return
        _, task = known
        is_alone = future.key.endswith(_ALONE)
        try:
            text = future.result()
        except KilledWorker:
            if is_alone:
                self._on_result(task, lost(task))
            else:
                self._suspects.extend(task.split())
        except KMSError:
            raise
        except (CancelledError, asyncio.CancelledError) as exc:
            raise _gone() from exc
        except OSError as exc:
            if is_alone or not self._is_there:
                raise _gone() from exc
            self._suspects.extend(task.split())
        except Exception as exc:
            raise ConfigurationError(
                f"a worker of the cluster cannot run a task ({type(exc).__name__}): install the same release of "
                "keystead[bulk] there"
            ) from exc
        else:
            self._on_result(task, parse_results(text))


def require_safe(address: str, *, has_certificates: bool) -> None:
    """Raise ``ConfigurationError`` for an address off this machine that is not spoken to by TLS on both sides."""
    scheme, host = urlsplit(address).scheme, urlsplit(address).hostname or ""
    if scheme == "tls" and has_certificates:
        return
    if scheme == "inproc" or (scheme == "tcp" and is_loopback(host)):
        return
    if scheme == "tls":
        raise ConfigurationError(
            f"{address} is spoken to with certificates on both sides: name the authority's, yours, and its key"
        )
    raise ConfigurationError(
        f"{address} is off this machine, and not TLS: whoever comes between could have the workers run anything. Start "
        "scheduler and workers with certificates, and name tls://host:port"
    )


def _require_safe_all(client: Client) -> None:
    """Raise ``ConfigurationError`` where a worker, or the scheduler of a client that was given, is not spoken to so."""
    security: Any = client.security
    files = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
    is_mutual = bool(security.require_encryption) and all(files)
    require_safe(client.scheduler.address, has_certificates=is_mutual)
    for address in client.scheduler_info(n_workers=-1)["workers"]:
        require_safe(address, has_certificates=is_mutual)


def _threads(client: Client) -> int:
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return sum(each["nthreads"] for each in workers.values())


def _key_of(task: Task, *, is_alone: bool) -> str:
    """Return a key that no other task of the scheduler has; it shows in its dashboard."""
    part = f"-{task.files[0].name}{_ALONE}" if is_alone else ""
    return f"keystead-{task.operation}-{task.token}-{secrets.token_hex(4)}-{task.number}{part}"


def _gone() -> WorkersLostError:
    return WorkersLostError(
        "the scheduler is gone, or took the work back; what was committed stays: run again to go on"
    )


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "a Dask cluster needs dask and distributed: pip install 'keystead[bulk]'"
        ) from None
