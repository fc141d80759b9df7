"""Names of columns in a statement, as the compilers of each Django quote them."""

from __future__ import annotations

from typing import Any


def quoted(compiler: Any, *parts: str | None) -> str:
    """Return a name in quotes, its table or alias before it where there is one."""
    # Django 6.1 renamed what earlier ones have.
    quote = getattr(compiler, "quote_name", None) or compiler.quote_name_unless_alias
    return ".".join(quote(part) for part in parts if part)
