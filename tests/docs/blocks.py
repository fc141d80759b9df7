"""Read the code blocks of a Markdown page."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = frozenset({"python", "console", "bash"})
NOT_EXECUTED = frozenset({"text", "yaml", "toml", "json", "sql", "ini", "csv", "graphql"})

_FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<ticks>`{3,})(?P<info>[^`]*)$")
_SKIP = re.compile(r"^\s*<!-- not executed:(?P<reason>.*)-->\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. ``line`` is that of its first line of content, counted from 1.

    ``options`` are the words after the language, in the braces that the site needs: ``{.exact}``. ``skip_reason`` is
    what the comment above the fence gives.
    """

    line: int
    language: str
    options: tuple[str, ...]
    text: str
    skip_reason: str | None


def pages() -> list[Path]:
    """Return README.md and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_blocks(markdown: str) -> list[Block]:
    """Return the blocks of a page in order; ``ValueError`` for a fence that never ends or a skip without a reason."""
    lines = markdown.splitlines()
    blocks = []
    at, skip_reason = 0, None
    while at < len(lines):
        line = lines[at]
        at += 1
        if skip := _SKIP.match(line):
            skip_reason = skip["reason"].strip()
            if not skip_reason:
                raise ValueError(f"line {at}: a block is marked 'not executed' without a reason")
            continue
        fence = _FENCE.match(line)
        if not fence:
            skip_reason = None
            continue
        start = at
        while at < len(lines) and lines[at].strip() != fence["ticks"]:
            at += 1
        if at == len(lines):
            raise ValueError(f"line {start}: this code block never ends")
        language, *options = [word.strip("{.}") for word in fence["info"].split()] or [""]
        text = textwrap.dedent("\n".join(lines[start:at])) + "\n"
        blocks.append(Block(start + 1, language, tuple(options), text, skip_reason))
        at += 1
        skip_reason = None
    return blocks


def without_blocks(markdown: str) -> str:
    """Return the page's prose: no fenced blocks, no inline code."""
    prose = re.sub(r"(?ms)^ *(`{3,})[^`\n]*\n.*?^ *\1 *$", "", markdown)
    return re.sub(r"`[^`\n]*`", "", prose)
