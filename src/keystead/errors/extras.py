"""Imports of what an extra brings, and what is said where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keystead.errors.configuration import MissingDependencyError


@contextmanager
def needing(extra: str, message: str) -> Iterator[None]:
    """Say of an import that fails which extra has the package; ``{}`` in the message stands for the package.

    Raises:
        MissingDependencyError: a package is not installed. A module of ours that is missing is a fault, and raised so.
    """
    try:
        yield
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "keystead":
            raise
        raise MissingDependencyError(f"{message.format(exc.name)}: pip install 'keystead[{extra}]'") from None
