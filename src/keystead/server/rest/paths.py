"""Names in paths that may hold a slash themselves, told apart from the words that follow them."""

from __future__ import annotations

from typing import ClassVar, Final

from starlette.convertors import Convertor, register_url_convertor

from keystead.transit.names import NAME

KEYRING_WORDS: Final = ("rotate", "rotate-index", "abandon-index-rotation", "count-uses")
"""What is done to a keyring: the last part of a path."""


class _Text(Convertor[str]):
    def convert(self, value: str) -> str:
        """Return the name."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name as it stands in a path."""
        return value


class _Name(_Text):
    """All of a path, line feeds included, which Starlette's own ``path`` leaves out."""

    regex: ClassVar[str] = "(?s:.*)"


class _Keyring(_Text):
    """All of a path, unless it ends with a word: a keyring of such a name is found in the list."""

    regex: ClassVar[str] = rf"(?s:(?!.*/(?:{'|'.join(KEYRING_WORDS)})\Z).*)"


class _Key(_Text):
    """An id, or keyring/version: something that ends with a number."""

    regex: ClassVar[str] = r"(?s:(?:[0-9]+|.*/[0-9]+)(?!\n))"


class _TransitKey(_Text):
    """The name of a Transit key."""

    regex: ClassVar[str] = rf"{NAME}(?!\n)"


def register_names() -> None:
    """Make ``{name:name}``, ``keyring``, ``key`` and ``transit`` known to paths; again, it changes nothing."""
    register_url_convertor("name", _Name())
    register_url_convertor("keyring", _Keyring())
    register_url_convertor("key", _Key())
    register_url_convertor("transit", _TransitKey())
