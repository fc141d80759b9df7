"""What is known of a dataset's files: the manifest, and the notes that a run makes before each file that it commits.

Every line is sealed under the keyring of the footers, so that whoever can only write to the disk adds nothing to it. A
note is on disk before its file has its name. Which of a file's notes holds is therefore told by the file itself: the
one whose digest it has, and none if it has that of none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from keystead import blocking
from keystead.bulk.datasets import STATE, Staging
from keystead.bulk.rewriting import digest_of
from keystead.bulk.tasks import KeyRules
from keystead.crypto.envelope import to_text
from keystead.errors import DecryptionError, InvalidCiphertextError, KeyNotFoundError
from keystead.parquet.client import KMS
from keystead.parquet.keys import material_of
from keystead.runtime.files import make_folder, replace_file, sync_folder

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
_ID: Final = "dataset"
_NOTES: Final = "notes-"
_USE: Final = "manifest of a parquet dataset"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it was committed.

    ``job`` names the work that made it, ``under`` the rules and the versions of keyrings that were active then;
    ``keys_sha256`` is of the small file beside it.
    """

    name: str
    job: str
    under: str
    rows: int
    size: int
    mtime_ns: int
    sha256: str
    keys_sha256: str = ""
    source_size: int = 0
    source_mtime_ns: int = 0

    def is_of(self, path: Path) -> bool:
        """Return whether a file, and what is beside it, is the one that was committed.

        Size and time are taken for the content; where only the size is as it was, its digest says.
        """
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        if found.st_size != self.size or (found.st_mtime_ns != self.mtime_ns and digest_of(path) != self.sha256):
            return False
        material = material_of(path)
        return (digest_of(material) if self.keys_sha256 and material.exists() else "") == self.keys_sha256


class Seal:
    """Seals lines of one dataset, and tells them from what somebody else wrote.

    Args:
        footer: the keyring of the footers. Of a key of the KMS itself the manager's default keyring stands in its
            place: a call for each file would be made otherwise.
    """

    def __init__(self, km: blocking.KeyManager, footer: str, dataset: str) -> None:
        self._km = km
        self._keyring = None if footer.startswith(KMS) else footer
        self._context = {"use": _USE, "dataset": dataset}

    def line(self, content: object) -> bytes:
        """Return a line: the content as JSON, and its seal."""
        body = json.dumps(content, separators=(",", ":"), sort_keys=True).encode("ascii")
        ring = self._km.default if self._keyring is None else self._km.keyring(self._keyring)
        return body + b"\t" + to_text(ring.local_encrypt(_digest(body), context=self._context)).encode("ascii") + b"\n"

    def open(self, line: bytes) -> Any:
        """Return the content of a line.

        Raises:
            DecryptionError: it was not written by who may use the keyring, not for this dataset, or not to its end.
            KMSError: as ``km.keyring``.
        """
        body, tab, seal = line.rstrip(b"\n").partition(b"\t")
        if not tab:
            raise InvalidCiphertextError("a line of the manifest is not whole")
        ring = self._km.default if self._keyring is None else self._km.keyring(self._keyring, create=False)
        if ring.local_decrypt(seal.decode("ascii", "replace"), context=self._context) != _digest(body):
            raise DecryptionError("a line of the manifest has another content than was sealed")
        return json.loads(body)


