"""``keystead log seal``: a pipe into a sealed log."""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from keystead.cli.frame import FAILED, NOT_VERIFIED, Call, duration_option, say, wrong_usage
from keystead.cli.log.policy import KeyEnv, beside, with_key_env
from keystead.cli.render import Outcome
from keystead.errors import ConfigurationError, CouldNotVerifyError, InvalidProofError, StorageOperationError
from keystead.ledger import LocalSigner, SealedFile, TrustPolicy
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.policy import TrustedKey
from keystead.ledger.reading.verifier import header_of
from keystead.ledger.tlog.checkpoint_signers import name_for
from keystead.ledger.writing.piping import LineSealer
from keystead.manager.logs import log_sessions
from keystead.model.counts import counted

CHUNK_BYTES: Final = 1 << 16
MAX_CHUNKS: Final = 256
"""What is read while the KMS gives the first key: 16 MiB."""
FLUSH_S: Final = 1.0
LINGER_S: Final = 2.0
CLOSE_WITHIN_S: Final = 10.0
_RETRY_S: Final = 0.2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Fsync = Literal["flush", "always", "never"]
OnFailure = Literal["raise", "chain"]
OnMismatch = Literal["raise", "go_on"]


def seal(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The log's file; it goes on where it ends.")],
    *,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="The stream's name; that of the host and the file.")
    ] = None,
    key_env: KeyEnv = None,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="OUT", help="Where its trust policy is written; beside the log.")
    ] = None,
    signer: Annotated[
        str | None, typer.Option("--signer", metavar="URI", help="A KMS key that signs checkpoints, instead of a file.")
    ] = None,
    signing_key: Annotated[
        str | None, typer.Option("--signing-key", metavar="FILE", help="The key that signs checkpoints; FILE.key.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", metavar="N", min=4096, help="Begin another file at about this size.")
    ] = None,
    compress: Annotated[bool, typer.Option("--compress", help="Compress files that have ended.")] = False,
    epoch: Annotated[
        str, typer.Option("--epoch", metavar="15m", help="How long a key seals before it is erased.")
    ] = "15m",
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="60s", help="How often a checkpoint is signed.")
    ] = "60s",
    fsync: Annotated[
        Fsync, typer.Option("--fsync", help="On disk each second, after every write, or never.")
    ] = "flush",
    on_kms_failure: Annotated[
        OnFailure, typer.Option("--on-kms-failure", help="At start: fail, or seal without a key until there is one.")
    ] = "raise",
    on_kek_mismatch: Annotated[
        OnMismatch,
        typer.Option("--on-kek-mismatch", help="Where the log was sealed under a KEK that is lost: fail, or go on."),
    ] = "raise",
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", metavar="URL", help="Have each checkpoint cosigned there; may be given again."),
    ] = None,
    witness_key: Annotated[
        list[str] | None,
        typer.Option("--witness-key", metavar="KEY", help="A verifier key that a witness prints; again for more."),
    ] = None,
    quorum: Annotated[
        int, typer.Option("--quorum", metavar="N", min=0, help="Of how many witnesses the policy asks for.")
    ] = 1,
) -> Outcome:
    """Seal each line of stdin, as in `app | keystead log seal app.log`.

    A line that is one JSON value is sealed as it is, any other as text. At the end of the input, and on SIGTERM,
    SIGINT and SIGHUP once the input has ended or two seconds have passed, the log is signed as closed. The trust
    policy is for whoever verifies: move it there. Exit codes: 0 everything was sealed; 1 it was not; 3 it was, and a
    witness has seen another history of this log.
    """
    call = with_key_env(call, key_env)
    if signer is not None and signing_key is not None:
        wrong_usage("--signer and --signing-key name the key twice")
    if bool(witness) is not bool(witness_key):
        wrong_usage("--witness and --witness-key go together: what a witness answers is checked by its key")
    name = stream or _stream(file)
    signs = signer if signing_key is None else LocalSigner.from_file(signing_key, name_for(name))
    epoch_s, checkpoint_s = (
        duration_option(option, text).total_seconds()
        for option, text in (("--epoch", epoch), ("--checkpoint", checkpoint))
    )
    if epoch_s < 1 or epoch_s != int(epoch_s):
        wrong_usage("--epoch is in whole seconds")
    pipe = _Pipe(sys.stdin.fileno())
    if sys.stdin.isatty():
        _tell("reading from the terminal; Ctrl-D ends the input")
    with _Stop() as stop:
        pipe.start()
        try:
            source = log_sessions(call.settings())
            log = SealedFile(
                file,
                stream=name,
                kms=source,
                signer=signs,
                epoch_s=int(epoch_s),
                checkpoint_s=checkpoint_s,
                max_bytes=max_bytes,
                compress=compress,
                fsync=fsync,
                on_kms_failure=on_kms_failure,
                on_kek_mismatch=on_kek_mismatch,
                witnesses=dict.fromkeys(witness or [], witness_key or []),
                quorum=quorum,
            )
        except BaseException:
            if waiting := pipe.waiting_bytes():
                _tell(f"{counted(waiting, 'byte')} that had come in already: not sealed")
            raise
        path = Path(policy) if policy is not None else beside(file)
        written = write_policy(log.trust_policy(), path, is_proven=source.has_opened)
        return _Sealing(log, pipe, stop, written).run()


