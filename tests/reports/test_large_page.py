"""Pages of many inputs: their images are files next to the page, which stays small."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.pictures import as_photo, draw
from moreaugrad.reports import Page, Section, Sweep, Tile, page_files, render_page, write_page
from moreaugrad.reports.page import INPUTS_INSIDE, MAPS_INSIDE

HOSTILE = "a b#c?d%20e&f'g\"h<i>é\u2028\u202ej.png"


def tile(seed):
    values = np.random.default_rng(seed).normal(size=(3, 24, 24))
    return Tile(title="method", views=draw(values), status="direct")


TILES = [tile(seed) for seed in range(4)]


def page(inputs, maps=1, sweep=0):
    photo = as_photo(np.random.default_rng(1).random((24, 24, 3)))
    sections = [
        Section(
            title=f"{number} {HOSTILE}", photo=photo,
            tiles=[TILES[(number + place) % len(TILES)] for place in range(maps)],
            sweeps=[Sweep(parameter="rho", values=range(sweep), tiles=TILES[:1] * sweep)]
            if sweep else (),
        )
        for number in range(inputs)
    ]  # fmt: skip
    return Page(title="many", sections=sections)


class Images(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


def images(text):
    return Images(text).found


@pytest.mark.parametrize(
    ("inputs", "maps", "sweep", "single"),
    [
        (0, 0, 0, True),
        (INPUTS_INSIDE, 1, 0, True),
        (INPUTS_INSIDE + 1, 1, 0, False),
        (1, MAPS_INSIDE, 0, True),
        (1, MAPS_INSIDE + 1, 0, False),
        (1, MAPS_INSIDE - 4, 4, True),
        (1, MAPS_INSIDE - 4, 5, False),
    ],
)
def test_a_page_is_one_file_up_to_the_stated_numbers(inputs, maps, sweep, single):
    files = page_files(page(inputs, maps, sweep), "index.html")
    assert (list(files) == ["index.html"]) == single
    text = files["index.html"].decode()
    assert all(found["src"].startswith("data:") == single for found in images(text))
    assert ("img-src data:;" in text) == single
    assert ("index_files next to it" in text) == (not single)
    if single:
        assert text == render_page(page(inputs, maps, sweep))


@pytest.mark.parametrize("name", ["index.html", "a b#c?d%20e'f\"é.html", "\udcff.html", "noend"])
def test_links_are_relative_and_lead_to_files(tmp_path, name):
    many = page(INPUTS_INSIDE + 3)
    write_page(tmp_path / name, many)
    found = images((tmp_path / name).read_text(encoding="utf-8"))
    assert len(found) == len(many.sections) * 3
    linked = set()
    for image in found:
        parts = urlsplit(image["src"])
        assert parts.scheme == parts.netloc == parts.query == parts.fragment == ""
        assert not parts.path.startswith("/")
        assert image["loading"] == "lazy"
        file = tmp_path / unquote(parts.path, errors="surrogateescape")
        with Image.open(file) as opened:
            assert opened.size == (int(image["width"]), int(image["height"]))
        linked.add(file)
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert linked == written - {tmp_path / name}
    # Equal images are one file: a photo, and four maps in two views.
    assert len(linked) == 1 + 4 * 2


def test_files_hold_what_the_page_would(tmp_path):
    many = page(INPUTS_INSIDE + 1)
    files = page_files(many, "index.html")
    inside = [image["src"] for image in images(render_page(many))]
    linked = [files[image["src"]] for image in images(files["index.html"].decode())]
    shown = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in linked]
    assert shown == inside
    assert len(files["index.html"]) < 5000 * len(many.sections) + 50_000


def test_help_states_the_numbers(capsys):
    for command in ("explain", "report"):
        assert run([command, "--help"]) == 0
        words = " ".join(re.findall(r"[\w/]+", capsys.readouterr().out))
        assert re.search(rf"{INPUTS_INSIDE} (inputs|images) (and|or) {MAPS_INSIDE} maps", words)


LOADED = "[...document.images].filter(image => image.complete && image.naturalWidth).length"


@pytest.mark.chromium
@pytest.mark.parametrize("folder", ["plain", "o #?%41'\" é"])
def test_a_browser_shows_what_is_looked_at(chromium, tmp_path, folder):
    many = dataclasses.replace(page(INPUTS_INSIDE + 30), notes=["note"])
    out = tmp_path / folder
    out.mkdir()
    write_page(out / "index.html", many)
    chromium.open(out / "index.html")
    seen = chromium.ask(f"document.images[0].decode().then(() => {LOADED})")
    assert 0 < seen < 3 * len(many.sections)  # those near what is on the screen
    widths = """Promise.all([...document.images].map(image => {
        image.loading = 'eager'; return image.decode().then(() => image.naturalWidth); }))"""
    assert chromium.ask(widths) == [24] * (3 * len(many.sections))
    complaints = [event for event in chromium.events if event["method"] == "Log.entryAdded"]
    assert complaints == []


def test_a_run_of_many_inputs_has_its_images_next_to_the_page(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(INPUTS_INSIDE + 1):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number} #?%'\u00e9.png")
    out = tmp_path / "run"
    command = ["explain", str(photos), "--model", "tiny_models:smooth", "-q", "--method",
               "simple-gradient", "--out", str(out)]  # fmt: skip
    for shown, overwrite in ((99, []), (5, ["--overwrite"]), (99, ["--overwrite"])):
        assert run([*command, "--page-images", str(shown), *overwrite]) == 0
        found = images((out / "index.html").read_text(encoding="utf-8"))
        files = {path.relative_to(out).as_posix() for path in out.glob("index_files/*")}
        if shown == 5:
            assert len(found) == 5 * 5
            assert files == set()
        else:
            assert len(found) == (INPUTS_INSIDE + 1) * 5
            assert files == {image["src"] for image in found}
    assert not list(out.rglob(".*"))
