"""Acts that one person alone must not do, where a store asks for two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Action(StrEnum):
    """What a second person is asked about."""

    KEY_DESTROY = "key.destroy"
    TRANSIT_DELETE = "transit.delete"
    TRANSIT_TRIM = "transit.trim"
    SUBJECT_FORGET = "subject.forget"
    USER_FORGET = "user.forget"
    STORE_IMPORT = "store.import"
    ROLE_CREATE = "role.create"
    ROLE_DELETE = "role.delete"
    SECRET_ID_CREATE = "secret_id.create"  # noqa: S105 -- an act
    TOKEN_CREATE = "token.create"  # noqa: S105 -- an act
    RULE_END = "approval.end"


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is going to be done, exactly: what is approved is this and nothing else.

    Attributes:
        target: what it is done to, as its own commands name it; never the name of a person whose keys are destroyed.
        details: how it is done; texts, numbers and truth values.
        tenant: whose it is; empty where it is the store's.
    """

    action: Action
    target: str
    details: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    tenant: str = ""

    def details_text(self) -> str:
        """Return the details as they are kept and compared."""
        return json.dumps(dict(self.details), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
