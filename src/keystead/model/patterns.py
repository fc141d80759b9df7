"""Patterns of keyrings: ``people-{tenant}`` stands for the keyring of every tenant."""

from __future__ import annotations

import re
from typing import Final

TENANT_PLACE: Final = "{tenant}"
"""What makes the name of a keyring a pattern, as in a field's declaration."""


def is_pattern(keyring: str) -> bool:
    """Whether ``keyring`` stands for the keyrings of all tenants."""
    return TENANT_PLACE in keyring


def covers(declared: str, keyring: str) -> bool:
    """Whether what is declared for ``declared`` holds for ``keyring``: it is named so, or by the pattern.

    Two patterns may meet in one name, of which only one was meant. Then both hold.
    """
    if declared == keyring:
        return True
    head, *rest = (re.escape(part) for part in declared.split(TENANT_PLACE))
    if not rest:
        return False
    # One tenant stands in every place.
    return re.fullmatch(head + "(.+)" + r"\1".join(rest), keyring, re.DOTALL) is not None
