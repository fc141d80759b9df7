"""What a process does with the files of a task, with a key manager of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from keystead import blocking
from keystead.blocking.leases import look_again, store_id_of
from keystead.bulk.rewriting import digest_of, is_encrypted, read_all, write_anew
from keystead.bulk.tasks import FileResult, FileToDo, KeyRules, Operation, Task
from keystead.errors import ConfigurationError, ConflictError, DecryptionError, InvalidInputError, KMSError
from keystead.parquet.client import KMS, name_of
from keystead.parquet.keys import ParquetKeys, material_of
from keystead.runtime.files import DISK_FULL


class Worker:
    """Does tasks with one key manager.

    Args:
        km: initialised; whoever opened it closes it.
        settings: the settings file by which another process opens a manager of the same store; None where its
            environment and its own folder say enough.
    """

    def __init__(self, km: blocking.KeyManager, settings: str | None = None) -> None:
        self.km = km
        self.settings = settings
        self.store_id = store_id_of(km)
        self._keys: dict[tuple[int, str], ParquetKeys] = {}
        self._lock = threading.Lock()

    def run(self, task: Task) -> list[FileResult]:
        """Do a task. What fails for one file is in its result, and the others are done.

        Raises:
            ConfigurationError: this process has another store open than the job's.
            ConflictError: the run has been overtaken by a later one, or its folder is not to be seen from here.
        """
        if self.store_id != task.store_id:
            raise ConfigurationError(
                "a worker has opened another store than the one of the job: give it the same settings, by "
                "KEYSTEAD_CONFIG or KEYSTEAD_STORE and KEYSTEAD_KMS in its environment, or by --config"
            )
        if task.staged and not Path(task.staged).is_dir():
            raise ConflictError(
                f"a worker does not see the folder of run {task.token}: a later run has taken over, or the dataset is "
                "not on a disk that every worker has at the same path"
            )
        keys = self._keys_of(task)
        return [self._do(task, each, keys) for each in task.files]

    def _keys_of(self, task: Task) -> ParquetKeys:
        """Return keys for a run: none that pyarrow has remembered from an earlier one."""
        rules = task.rules or KeyRules()
        name = (task.token, json.dumps(rules.arguments(), sort_keys=True))
        with self._lock:
            if name not in self._keys:
                look_again(self.km)
                self._keys = {kept: keys for kept, keys in self._keys.items() if kept[0] == task.token}
                self._keys[name] = ParquetKeys(self.km, **rules.arguments())
            return self._keys[name]

    def _do(self, task: Task, todo: FileToDo, keys: ParquetKeys) -> FileResult:
        source = Path(task.source, todo.name)
        staged = Path(task.staged, f"{secrets.token_hex(8)}.parquet") if task.staged else None
        try:
            before = source.stat()
            result = _OPERATIONS[task.operation](_File(source, todo.sha256, staged, keys, self.km))
            after = source.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise InvalidInputError("the file was changed while it was read; run again")
            return replace(result, name=todo.name, source_size=before.st_size, source_mtime_ns=before.st_mtime_ns)
        except Exception as exc:
            for left in () if staged is None else (staged, material_of(staged)):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            return _failure(todo.name, exc)


@dataclass(frozen=True, slots=True)
class _File:
    source: Path
    sha256: str
    staged: Path | None
    keys: ParquetKeys
    km: blocking.KeyManager

    def require_whole(self) -> str:
        """Return the source's digest, where it is known what it must be.

        Raises:
            DecryptionError: it is another one.
        """
        found = digest_of(self.source) if self.sha256 else ""
        if found != self.sha256:
            raise DecryptionError(
                "this is not the file that the manifest tells of; it was changed, or put in its place"
            )
        return found

    def require_encrypted(self) -> None:
        """Raise unless it is under keys: a plain file would be read as well, whoever put it there."""
        if not is_encrypted(self.source):
            raise DecryptionError("the file is not encrypted: `keystead bulk encrypt` is for plain files")


def _encrypt(file: _File) -> FileResult:
    import pyarrow.parquet as pq

    if is_encrypted(file.source):
        raise InvalidInputError("the file is encrypted already; `keystead bulk reencrypt` gives it other keys")
    with pq.ParquetFile(file.source) as opened:
        return _written(file, opened)


def _reencrypt(file: _File) -> FileResult:
    file.require_whole()
    file.require_encrypted()
    with file.keys.open(file.source) as opened:
        return _written(file, opened)


def _written(file: _File, opened: object) -> FileResult:
    assert file.staged is not None  # noqa: S101 - a task that writes has a folder to write to
    rows, sha256 = write_anew(opened, file.keys, file.staged)
    found, keys_staged, keys_sha256 = file.staged.stat(), "", ""
    if (material := material_of(file.staged)).exists():
        _sync(material)
        keys_staged, keys_sha256 = material.name, digest_of(material)
    return FileResult(
        "",
        rows=rows,
        staged=file.staged.name,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        sha256=sha256,
        keys_staged=keys_staged,
        keys_sha256=keys_sha256,
    )


def _rotate(file: _File) -> FileResult:
    """Wrap the keys beside a file anew, unless they are under the active versions already."""
    material = material_of(file.source)
    if not _needs_rotation(file.km, material):
        return FileResult("")
    assert file.staged is not None  # noqa: S101 - as above
    fresh = material_of(file.staged)
    fresh.write_bytes(file.keys.rotated_material(file.source))
    _sync(fresh)
    return FileResult("", keys_staged=fresh.name, keys_sha256=digest_of(fresh))


def _needs_rotation(km: blocking.KeyManager, material: Path) -> bool:
    try:
        held = [json.loads(each) for each in json.loads(material.read_bytes()).values()]
        named = [(name_of(each["masterKeyID"]), each.get("wrappedKEK") or each["wrappedDEK"]) for each in held]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInputError("the small file of keys beside it cannot be read") from None
    # Of a key of the KMS nobody tells under which version something was wrapped.
    return any(
        name.startswith(KMS) or km.keyring(name, create=False).needs_reencrypt(wrapped) for name, wrapped in named
    )


def _verify(file: _File) -> FileResult:
    sha256 = file.require_whole()
    file.require_encrypted()
    with file.keys.open(file.source) as opened:
        rows = read_all(opened)
    return FileResult("", rows=rows, size=file.source.stat().st_size, sha256=sha256)


_OPERATIONS: Final = {
    Operation.ENCRYPT: _encrypt,
    Operation.REENCRYPT: _reencrypt,
    Operation.ROTATE: _rotate,
    Operation.VERIFY: _verify,
}


def _failure(name: str, exc: Exception) -> FileResult:
    if isinstance(exc, KMSError):
        return FileResult(name, code=exc.code, reason=str(exc))
    if isinstance(exc, OSError) and exc.errno is not None:
        is_full = exc.errno in DISK_FULL
        return FileResult(name, code="file", reason=exc.strerror or type(exc).__name__, is_disk_full=is_full)
    if isinstance(exc, OSError | pa.ArrowException | TypeError):
        # pyarrow's own texts quote what stands in the file.
        told = "it could not be read: other keys, altered bytes, or a form that pyarrow does not read"
        return FileResult(name, code=DecryptionError.code, reason=f"{told} ({type(exc).__name__})")
    raise exc


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
