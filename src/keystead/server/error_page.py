"""The page of errors, docs/errors.md, which the service shows as well: each answered error links to its section."""

from __future__ import annotations

import inspect
import re
from typing import Final

from keystead import errors

PATH: Final = "/errors.md"
HEAD: Final = """\
# Errors

Everything Keystead raises is a `KMSError`. Programs act on the class or on its `code`, which never change their
meaning; texts may change between releases. `retryable` says whether the same call may succeed later without anybody
changing anything; `cure` is what to do, as it stands here, and a message that knows better says so. No message holds
key bytes, plaintext, the values of a context, a URL with credentials or the text of a service's response.

This page is generated from `src/keystead/errors/` by `scripts/gen_error_docs.py`.
"""


def error_classes() -> list[type[errors.KMSError]]:
    """Return every error class in the order of the tree.

    Raises:
        AttributeError: the tree has one that is not there.
    """
    drawn = [getattr(errors, name) for name in re.findall(r"(?:KMS|\w+)Error(?= )", errors.__doc__ or "")]
    named = {getattr(errors, name) for name in errors.__all__}
    undrawn = {each for each in named if issubclass(each, errors.KMSError)} - set(drawn)
    return [*drawn, *sorted(undrawn, key=lambda each: each.code)]


def section(error: type[errors.KMSError]) -> str:
    """Return the section of one error."""
    parents = ", ".join(f"`{parent.__name__}`" for parent in error.__bases__)
    cause = inspect.cleandoc(error.__doc__ or "").replace("``", "`")
    cure = f"{error.cure[:1].upper()}{error.cure[1:]}."
    retryable = "yes" if error.retryable else "no"
    kind = f"`{error.__name__}`, a kind of {parents}. Retryable: {retryable}."
    return f"## {error.code} {{#{error.code}}}\n\n{kind}\n\n**Cause.** {cause}\n\n**Cure.** {cure}\n"


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(section(error) for error in error_classes())])