def write_policy(policy: TrustPolicy, path: Path, *, is_proven: bool) -> Path:
    """Write a policy, never over another one, and return where it is.

    Args:
        is_proven: the KEK has opened what the log was sealed under before; otherwise its URI has to be the policy's.
    """
    if not path.exists():
        policy.save(path)
        _tell(f"the trust policy is in {path}: move it to whoever verifies")
        return path
    try:
        found: TrustPolicy | None = TrustPolicy.load(path)
    except ConfigurationError:
        found = None
    if found is not None and _contains(found, policy, by_uri=not is_proven):
        return path
    other = path.with_name(f"{path.name}.new")
    policy.save(other)
    _tell(f"warning: {path} is not for this log, and is left as it is; the policy that is stands in {other}")
    return other


class _Stop:
    """Remembers that the command was asked to end; asked twice, it does not wait for its input."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Stop:
        for number in _SIGNALS:
            # What started us may have said that one of them means nothing to us, as nohup does.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *given: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what getsignal gave

    @property
    def is_over(self) -> bool:
        """Whether the input has had its time."""
        return self.at is not None and time.monotonic() >= self.at

    def _ask(self, number: int, frame: object) -> None:
        now = time.monotonic()
        self.at = now + LINGER_S if self.at is None else now


class _Pipe:
    """Reads the input in a thread of its own, so that whoever writes it is not held up by what comes behind."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._chunks: queue.Queue[bytes | OSError] = queue.Queue(MAX_CHUNKS)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, name="keystead-log-stdin", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def get(self, timeout_s: float) -> bytes | None:
        """Return what came in: nothing at the end, None where there was nothing in time."""
        try:
            chunk = self._chunks.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def end(self) -> None:
        """Read what is there, and no more; ``get`` gives it, and then the end."""
        self._ends.set()

    def waiting_bytes(self) -> int:
        """Return how much was read and not taken."""
        return sum(len(chunk) for chunk in list(self._chunks.queue) if isinstance(chunk, bytes))

    def _read(self) -> None:
        left = MAX_CHUNKS
        try:
            while True:
                is_ending = self._ends.is_set()
                ready, _, _ = select.select([self._descriptor], [], [], 0 if is_ending else 0.1)
                left -= is_ending
                if ready and left:
                    chunk = os.read(self._descriptor, CHUNK_BYTES)
                    if chunk:
                        self._chunks.put(chunk)
                        continue
                if ready or is_ending:
                    self._chunks.put(b"")
                    return
        except OSError as exc:
            self._chunks.put(exc)


