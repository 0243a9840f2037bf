"""Highlighted text: nothing of the text is lost, obeyed or unreadable."""

import html.parser
import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import moreaugrad as mg
from text_models import SENTENCES, Bytes, as_bytes

NASTY = '<script>alert("1")</script> & \x1b[31mred\x1b[0m {50%} $x_1^2$ \\end # ~ \u202eabc é🙂'
ANSI = re.compile(r"\x1b\[([\d;]*)m")


class Page(html.parser.HTMLParser):
    """The text of a fragment, and the style and title of each span."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.text, self.tags, self.spans = "", [], []
        self.feed(fragment)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "span":
            self.spans.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def explained(text: str, **others) -> mg.text.TextExplanation:
    (found,) = mg.text.explain(Bytes().eval(), as_bytes, text, "simple-gradient", **others)
    return found


def contrast(one, other) -> float:
    """Source: WCAG 2.1, relative luminance and contrast ratio."""
    light = []
    for colour in (one, other):
        parts = [part / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def whole(text):
    return {"input_ids": [5, 6], "attention_mask": [1, 1], "special_tokens_mask": [0, 1],
            "offset_mapping": [(0, len(text)), (0, 0)], "tokens": [text, "<b>"]}  # fmt: skip


@pytest.mark.parametrize("tokenizer", [as_bytes, whole])
@pytest.mark.parametrize("groups", ["tokens", "words"])
def test_nothing_of_the_text_is_obeyed(groups, tokenizer):
    (found,) = mg.text.explain(
        Bytes().eval(), tokenizer, NASTY, "simple-gradient", groups=groups, labels=["<i>"] * 2
    )
    page = Page(found._repr_html_())
    assert set(page.tags) == {"div", "span"}
    shown = NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\x202e")
    assert shown in page.text
    assert shown in ANSI.sub("", found.to_terminal())
    latex = found.to_latex()
    plain = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater)\{\}", "",
                   latex)  # fmt: skip
    plain = re.sub(r"\\[{}$&#%_]", "", plain)
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"[$&#%_~^<>]", plain)
    assert set(re.findall(r"\\([a-z]+)", plain)) <= {
        "setlength", "fboxsep", "colorbox", "strut", "underline", "par", "textcolor",
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1).filter(str.strip))
def test_the_text_is_complete(text):
    found = explained(text)
    assert text in Page(found._repr_html_()).text
    assert text in ANSI.sub("", found.to_terminal())
    assert "".join(piece.text for piece in found._pieces()[0]) == text


@pytest.mark.parametrize(
    ("page", "letters"), [((255,) * 3, (33,) * 3), ((0, 0, 0), (221,) * 3), ((30,) * 3, (221,) * 3)]
)
def test_text_can_be_read_on_its_colour(page, letters):
    styles = [span["style"] for span in Page(explained(SENTENCES[0])._repr_html_()).spans]
    colours = [re.search(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", style) for style in styles]
    seen = [tuple(float(part) for part in found.groups()) for found in colours if found]
    assert max(alpha for *_, alpha in seen) == pytest.approx(0.6)
    assert len({colour[:3] for colour in seen}) == 2
    for *colour, alpha in seen:
        mixed = [alpha * own + (1 - alpha) * under for own, under in zip(colour, page, strict=True)]
        assert contrast(mixed, letters) >= 4.5


def test_text_can_be_read_in_a_terminal():
    codes = ANSI.findall(explained(SENTENCES[0]).to_terminal())
    colours = [re.search(r"48;2;(\d+);(\d+);(\d+)", code) for code in codes]
    seen = [tuple(map(int, found.groups())) for found in colours if found]
    assert len(seen) > 20
    assert min(contrast(colour, (0, 0, 0)) for colour in seen) >= 4.5


def test_the_sign_can_be_seen_without_colours():
    found = explained(SENTENCES[0])
    for span in Page(found._repr_html_()).spans:
        assert ("underline" in span["style"]) == span["title"].startswith("-")
    negative = int((found.values < 0).sum())
    assert found.to_latex().count(r"\underline") == negative
    assert sum(code.endswith(";4") for code in ANSI.findall(found.to_terminal())) == negative


def test_colours_are_relative_to_the_largest_value():
    found = replace(explained("abc"), values=torch.tensor([2.0, -1.0, 0.0]))
    first, second, third = Page(found._repr_html_()).spans
    assert "0.600)" in first["style"]
    assert "0.300)" in second["style"]
    assert "background" not in third["style"]
    assert [span["title"] for span in (first, second)] == ["+2", "-1"]
    assert found.__repr__().endswith("'a' +2, 'b' -1)")


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_maps_without_values_are_drawn_plain(value):
    found = replace(explained("abc"), values=torch.full((3,), value))
    assert "background" not in found._repr_html_()
    assert found.to_terminal().endswith("abc")
    assert "all zero" in repr(found)


def test_tokens_of_one_letter_are_one_piece(load):
    model, tokenizer = load("GPT2ForSequenceClassification")
    (found,) = mg.text.explain(model, tokenizer, "good 🙂!", "simple-gradient")
    emoji = [at for at, span in enumerate(found.spans) if span == (5, 6)]
    assert len(emoji) > 1
    (piece,) = (piece for piece in found._pieces()[0] if "🙂" in piece.text)
    assert piece.value == pytest.approx(float(found.values[emoji].sum()))


def test_special_tokens_are_marked(load):
    model, tokenizer = load("BertForSequenceClassification")
    (found,) = mg.text.explain(model, tokenizer, [("good film", "bad")], "simple-gradient")
    page = Page(found._repr_html_())
    dashed = [span for span in page.spans if "dashed" in span["style"]]
    assert len(dashed) == 3
    assert "held constant" in page.text
    assert found.to_latex().count(r"\textcolor{gray}") == 3
    assert "".join(piece.text for piece in found._pieces()[1]) == "bad[SEP]"


def test_words_are_drawn_whole(load):
    model, tokenizer = load("BertForSequenceClassification")
    (found,) = mg.text.explain(
        model, tokenizer, "wonderful actors", "simple-gradient", groups="words"
    )
    pieces = [piece for piece in found._pieces()[0] if piece.value and not piece.special]
    assert [piece.text for piece in pieces] == ["wonderful", "actors"]
    assert [piece.value for piece in pieces] == pytest.approx(found.word_values.tolist())


def test_tables(load):
    pytest.importorskip("pandas")
    model, tokenizer = load("BertForSequenceClassification")
    found = mg.text.explain(model, tokenizer, ["wonderful film", "good"], "simple-gradient")
    table = found.to_pandas()
    assert table.loc[0, "token"].tolist() == ["[CLS]", "wonder", "##ful", "film", "[SEP]"]
    assert table.loc[0, "word"].tolist()[1:4] == ["wonderful", "wonderful", "film"]
    assert table.loc[0, "value"].tolist() == found[0].values.tolist()
    rows = table.loc[0].iloc[1:4]
    for row, text in zip(rows.itertuples(), ["wonder", "ful", "film"], strict=True):
        assert found[0].sentences[0][row.start : row.end] == text
    assert table.loc[1, "special"].tolist() == [True, False, True]


def test_several_texts():
    found = mg.text.explain(Bytes().eval(), as_bytes, SENTENCES, "simple-gradient")
    assert len(found) == len(SENTENCES)
    assert [one.sentences[0] for one in found[1:3]] == SENTENCES[1:3]
    assert isinstance(found[:2], mg.text.TextExplanations)
    assert found.ok
    assert found.problems() == []
    for text in SENTENCES:
        assert text in Page(found._repr_html_()).text
        assert text in ANSI.sub("", found.to_terminal())
    assert found.to_latex().count("{\\setlength") == len(SENTENCES)
    assert found._repr_html_().count("raises the score") == 1


def test_problems_name_the_text():
    found = mg.text.explain(Bytes().eval(), as_bytes, SENTENCES[:2], max_evaluations=34,
                            tolerance=1e-3)  # fmt: skip
    assert not found.ok
    assert [line.split(":")[0] for line in found.problems()] == ["text 0", "text 1"]
