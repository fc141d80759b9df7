"""A witness's keys and name, made at its first start and kept: readers trust the two together."""

from __future__ import annotations

import os
from pathlib import Path

from keystead.errors import ConfigurationError
from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.tlog.key_file import ed25519_key, ml_dsa_44_key
from keystead.ledger.tlog.note import require_name
from keystead.runtime.files import make_folder, replace_file


def witness_signers(
    folder: Path,
    name: str,
    key: str | os.PathLike[str] | None = None,
    *,
    is_named: bool = True,
    has_ml_dsa: bool = False,
) -> list[WitnessSigner]:
    """Return what a witness cosigns with: an Ed25519 key in ``key`` or the folder, and one of ML-DSA-44 beside it.

    Args:
        name: of the witness; the one that the folder has goes before, where ``is_named`` is false.

    Raises:
        ConfigurationError: the folder cannot be used, or remembers another name.
        InvalidInputError: a name that no key can have.
    """
    path = folder / "name"
    try:
        make_folder(folder, mode=0o700)
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else None
        if kept is None:
            require_name(name)
            replace_file(path, f"{name}\n".encode())
    except (OSError, UnicodeDecodeError) as exc:
        told = getattr(exc, "strerror", None) or type(exc).__name__
        raise ConfigurationError(f"the witness's folder {folder} cannot be used: {told}") from None
    if kept is not None and is_named and kept != name:
        raise ConfigurationError(
            f"the witness in {folder} is called {kept!r}, and its readers trust it by this name: give it another folder"
        )
    name = kept or name
    file = folder / "witness.key" if key is None else Path(key)
    signers = [WitnessSigner(name, ed25519_key(file))]
    if has_ml_dsa:
        signers.append(WitnessSigner(name, ml_dsa_44_key(file.with_name(f"{file.stem}-ml-dsa{file.suffix}"))))
    return signers
