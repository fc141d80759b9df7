"""What is known of a store from outside its database: a file of JSON lines, only ever appended to.

One file a store, named by the store's id. A torn last line, of a process killed in mid-write, is passed over.
Spec: docs/spec/state-journal-v1.md.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from keystead.errors import StorageOperationError, StoreFullError
from keystead.model import utc_text
from keystead.ports import NO_ERASURES, ErasureMark, SeenState
from keystead.runtime import fork
from keystead.runtime.files import DISK_FULL, sync_folder

log = logging.getLogger("keystead.stores")
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class FileJournal:
    """A ``keystead.ports.StateJournal`` in a folder. Lines already written are not written again."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).absolute()
        self._lock = threading.Lock()
        self._read_size: dict[str, int] = {}
        self._epoch: dict[str, int] = {}
        self._keys: dict[str, dict[int, tuple[str, int]]] = {}
        self._destroyed: dict[str, set[int]] = {}
        self._exported_at: dict[str, datetime] = {}
        self._audited: dict[str, int] = {}
        self._erasures: dict[str, ErasureMark] = {}
        self._is_reported = False
        fork.in_child(self._after_fork)

    def read(self, store_id: str) -> SeenState:
        """Return what was written for the store, by this process or another.

        Raises:
            StorageOperationError: the journal is there and cannot be read.
        """
        with self._lock:
            self._catch_up(store_id)
            return SeenState(
                self._epoch.get(store_id, 0),
                MappingProxyType(self._keys.setdefault(store_id, {})),
                frozenset(self._destroyed.get(store_id, ())),
                self._exported_at.get(store_id),
                self._audited.get(store_id, 0),
                self._erasures.get(store_id),
            )

    def append(
        self,
        store_id: str,
        *,
        epoch: int | None = None,
        keys: Mapping[int, tuple[str, int]] | None = None,
        destroyed: Collection[int] = (),
        exported_at: datetime | None = None,
        audited: bool = False,
        erasures: ErasureMark | None = None,
    ) -> None:
        """Add what is new, and return when it is on the disk.

        A folder that may not be written is reported once and passed over: without it a restore goes unnoticed, with
        an error here nothing could be decrypted from read-only media.

        Raises:
            StoreFullError: the disk is full.
            StorageOperationError: the journal cannot be read or written for another reason.
        """
        with self._lock:
            self._catch_up(store_id)
            lines: list[dict[str, Any]] = []
            if exported_at is not None:
                lines.append({"epoch": epoch or 0, "exported": utc_text(exported_at)})
            elif audited and (epoch or 0) > self._audited.get(store_id, 0):
                lines.append({"epoch": epoch, "audited": True})
            elif epoch is not None and epoch > self._epoch.get(store_id, 0):
                lines.append({"epoch": epoch})
            known = self._keys.get(store_id, {})
            lines += [
                {"key": key_id, "keyring": keyring, "version": version}
                for key_id, (keyring, version) in (keys or {}).items()
                if key_id not in known
            ]
            gone = self._destroyed.get(store_id, set())
            lines += [{"destroyed": key_id} for key_id in destroyed if key_id not in gone]
            if erasures is not None and erasures.count > self._erasures.get(store_id, NO_ERASURES).count:
                lines.append({"erasures": erasures.count, "head": erasures.head.hex()})
            if not lines:
                return
            try:
                self._write(store_id, lines)
            except OSError as exc:
                if exc.errno in DISK_FULL:
                    raise StoreFullError("the disk under the state folder is full: make room on it") from None
                if exc.errno not in _READ_ONLY:
                    raise _unusable(exc) from None
                if not self._is_reported:
                    log.warning("the state folder cannot be written: a restored store would go unnoticed here")
                self._is_reported = True

    def _write(self, store_id: str, lines: list[dict[str, Any]]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        is_new = not self._path(store_id).exists()
        descriptor = os.open(self._path(store_id), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # A line torn by a kill is closed first, so that ours is not glued to it.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "only a part could be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._folder)
        self._catch_up(store_id)

    def _catch_up(self, store_id: str) -> None:
        try:
            with self._path(store_id).open("rb") as file:
                file.seek(self._read_size.get(store_id, 0))
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _unusable(exc) from None
        whole, newline, _ = data.rpartition(b"\n")
        for line in filter(None, whole.split(b"\n")):
            self._take(store_id, line)
        self._read_size[store_id] = self._read_size.get(store_id, 0) + len(whole) + len(newline)

    def _take(self, store_id: str, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if "epoch" in entry:
                epoch = int(entry["epoch"])
                self._epoch[store_id] = max(self._epoch.get(store_id, 0), epoch)
                if entry.get("audited") is True:
                    self._audited[store_id] = max(self._audited.get(store_id, 0), epoch)
                if "exported" in entry:
                    exported_at = datetime.fromisoformat(entry["exported"])
                    self._exported_at[store_id] = max(self._exported_at.get(store_id, exported_at), exported_at)
            elif "key" in entry:
                place = (str(entry["keyring"]), int(entry["version"]))
                self._keys.setdefault(store_id, {})[int(entry["key"])] = place
            elif "erasures" in entry:
                mark = ErasureMark(int(entry["erasures"]), bytes.fromhex(entry["head"]))
                self._erasures[store_id] = max(self._erasures.get(store_id, mark), mark, key=lambda each: each.count)
            elif "destroyed" in entry:
                self._destroyed.setdefault(store_id, set()).add(int(entry["destroyed"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a line of the state journal is unreadable and was passed over")

    def _path(self, store_id: str) -> Path:
        return self._folder / f"{store_id}.journal"

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _unusable(exc: OSError) -> StorageOperationError:
    return StorageOperationError(f"the state folder cannot be used ({type(exc).__name__}); check its path and rights")
