"""What a page says, read from its HTML: complete, escaped, self-contained."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from moreaugrad.pictures import Picture, draw, heatmap
from moreaugrad.pictures.html import data_uri
from moreaugrad.reports import Page, Section, Sweep, Tile, render_page, write_page

from .conftest import NASTY, make_page, make_tile

VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """Elements as (tag, attributes) and the text of each, with a check that tags are closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("path", "circle"):
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return re.sub(r"[ \n]+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def text(page):
    return render_page(page)


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_labels_and_names_are_text_and_nothing_else(text, read):
    assert len(read.all("script")) == 1
    assert "<script>alert" not in text
    assert text.count("</style>") == 1
    assert "{{" not in text.replace("{{ 7 * 7 }}", "")
    # lead, note of the page, settings, command, title, file name, its note, label, status, ...
    assert read.words.count(NASTY) >= 12
    alts = [attributes["alt"] for attributes in read.all("img")]
    assert sum(NASTY in alt for alt in alts) == 2 + 4


def test_an_unescaped_label_would_be_seen():
    plain, nasty = (
        [name for name, _ in Reader(render_page(make_page(label))).elements]
        for label in ("label", NASTY)
    )
    assert plain == nasty


def test_nothing_refers_to_elsewhere(text, read):
    assert re.findall(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", text)) == []
    for _, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), value
    styles = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in styles
    assert "@import" not in styles


def test_every_image_has_words(read):
    images = read.all("img")
    assert len(images) == 28
    for attributes in images:
        assert len(attributes["alt"]) > 10
        assert int(attributes["width"]) == int(attributes["height"]) == 48


def test_references_inside_the_page_lead_somewhere(read):
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        for name in ("for", "aria-labelledby"):
            assert attributes.get(name, ids[0]) in ids
        link = attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in ids
    names = {}
    for attributes in read.all("input"):
        if attributes.get("type") == "radio":
            names.setdefault(attributes["name"], []).append("checked" in attributes)
    assert len(names) == 1 + 3 + 1 + 3
    assert all(sum(checked) == 1 for checked in names.values())


def test_figures_are_reported(read):
    for words in (
        "zeros 86.",
        "estimated error 8.3\u202f%",
        "residual 0.00123",
        "evaluations 4\u202f096",
        "time 12.3\u202fs",
        "AUROC 0.875",
        "average precision undefined",
        "97.3\u202f%",
        "< 0.1\u202f%",
        "map is zero",
        "lower rho",
        "no map to show",
        "rho → 0 (limit: simple gradient)",
        "rho = 0.1",
        "Ground truth",
    ):
        assert words in read.words, words


def test_what_has_no_meaning_is_left_out():
    tile = Tile(title="simple-gradient", views=draw(np.ones((3, 4, 4))), status="exact")
    body = render_page(Page(title="t", sections=[Section(title="a.jpg", tiles=[tile])]))
    table = body.partition('<table class="figures">')[2].partition("</table>")[0]
    assert "<tr>" not in table
    assert "Mean over" not in body


def test_the_status_is_an_icon_and_words(text):
    statuses = re.findall(r'<p class="status (good|bad)">(.*?)</p>', text, re.DOTALL)
    assert [kind for kind, _ in statuses].count("bad") == 2
    for kind, body in statuses:
        assert ("<circle" in body) == (kind == "good")
        assert re.search(r"<span>.+</span>", body, re.DOTALL)


def test_the_summary_is_the_mean_over_inputs(read, page):
    tiles = [section.tiles[0] for section in page.sections]
    zeros = sum(tile.zeros for tile in tiles) / 2
    row = read.words.partition("sparse-moreaugrad 2 of 2")[2]
    expected = (
        f"0.750 (best) – 1 undefined {100 * zeros:.1f}\u202f% 8.3\u202f% 2\u202f560 12.3\u202fs"
    )
    assert row.strip().startswith(expected)


def test_sweeps_need_a_tile_for_each_value():
    tile = make_tile("moreaugrad", 0)
    with pytest.raises(ValueError, match="1 tiles and 2 values"):
        Sweep(parameter="rho", values=(0, 1), tiles=(tile,))
    with pytest.raises(ValueError, match="at least one"):
        Sweep(parameter="rho", values=(), tiles=())


def decoded(picture: Picture):
    kind, _, data = data_uri(picture).partition(";base64,")
    pixels = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return kind, np.asarray(pixels)


def test_palette_images_and_small_ones_are_exact():
    rng = np.random.default_rng(0)
    for picture in draw(rng.normal(size=(3, 64, 64)), rng.random((64, 64, 3))).values():
        kind, pixels = decoded(picture)
        assert kind == "data:image/png"
        assert np.array_equal(pixels, picture.pixels)
    kind, pixels = decoded(heatmap(rng.normal(size=(3, 200, 200))))
    assert kind == "data:image/png"


def test_large_photographs_are_close():
    values = np.zeros((200, 200))
    values[50, 60] = 1
    smooth = np.stack(np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 200)), axis=-1)
    picture = draw(values, np.concatenate([smooth, smooth[..., :1]], axis=-1))["overlay"]
    kind, pixels = decoded(picture)
    assert kind == "data:image/jpeg"
    difference = np.abs(pixels.astype(float) - picture.pixels)
    assert difference.mean() < 2
    # The only entry of the map is still a spot of its colour.
    assert difference[50, 60].max() < 60


def test_the_same_page_is_the_same_bytes(tmp_path, text):
    write_page(tmp_path / "a.html", make_page())
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == text


def test_a_page_without_anything_is_a_page(tmp_path):
    words = Reader(render_page(Page(title="Nothing", sections=[]))).words
    assert "Nothing" in words
    assert math.isfinite(len(words))
