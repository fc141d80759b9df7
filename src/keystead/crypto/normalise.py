"""Normalisers of blind indexes: what counts as the same value, the same on every Python release.

Case folding and compatibility forms are taken from Unicode 3.2, the one version that every Python release carries
beside its own (``unicodedata.ucd_3_2_0``). A character that version does not know stays as it is. For the characters
it knows, Unicode's stability policy fixes normalisation and case folding for ever. Spec: docs/spec/blind-index-v1.md.
"""

from __future__ import annotations

import re
from enum import IntEnum
from itertools import groupby
from typing import Final
from unicodedata import ucd_3_2_0

_SPACE: Final = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES: Final = re.compile(f"[{_SPACE}]+")
_TRUNK_ZERO: Final = "(0)"
_INTERNATIONAL: Final = re.compile(r"[()]*(?:\+|0[()+]*0)")
_NO_DIGIT: Final = re.compile("[^0-9]")


class Normaliser(IntEnum):
    """The parameter byte of a normalised index."""

    CASE_AND_SPACE = 0x01
    EMAIL = 0x02
    PHONE = 0x03


def normalise(text: str, normaliser: Normaliser = Normaliser.CASE_AND_SPACE) -> str:
    """Return the form of ``text`` that is indexed. Every text has one; equal forms are equal values to a search.

    CASE_AND_SPACE folds case and compatibility forms, makes each run of white space one space and trims both ends.
    EMAIL does the same and removes white space altogether. PHONE keeps ASCII digits (of any script's digits, their
    ASCII ones) behind one ``+`` where the number begins with ``+`` or ``00``, whatever stands before or between them; a
    trunk zero written ``(0)`` behind it goes. No country code is ever guessed.
    """
    folded = _SPACES.sub(" ", _fold(text)).strip(" ")
    if normaliser is Normaliser.EMAIL:
        # Without the space between them, a letter and a mark may have become one character.
        return _fold(folded.replace(" ", ""))
    if normaliser is Normaliser.PHONE:
        return _phone(folded)
    return folded


def tokens(text: str) -> list[str]:
    """Return the distinct words of ``text``, normalised and sorted: runs of letters, marks and numbers."""
    words = "".join(c if _is_word(c) else " " for c in normalise(text))
    return sorted(set(words.split(" ")) - {""})


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    parts = []
    for is_known, run in groupby(text, key=_is_known):
        part = "".join(run)
        if is_known:
            part = ucd_3_2_0.normalize("NFKC", ucd_3_2_0.normalize("NFKC", part).casefold())
        parts.append(part)
    return "".join(parts)


def _is_known(character: str) -> bool:
    return ucd_3_2_0.category(character) != "Cn"


def _is_word(character: str) -> bool:
    # A character that Unicode 3.2 does not know is most often a letter of a script added later.
    return ucd_3_2_0.category(character)[0] in "LMN" or not _is_known(character)


def _phone(folded: str) -> str:
    kept = "".join(c if c in "+()" else str(ucd_3_2_0.decimal(c, "")) for c in folded)
    international = _INTERNATIONAL.match(kept)
    if international is None:
        return _NO_DIGIT.sub("", kept)
    return "+" + _NO_DIGIT.sub("", kept[international.end() :].replace(_TRUNK_ZERO, "", 1))
