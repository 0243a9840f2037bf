"""Names that anybody may have chosen, in Markdown: shown as they are, never read as markup."""

from __future__ import annotations

import html
import re

MARKED = re.compile(r"([\\`*_\[\]#])")


def escaped(text: str) -> str:
    """A name for a line or a table's cell of Markdown, on one line.

    Entities stand for what not every reader of Markdown lets a backslash precede.
    """
    shown = "".join(char if char.isprintable() else " " for char in text)
    plain = html.escape(" ".join(shown.split()), quote=False)
    return MARKED.sub(r"\\\1", plain).replace("|", "&#124;").replace("~", "&#126;")
