"""The page of protocols tells what the code has."""

import re
from pathlib import Path

import pytest

from moreaugrad.training import PROTOCOLS

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_page_has_each_protocol(name: str) -> None:
    made = PROTOCOLS[name].load().__name__
    assert re.search(rf"^\| `{name}` \| `{made}` \|", TEXT, re.MULTILINE)
