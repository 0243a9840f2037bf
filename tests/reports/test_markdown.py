"""Names of classes in Markdown are shown as they are, whatever they hold."""

import html
import re
from urllib.parse import unquote

import pytest

from moreaugrad.reports.studies import Findings, escaped

markdown = pytest.importorskip("markdown")

HOSTILE = (
    "a|b", "a\nb|c", "*star*", "_under_score_", "__dunder__", "`code`", "[link](http://x)",
    "![i](j)",
    "<script>alert(1)</script>", "<b>", "a & b", "&lt;", "back\\slash", "\\|", "# head", "~~gone~~",
    "C# 7", "\u202eright to left", "\x00\x07", "http://x", "a]](b", "\\*",
)  # fmt: skip


def seen(text):
    """What a name is shown as: on one line, without what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_cell_that_shows_it(name):
    table = f"| class | n |\n|---|---|\n| {escaped(name)} | 7 |\n"
    page = markdown.markdown(table, extensions=["tables"])
    cells = re.findall(r"<td>(.*?)</td>", page, flags=re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [seen(name), "7"]
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)\b)", page)


@pytest.mark.parametrize("name", [*HOSTILE, "cell 84 of seed 7", "a) b", "%20"])
def test_an_image_is_found_by_its_name(name):
    found = Findings(title="t", tables=[], images=[(name, f"inputs/{name}/a.png")]).markdown()
    (link,) = re.findall(r'src="([^"]*)"', markdown.markdown(found))
    assert unquote(html.unescape(link)) == f"inputs/{name}/a.png"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_line_is_no_markup(name):
    page = markdown.markdown(f"Classes: {escaped(name)}.")
    assert html.unescape(page) == f"<p>Classes: {seen(name)}.</p>"
