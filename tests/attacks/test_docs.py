"""The documentation's tables of attacks and statuses are the code's."""

import re
from pathlib import Path

import pytest

from moreaugrad.attacks import ATTACKS, AttackStatus

TEXT = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text("utf-8")
STATUS = re.compile(r"^\| `([\w -]+)` \| (yes|no) \|", re.MULTILINE)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_page_has_each_attack(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", TEXT, re.MULTILINE)


def test_the_page_documents_the_statuses() -> None:
    expected = {status.value: "yes" if status.ok else "no" for status in AttackStatus}
    assert dict(STATUS.findall(TEXT)) == expected
    for status in AttackStatus:
        assert bool(status.remedy) is not status.ok
