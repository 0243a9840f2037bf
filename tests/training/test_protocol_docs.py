"""The page of protocols tells what the code has."""

import re
from pathlib import Path

import pytest

from moreaugrad.training import PROTOCOLS

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
SETTING = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \| (`[^|]*`) \|", re.MULTILINE)


def told(name: str) -> dict[str, str]:
    """Settings and defaults as the page has them for a class."""
    found = {}
    for settings, owners, defaults in SETTING.findall(TEXT):
        if f"`{name}`" in owners or owners == "all" or owners == "those with a penalty":
            keys = re.findall(r"`(\w+)`", settings)
            found |= dict(zip(keys, re.findall(r"`([^`]*)`", defaults), strict=True))
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_page_tells_the_settings(name: str) -> None:
    kind = PROTOCOLS[name]
    made = kind.load().__name__
    assert re.search(rf"^\| `{name}` \| `{made}` \|", TEXT, re.MULTILINE)
    page = told(made)
    for key, value in kind.defaults().items():
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        if (made, key) != ("Penalised", "inner"):  # told in words
            assert page[key] == shown, key
