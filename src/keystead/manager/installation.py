"""Making a place to work in: settings, KEK and store in one folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keystead.errors import ConfigurationError
from keystead.manager import gitignore
from keystead.manager.configured import SQLITE_FILE, read_settings
from keystead.manager.manager import KeyManager
from keystead.ports import Clock
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.uri import ProviderUri
from keystead.stores.urls import parse_url

KEK_FILE: Final = "keystead.kek"
SETTINGS_FILE: Final = "keystead.yaml"
IGNORE_FILE: Final = ".gitignore"
_SETTINGS: Final = """\
# Settings of Keystead. Relative paths count from this file's folder; ${{NAME}} stands for an environment variable.
# Flags and KEYSTEAD_... variables win over what stands here; `keystead config check` shows what is in force.

# Where the wrapped data keys are kept.
store: {store}

# The key-encryption key (KEK) that wraps them. It is not in the store: back it up apart from it.
kms: {kms}
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """What ``install`` made, and which file holds the KEK (None: a KEK elsewhere).

    ``unignored`` are the entries that a ``.gitignore`` lacks which was here before.
    """

    settings: Path
    made: list[Path]
    kek: Path | None = None
    store: Path | None = None
    unignored: list[str] = field(default_factory=list)


def install(
    folder: Path, *, store: str | None = None, kms: str | None = None, more: str = "", clock: Clock | None = None
) -> Installation:
    """Make settings, a KEK file (unless ``kms`` names a KEK) and an SQLite store (unless ``store`` names one).

    The folder is made if it is absent. A ``.gitignore`` names both, unless there is one: it stays as it is. Nothing is
    overwritten, and what was made is taken away again when a later step fails. A KEK file and the store that it opens,
    both here already, as a program leaves them, get settings and are not touched.

    Args:
        more: settings that follow those two in the file, in YAML.
        clock: by which the store's first keys are made.

    Raises:
        ConfigurationError: one of the files exists, or a URL that cannot be used or carries a password.
        KeyDecryptionFailError: KEK and store are here, and do not belong together.
    """
    settings, kek, database = folder / SETTINGS_FILE, folder / KEK_FILE, folder / "keys.db"
    ignore = folder / IGNORE_FILE
    wanted = [settings, *([] if kms else [kek]), *([] if store else [database])]
    is_adopted = kms is None and store is None and kek.exists() and database.exists() and not settings.exists()
    if is_adopted:
        wanted = [settings]
    if present := [path.name for path in wanted if os.path.lexists(path)]:
        raise ConfigurationError(
            f"{' and '.join(present)} {'is' if len(present) == 1 else 'are'} here already and will not be overwritten: "
            "choose an empty folder, or move what is here away (whoever loses a KEK loses what it protects)"
        )
    if kms is not None:
        ProviderUri.parse(kms)
    if store is not None:
        _require_lasting(store)
    is_new = not folder.exists()
    made: list[Path] = []
    try:
        _make_folder(folder)
        if kms is None and not is_adopted:
            create_kek_file(kek)
            made.append(kek)
            # Nobody else writes to a KEK file of this moment; a later rotation makes its lock again.
            kek.with_name(kek.name + ".lock").unlink(missing_ok=True)
        text = _SETTINGS.format(store=_quoted(store or SQLITE_FILE), kms=_quoted(kms or f"file:{KEK_FILE}")) + more
        _write_new(settings, text)
        made.append(settings)
        entries = {**({} if kms else gitignore.KEK_ENTRIES), **({} if store else gitignore.STORE_ENTRIES)}
        unignored = _unignored(ignore, entries)
        if entries and unignored is None:
            _write_new(ignore, gitignore.text_of(entries))
            made.append(ignore)
        if is_adopted:
            asyncio.run(_open_once(settings, clock))
        elif store is None:
            made += [database.with_name(database.name + end) for end in ("", "-wal", "-shm")]
            asyncio.run(_open_once(settings, clock))
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    kept = [path for path in wanted if path.exists()] + [path for path in made if path == ignore]
    own_kek, own_store = (kek if kms is None else None), (database if store is None else None)
    return Installation(settings, kept, own_kek, own_store, unignored or [])


def is_sqlite(url: str) -> bool:
    """Whether ``url`` names an SQLite file."""
    return parse_url(url).kind == "sqlite"


async def _open_once(settings: Path, clock: Clock | None) -> None:
    async with KeyManager.from_config(read_settings(settings, is_file_only=True), background=False, clock=clock):
        pass


def _require_lasting(store: str) -> None:
    parsed = parse_url(store)
    if parsed.kind == "memory":
        raise ConfigurationError("a store in memory forgets its keys with the command; name a file or a database")
    password = parsed.url.password if parsed.url is not None else None
    if password is not None and not str(password).startswith("${"):
        raise ConfigurationError(
            f"the store's URL carries a password, which would stand in {SETTINGS_FILE}: write a reference such as "
            "${DB_PASSWORD} in its place, and set that variable"
        )


def _unignored(path: Path, entries: Mapping[str, Collection[str]]) -> list[str] | None:
    """Return the entries that a ``.gitignore`` lacks, or None where there is no such file."""
    try:
        return gitignore.missing_from(path.read_text(encoding="utf-8", errors="replace"), entries)
    except OSError:
        return [*entries] if os.path.lexists(path) else None


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"the folder {folder} cannot be made: {exc.strerror}; name another") from None


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}") from None
