"""The command that goes on with a re-encryption, or begins one of a registered field."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from keystead.crypto.blind_index import INDEX_SIZE
from keystead.model.patterns import OF_SUBJECTS
from keystead.ports import FieldRecord, ReencryptionRecord

_PLACE: Final = re.compile(r"@[0-9a-f]{8}\Z")
"""What is added to the id of a field that is registered in several places."""
_PREFIX: Final = re.compile(r"prefix([0-9]+)\Z")


def command_of(job: ReencryptionRecord) -> str | None:
    """Return the command that goes on with a job, to be run where the application's database is reached.

    A password is in no locator, and in no command. None where no command says it: an application of its own works on
    the job, an importer needs keys, or it is another kind of job.
    """
    words = _place(job.locator, job.field_id)
    told = _loaded(job.target)
    declared = told.get("field")
    if words is None or not isinstance(declared, dict) or told.get("importing") is not None:
        return None
    options = _declared(declared, _table(job.locator))
    if options is None:
        return None
    words += options
    words += ["--key", ",".join(told["key"])]
    if told["plaintext"] is not None:
        words += ["--plaintext-column", told["plaintext"]]
    if job.dry_run:
        words.append("--dry-run")
    return shlex.join(words)


def beginning_of(registered: FieldRecord) -> str | None:
    """Return the command that begins a re-encryption of a field of which no more is known than its registration.

    The application's declaration says the rest: type, record, tenant and indexes. None as ``command_of``.
    """
    words = _place(registered.locator, registered.id)
    if words is None:
        return None
    words += ["--per-subject"] if registered.keyring == OF_SUBJECTS else _if("--keyring", registered.keyring, "default")
    words += _if("--index-keyring", registered.index_keyring or "index", "index")
    return shlex.join(words)


def _place(locator: str, field_id: str) -> list[str] | None:
    if not locator.startswith("sql:"):
        return None
    url, _, target = locator.removeprefix("sql:").rpartition("#")
    name = _PLACE.sub("", field_id)
    return ["keystead", "reencrypt", url, target, *_if("--id", name, target)]


def _table(locator: str) -> str:
    return locator.rpartition("#")[2].rpartition(".")[0]


def _loaded(target: str) -> Mapping[str, Any]:
    try:
        told = json.loads(target)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _declared(told: Mapping[str, Any], table: str) -> list[str] | None:
    """Return the options that say a declaration; None where there are none for it."""
    subject, kind = told["subject"]
    has_subjects = told["keyring"] == OF_SUBJECTS
    columns = [*told["record"], told["tenant"], subject]
    words = [*_if("--type", told["type"].lower(), "text"), *_if("--record", ",".join(told["record"]), "id")]
    for column, of_type in zip(columns, told["types"], strict=True):
        if of_type not in (None, "UUID", "str"):
            return None
        if of_type is not None and column is not None:
            words += ["--uuid" if of_type == "UUID" else "--no-uuid", column]
    words += _if("--tenant", told["tenant"], None)
    if has_subjects:
        words += ["--per-subject"] if subject is None else ["--subject", subject]
        words += _if("--subject-kind", kind, table.rpartition(".")[2] if subject is None else None)
    else:
        words += _if("--keyring", told["keyring"], "default")
    for name in told["former_keyrings"]:
        words += ["--former-keyring", name]
    for name, size in told["indexes"]:
        words += ["--index", _index(name, size)]
    words += _if("--index-keyring", told["index_keyring"], "index")
    return [*words, "--encrypt-null"] if told["encrypt_null"] else words


def _index(name: str, size: int) -> str:
    prefix = _PREFIX.match(name)
    kind = f"prefix:{prefix[1]}" if prefix is not None else name.removeprefix("like_")
    return kind if size == INDEX_SIZE else f"{kind},size:{size}"


def _if(option: str, value: str | None, usual: str | None) -> Sequence[str]:
    return () if value == usual or value is None else (option, value)
