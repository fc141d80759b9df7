"""A hook of the documentation's build, for pages made of docstrings: what is said there as Sphinx has it, as Markdown.

Two colons before a block become one, a file of the documentation that is named becomes a link to its page, and several
errors in one line of ``Raises`` stand without parentheses.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

PAGES: Final = "reference/api/"
_FILE = re.compile(r"docs/((?:adr|guides|kms|spec)/\s?[\w-]+)\.md")
_SEVERAL = re.compile(r"<code>\((<autoref\b(?:(?!</code>).)*</autoref>)\)</code>")

log = logging.getLogger("mkdocs.hooks.docstring_pages")


def on_page_content(html: str, page: object, **_: object) -> str:
    """Return the page's content, mended where it is made of docstrings."""
    if not str(getattr(page, "url", "")).startswith(PAGES):
        return html
    html = html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
    return _FILE.sub(_linked, _SEVERAL.sub(r"<code>\1</code>", html))


def _linked(named: re.Match[str]) -> str:
    page = "".join(named[1].split())
    if not Path("docs", f"{page}.md").is_file():
        log.warning("a docstring names docs/%s.md, and there is no such page", page)
    return f'<a href="../../{page}.html">{page}</a>'
