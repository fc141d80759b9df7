"""Patterns of keyrings: ``people-{tenant}`` for the keyring of every tenant, and one for that of every subject."""

from __future__ import annotations

import re
from typing import Final

from keystead.model.keys import SUBJECT_PREFIX

TENANT_PLACE: Final = "{tenant}"
"""What makes the name of a keyring a pattern, as in a field's declaration."""
SUBJECT_PLACE: Final = "{subject}"
OF_SUBJECTS: Final = SUBJECT_PREFIX + SUBJECT_PLACE
"""The pattern of subjects' keyrings: none of them is named by what the application calls its subject."""
PLACES: Final = (TENANT_PLACE, SUBJECT_PLACE)
_PLACE: Final = re.compile("|".join(map(re.escape, PLACES)))


def is_pattern(keyring: str) -> bool:
    """Whether ``keyring`` stands for the keyrings of all tenants, or of all subjects."""
    return _PLACE.search(keyring) is not None


def is_for_each_tenant(keyring: str) -> bool:
    """Whether ``keyring`` stands for the keyrings of all tenants."""
    return TENANT_PLACE in keyring


def covers(declared: str, keyring: str) -> bool:
    """Whether what is declared for ``declared`` holds for ``keyring``: it is named so, or by the pattern.

    Two patterns may meet in one name, of which only one was meant. Then both hold.
    """
    if declared == keyring:
        return True
    head, *rest = (re.escape(part) for part in _PLACE.split(declared))
    if not rest:
        return False
    # One tenant stands in every place.
    return re.fullmatch(head + "(.+)" + r"\1".join(rest), keyring, re.DOTALL) is not None
