"""Names of folders that any system can have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LONGEST, MOST_BYTES = 80, 200
"""Characters, and bytes in UTF-8, of a folder's name: file systems take 255 bytes."""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, which no folder can have there."""
FORBIDDEN = '<>:"/\\|?*'
"""Characters that no name can have on Windows."""


def unique_names(stems: Sequence[str]) -> list[str]:
    """Folder names for these on any system, none like another whatever the letters' case and the
    composition of their accents."""
    used, names = set[str](), list[str]()
    for stem in stems:
        base, number = _portable(stem), 1
        name = base
        while _alike(name) in used:
            number += 1
            name = f"{base}-{number}"
        used.add(_alike(name))
        names.append(name)
    return names


def _portable(stem: str) -> str:
    plain = "".join(c if c.isprintable() and c not in FORBIDDEN else "_" for c in stem)
    short = plain.strip(" .")[:LONGEST].encode()[:MOST_BYTES].decode(errors="ignore").rstrip(" .")
    return f"_{short}" if RESERVED.fullmatch(short) else short or "input"


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
