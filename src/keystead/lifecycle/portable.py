"""A store as one JSON document: wrapped rows only, never a key in clear. Spec: docs/spec/store-export-v1.md."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.model import (
    AUDIT_KEYRING,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    StoreState,
    TransitType,
    utc_text,
)
from keystead.ports import ErasureMark, FieldRecord, KeyUse, SubjectRecord, TransitKeyRecord

FORMAT: Final = "keystead-store-export"
VERSION: Final = 1
WITH_SUBJECTS: Final = 2
"""The version where there are subjects: who does not know of them must not take the document for a whole store."""
WITH_TRANSIT: Final = 3
"""The version where there are Transit keys, or settings of them; for the same reason."""
_VERSIONS: Final = (VERSION, WITH_SUBJECTS, WITH_TRANSIT)
_NEWER_MEMBERS: Final = ("record",)
"""What earlier releases do not know of rows, and can do without: left out where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class StoreExport:
    """The contents of an export: whose it is, how far it had come, every row, the declared data sources and fields.

    Attributes:
        no_upsert: the tenants for whom encrypting under a name that is no Transit key's makes no key.
    """

    state: StoreState
    exported_at: datetime
    keyrings: list[KeyringRecord]
    keys: list[KeyRecord]
    uses: list[KeyUse] = field(default_factory=list)
    fields: list[FieldRecord] = field(default_factory=list)
    subjects: list[SubjectRecord] = field(default_factory=list)
    erasures: ErasureMark | None = None
    transit_keys: list[TransitKeyRecord] = field(default_factory=list)
    no_upsert: list[str] = field(default_factory=list)


def dump(export: StoreExport) -> str:
    """Return the document, with the SHA-256 of its body against accidental damage."""
    version, body = _body(export)
    return json.dumps({"format": FORMAT, "version": version, "sha256": _digest(body), "store": body}, indent=1)


def digest_of(export: StoreExport) -> str:
    """Return the SHA-256 that the document of an export names, in hexadecimal."""
    return _digest(_body(export)[1])


def _body(export: StoreExport) -> tuple[int, dict[str, Any]]:
    body: dict[str, Any] = {
        "store_id": export.state.store_id,
        "epoch": export.state.epoch,
        "audited": export.state.audited,
        "exported_at": utc_text(export.exported_at),
        "keyrings": [_to_json(keyring) for keyring in export.keyrings],
        "keys": [_to_json(key) for key in export.keys],
        "key_uses": [_to_json(use) for use in export.uses],
        "fields": [_to_json(registered) for registered in export.fields],
    }
    version = VERSION
    if export.erasures is not None:
        version = WITH_SUBJECTS
        body["subjects"] = [_to_json(subject) for subject in export.subjects]
        body["erasures"] = _to_json(export.erasures)
    if export.transit_keys or export.no_upsert:
        version = WITH_TRANSIT
        body["transit_keys"] = [_to_json(record) for record in export.transit_keys]
        body["transit_settings"] = [{"tenant": tenant, "disable_upsert": True} for tenant in export.no_upsert]
    return version, body


def parse(text: str) -> StoreExport:
    """Read a document.

    Raises:
        InvalidInputError: not an export, of a newer version, or damaged.
    """
    try:
        document = json.loads(text)
        if document.get("format") != FORMAT:
            raise InvalidInputError("this file is not a Keystead store export")
        version = document.get("version")
        if version not in _VERSIONS:
            raise InvalidInputError("this export was made by a newer release; upgrade keystead to read it")
        body = document["store"]
        has_subjects = version == WITH_SUBJECTS or (version == WITH_TRANSIT and "erasures" in body)
        has_transit = version == WITH_TRANSIT
        if _digest(body) != document["sha256"]:
            raise InvalidInputError("this export is damaged: its checksum does not match; use another copy")
        return StoreExport(
            StoreState(body["store_id"], int(body["epoch"]), restored=True, audited=_is_audited(body)),
            datetime.fromisoformat(body["exported_at"]),
            [_keyring(row) for row in body["keyrings"]],
            [_key(row) for row in body["keys"]],
            [KeyUse(**{name: str(use[name]) for name in ("name", "keyring", "locator")}) for use in body["key_uses"]],
            [FieldRecord(**row) for row in body.get("fields", [])],
            [_subject(row) for row in body.get("subjects", [])],
            _mark(body["erasures"]) if has_subjects else None,
            [_transit_key(row) for row in body["transit_keys"]] if has_transit else [],
            [str(row["tenant"]) for row in body["transit_settings"] if row["disable_upsert"]] if has_transit else [],
        )
    except InvalidInputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidInputError("this is no whole Keystead store export; use another copy") from None


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_audited(body: Mapping[str, Any]) -> bool:
    """Return whether the store kept an audit trail. One that has the keyring of a trail and does not say so did."""
    told = body.get("audited", any(keyring["name"] == AUDIT_KEYRING for keyring in body["keyrings"]))
    if not isinstance(told, bool):
        raise TypeError("whether the store kept an audit trail is true or false")
    return told


def _to_json(
    row: KeyRecord | KeyringRecord | KeyUse | FieldRecord | SubjectRecord | ErasureMark | TransitKeyRecord,
) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for column in fields(row):
        value = getattr(row, column.name)
        if isinstance(value, datetime):
            value = utc_text(value)
        elif isinstance(value, bytes):
            value = base64.b64encode(value).decode("ascii")
        elif isinstance(value, Mapping):
            value = dict(value)
        if value is not None or column.name not in _NEWER_MEMBERS:
            plain[column.name] = value
    return plain


def _times(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, datetime | None]:
    return {name: datetime.fromisoformat(row[name]) if row.get(name) else None for name in names}


def _subject(row: Mapping[str, Any]) -> SubjectRecord:
    made = datetime.fromisoformat(row["created_at"])
    return SubjectRecord(base64.b64decode(row["id"], validate=True), str(row["keyring"]), made)


def _mark(row: Mapping[str, Any]) -> ErasureMark:
    return ErasureMark(int(row["count"]), base64.b64decode(row["head"], validate=True))


def _transit_key(row: Mapping[str, Any]) -> TransitKeyRecord:
    made = datetime.fromisoformat(row["created_at"])
    return TransitKeyRecord(**{**row, "type": TransitType(row["type"]), "created_at": made})


def _keyring(row: Mapping[str, Any]) -> KeyringRecord:
    return KeyringRecord(
        **{**row, "purpose": KeyringPurpose(row["purpose"]), "created_at": datetime.fromisoformat(row["created_at"])}
    )


def _key(row: Mapping[str, Any]) -> KeyRecord:
    wrapped = row["wrapped_key"]
    return KeyRecord(
        **{
            **row,
            "purpose": KeyringPurpose(row["purpose"]),
            "state": DataKeyState(row["state"]),
            "wrapped_key": None if wrapped is None else base64.b64decode(wrapped, validate=True),
            **_times(row, ("activated_at", "rotate_after", "expires_at", "destroy_after")),
        }
    )
