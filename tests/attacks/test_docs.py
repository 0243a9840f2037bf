"""The documentation's tables of settings and statuses are the code's."""

import re
from pathlib import Path

import pytest

from moreaugrad.attacks import ATTACKS, AttackStatus

TEXT = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text("utf-8")
SETTING = re.compile(r"^\| `(\w+)` \| `([^`]*)` \|", re.MULTILINE)
STATUS = re.compile(r"^\| `([\w -]+)` \| (yes|no) \|", re.MULTILINE)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_page_tells_the_settings(name: str) -> None:
    told: dict[str, str] = {}
    for section in TEXT.split("\n### ")[1:]:
        heading = section.partition("\n")[0]
        if heading == "All attacks" or f"`{name}`" in heading:
            told |= dict(SETTING.findall(section.partition("\n## ")[0]))
    known = ATTACKS[name].defaults()
    assert told == {key: f'"{v}"' if isinstance(v, str) else repr(v) for key, v in known.items()}
    assert re.search(rf"^\| `{name}` \|", TEXT, re.MULTILINE)


def test_the_page_tells_the_statuses() -> None:
    expected = {status.value: "yes" if status.ok else "no" for status in AttackStatus}
    assert dict(STATUS.findall(TEXT)) == expected
    for status in AttackStatus:
        assert bool(status.remedy) is not status.ok