class _Sealing:
    def __init__(self, log: SealedFile, pipe: _Pipe, stop: _Stop, policy: Path) -> None:
        self._log, self._pipe, self._stop, self._policy = log, pipe, stop, policy
        self._path, self._stream = log.path, log.stream
        self._lines = LineSealer(self._take)
        self._flushed_at = time.monotonic()
        self._is_flushed = True
        self._is_told = False
        self._failure: str | None = None

    def run(self) -> Outcome:
        """Seal until the input ends."""
        try:
            self._read()
        except OSError as exc:
            self._failure = f"the input cannot be read: {exc.strerror}"
        except StorageOperationError as exc:
            self._failure = str(exc)
        self._close()
        told = f"sealed {counted(self._lines.lines, 'line')} into {self._path.name}"
        data = {
            "path": str(self._path),
            "stream": self._stream,
            "policy": str(self._policy),
            "lines": self._lines.lines,
            "texts": self._lines.texts,
            "cut": self._lines.cut,
            "closed": self._log.is_closed,
            "unwitnessed": [str(each) for each in self._log.unwitnessed.values()],
            "error": self._failure,
        }
        forks = [each for each in self._log.unwitnessed.values() if isinstance(each, InvalidProofError)]
        for each in forks:
            _tell(f"error: {each}")
        if self._failure is not None:
            _tell(f"error: {self._failure}")
            return Outcome(data, None, FAILED)
        _tell(f"{told}, and closed it")
        return Outcome(data, None, NOT_VERIFIED if forks else 0)

    def _read(self) -> None:
        has_ended = False
        while True:
            chunk = self._pipe.get(0.1)
            if chunk == b"":
                self._lines.finish()
                return
            if chunk is not None:
                self._lines.feed(chunk)
            if self._stop.is_over and not has_ended:
                has_ended = True
                self._pipe.end()
            if not self._is_flushed and time.monotonic() - self._flushed_at >= FLUSH_S:
                self._flush()

    def _take(self, payloads: list[bytes]) -> None:
        """Seal. If the disk takes nothing, wait: so does whoever writes into the pipe, and nothing is lost."""
        self._is_flushed = False
        while True:
            try:
                return self._log.append_many(payloads)
            except StorageOperationError as exc:
                self._say_once(str(exc))
                if self._stop.is_over:
                    raise
                time.sleep(_RETRY_S)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        try:
            self._is_flushed = self._log.flush(waits=False)
        except StorageOperationError as exc:
            self._say_once(str(exc))

    def _close(self) -> None:
        until = time.monotonic() + CLOSE_WITHIN_S
        while not self._log.is_closed:
            try:
                self._log.close()
            except StorageOperationError as exc:
                if time.monotonic() >= until:
                    self._failure = f"{exc}; what was not written is lost"
                    return
                self._say_once(str(exc))
                time.sleep(_RETRY_S)

    def _say_once(self, message: str) -> None:
        if not self._is_told:
            self._is_told = True
            _tell(f"warning: {message}")


def _stream(file: str) -> str:
    """Return the name of the stream that a log has, or gets."""
    files = LogFiles(file)
    for path in (files.path, *files.ended().values()):
        with suppress(CouldNotVerifyError):
            if (header := header_of(path)) is not None:
                return header.stream
    return f"{_plain(socket.gethostname())}/{_plain(Path(file).stem)}"


def _plain(name: str) -> str:
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-._") else "-" for sign in name) or "log"


def _contains(found: TrustPolicy, needed: TrustPolicy, *, by_uri: bool) -> bool:
    """Whether a policy trusts all that another one does, asks for as much, and is for the same stream.

    Args:
        by_uri: keys are told apart by the URIs of their KMSs as well, where both policies name one.
    """
    signers = {each.key for each in found.signers}
    return (
        found.stream == needed.stream
        and set(needed.algorithms) <= set(found.algorithms)
        and all(any(_are_one(key, other, by_uri=by_uri) for other in found.keys) for key in needed.keys)
        and all(each.key in signers for each in needed.signers)
        and set(needed.witnesses) <= set(found.witnesses)
        and needed.quorum <= found.quorum
    )


def _are_one(key: TrustedKey, other: TrustedKey, *, by_uri: bool) -> bool:
    is_elsewhere = by_uri and None not in (key.kms, other.kms) and key.kms != other.kms
    return (key.provider, key.key_id) == (other.provider, other.key_id) and not is_elsewhere


def _tell(message: str) -> None:
    """Say something on stderr, where that is still there."""
    with suppress(OSError):
        say(message)