class Manifest:
    """The manifest of a dataset, with the notes of runs that came to no end.

    Attributes:
        rules: by which its files were written; None where nobody knows.
        is_known: whether there is a manifest.
    """

    def __init__(self, dataset: Path, km: blocking.KeyManager, rules: KeyRules | None) -> None:
        """Read what is there.

        Raises:
            DecryptionError: the manifest was changed by somebody else, or is of another dataset.
        """
        self._dataset = dataset
        self._state = dataset / STATE
        self._entries: dict[str, list[Entry]] = {}
        self._notes: BinaryIO | None = None
        self.rules = self._kept_rules() or rules
        self.is_known = (self._state / MANIFEST).exists()
        self._seal = Seal(km, (self.rules or KeyRules()).footer, self.id)
        # A run that gave other rules to the dataset may have come to no end.
        self._seals = [self._seal] if rules is None else [self._seal, Seal(km, rules.footer, self.id)]
        if self.is_known:
            found = self._seal.open((self._state / MANIFEST).read_bytes())
            self.rules = KeyRules(**found["rules"])
            self._add(Entry(**each) for each in found["files"])
        for path in sorted(self._state.glob(f"{_NOTES}*"), key=_token_of):
            self._add(self._read(path))

    @property
    def id(self) -> str:
        """The dataset's random id, empty before ``begin``."""
        try:
            return (self._state / _ID).read_text("ascii").strip()
        except FileNotFoundError:
            return ""

    def find(self, name: str) -> list[Entry]:
        """Return what is noted of a file, oldest first."""
        return self._entries.get(name, [])

    def current(self, name: str) -> Entry | None:
        """Return the newest entry that a file in the dataset is of."""
        return next((each for each in reversed(self.find(name)) if each.is_of(self._dataset / name)), None)

    @property
    def names(self) -> list[str]:
        """The names of the files it tells of."""
        return sorted(self._entries)

    @property
    def is_settled(self) -> bool:
        """Whether there is a manifest, and no run that came to no end."""
        return self.is_known and not any(self._state.glob(f"{_NOTES}*"))

    def begin(self, km: blocking.KeyManager, rules: KeyRules, token: int) -> None:
        """Begin the notes of a run, under the lease of the dataset."""
        self.rules = rules
        self._seal = Seal(km, rules.footer, self.id)
        path = self._state / f"{_NOTES}{token}"
        self._notes = path.open("ab")
        sync_folder(self._state)

    def note(self, entry: Entry) -> None:
        """Note a file that is about to get its name; the note is on disk when this returns."""
        assert self._notes is not None  # noqa: S101 - a run begins before it commits
        self._notes.write(self._seal.line(asdict(entry)))
        self._notes.flush()
        os.fsync(self._notes.fileno())
        self._add([entry])

    def finish(self, staging: Staging, token: int) -> None:
        """Put the manifest in the place of the one before, and take the notes away that it makes needless.

        Of a dataset of which nothing is known none is made.
        """
        files = [asdict(each) for each in map(self.current, self.names) if each is not None]
        if files or self.is_known:
            rules = self.rules or KeyRules()
            body = {"version": VERSION, "dataset": self.id, "token": token, "rules": rules.arguments(), "files": files}
            replace_file(staging.folder / MANIFEST, self._seal.line(body))
            staging.commit(MANIFEST, f"{STATE}/{MANIFEST}")
        for path in self._state.glob(f"{_NOTES}*"):
            if _token_of(path) <= token:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the notes."""
        if self._notes is not None:
            self._notes.close()

    def _kept_rules(self) -> KeyRules | None:
        """Return the rules that the manifest names; what seals it is among them, so they are not proven yet."""
        try:
            body = (self._state / MANIFEST).read_bytes().partition(b"\t")[0]
            return KeyRules(**json.loads(body)["rules"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise InvalidCiphertextError(f"{self._state / MANIFEST} is not a manifest, or not a whole one") from None

    def _read(self, path: Path) -> Iterable[Entry]:
        """Yield the entries of a run's notes. Of a line that nobody sealed, or half a one, its file is done again."""
        for line in path.read_bytes().splitlines():
            for seal in self._seals:
                with contextlib.suppress(DecryptionError, KeyNotFoundError):
                    yield Entry(**seal.open(line))
                    break

    def _add(self, entries: Iterable[Entry]) -> None:
        for each in entries:
            self._entries.setdefault(each.name, []).append(each)


def make_id(dataset: Path, random_hex: str) -> str:
    """Return the id of a dataset, made of ``random_hex`` where it has none: who comes first makes it."""
    make_folder(dataset / STATE)
    path = dataset / STATE / _ID
    if path.exists():
        return path.read_text("ascii").strip()
    staged = path.with_name(f".{_ID}-{random_hex}")
    replace_file(staged, f"{random_hex}\n".encode("ascii"))
    try:
        # A link, unlike a rename, takes no name that is there.
        os.link(staged, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    finally:
        staged.unlink()
    return path.read_text("ascii").strip()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _token_of(path: Path) -> int:
    tail = path.name.removeprefix(_NOTES)
    return int(tail) if tail.isdigit() else -1
