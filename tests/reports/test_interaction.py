"""What a page does when it is used: sorts tables, enlarges images, shares a colour scale."""

import numpy as np
import pytest

from moreaugrad.pictures import draw
from moreaugrad.pictures.levels import colour_stops
from moreaugrad.pictures.slices import slice_views, volume_picture
from moreaugrad.reports import Page, Section, Tile, write_page
from moreaugrad.reports.content import Entry, Table

pytestmark = pytest.mark.chromium

CELLS = (
    ("b", "1 564", "3\u202fmin 30\u202fs"),
    ("a", "66", "< 0.1\u202f%"),
    ("d", "", "950\u202fms"),
    ("c", "2 of 3", "1.5e-3"),
)
SIGNED = (
    ("x", "−0.3", "1.2\u202f×\u202f10⁻⁵"),
    ("y", "0.1", "−2\u202f×\u202f10³"),
    ("z", "−1 564", "0.5"),
)
HEADS = "[...document.querySelectorAll('.summary tbody th')].map(head => head.textContent)"
BOX = "document.querySelector('dialog')"


def click(chromium, place):
    chromium.ask(f"document.querySelectorAll('.summary thead button')[{place}].click()")
    return "".join(chromium.ask(HEADS))


@pytest.fixture
def table_page(tmp_path):
    return written(tmp_path, CELLS)


def written(tmp_path, cells):
    rows = [(name, [Entry(text=one), Entry(text=two)]) for name, one, two in cells]
    table = Table(title="Table", columns=["count", "time"], rows=rows, head="method")
    path = tmp_path / "table.html"
    write_page(path, Page(title="Table", sections=[], tables=[table]))
    return path


def test_a_table_is_sorted_by_its_numbers(chromium, table_page):
    chromium.open(table_page)
    assert click(chromium, 1) == "bacd"  # 1564, 66, 2, none
    assert click(chromium, 1) == "cabd"
    assert click(chromium, 2) == "bdac"  # 210 s, 0.95 s, 0.1, 0.0015
    assert click(chromium, 2) == "cadb"
    sorted_by = "[...document.querySelectorAll('thead th')].map(head => head.ariaSort)"
    assert chromium.ask(sorted_by) == [None, None, "ascending"]
    assert click(chromium, 0) == "badc"  # as it was made


def test_signs_and_powers_of_ten_are_sorted(chromium, tmp_path):
    chromium.open(written(tmp_path, SIGNED))
    assert click(chromium, 1) == "yxz"
    assert click(chromium, 2) == "zxy"


def test_an_image_is_enlarged_and_left_by_keyboard(chromium, page_file):
    chromium.open(page_file)
    chromium.ask("document.querySelector('.input .views img').focus()")
    chromium.press("Enter")
    assert chromium.ask(f"{BOX}.open")
    first = chromium.ask(f"{BOX}.querySelector('p').textContent")
    assert first.startswith("heat view of sparse-moreaugrad")
    chromium.press("ArrowRight")
    second = chromium.ask(f"{BOX}.querySelector('p').textContent")
    assert second != first
    chromium.press("ArrowLeft")
    assert chromium.ask(f"{BOX}.querySelector('p').textContent") == first
    chromium.press("Escape")
    assert not chromium.ask(f"{BOX}.open")


def test_heat_maps_share_a_scale_by_choice(chromium, tmp_path):
    """A map of half the size gets half the level of each colour, and its own colours again."""
    ramp = np.linspace(0, 1, 64 * 64).reshape(1, 64, 64)
    tiles = [Tile(title=str(size), views=draw(size * ramp), status="direct") for size in (1, 0.5)]
    path = tmp_path / "scales.html"
    write_page(path, Page(title="Scales", sections=[Section(title="x", tiles=tiles)]))
    chromium.open(path)
    read = """(async () => {
      const found = [];
      for (const image of document.querySelectorAll("img[data-high]")) {
        await image.decode();
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 64;
        const paint = canvas.getContext("2d");
        paint.drawImage(image, 0, 0);
        found.push([...paint.getImageData(0, 63, 64, 1).data]);
      }
      return found;
    })()"""
    ends = "[...document.querySelectorAll('.views > :first-child .high')].map(e => e.textContent)"
    before = chromium.ask(read)
    own = chromium.ask(ends)
    chromium.ask("document.querySelector('#common-scale').click()")
    after = chromium.ask(read)
    assert after[0] == before[0]
    colours = [tuple(bytes.fromhex(stop[1:])) for stop in colour_stops("magma", 256)]

    def levels(row):
        return np.array([colours.index(tuple(row[i : i + 3])) for i in range(0, len(row), 4)])

    assert np.abs(levels(after[1]) - levels(before[1]) / 2).max() <= 1
    assert levels(before[1]).max() == 255
    assert len(set(chromium.ask(ends))) == 1
    chromium.ask("document.querySelector('#common-scale').click()")
    assert chromium.ask(read) == before
    assert chromium.ask(ends) == own


def test_a_slider_moves_through_the_slices_of_all_pictures(chromium, tmp_path):
    volume = np.zeros((1, 5, 6, 6))
    volume[0, 3] = 1.0
    tile = Tile(title="map", views=slice_views(volume, volume), status="direct")
    section = Section(title="scan", photo=volume_picture(volume), tiles=[tile], peak=3)
    write_page(tmp_path / "page.html", Page(title="Page", sections=[section]))
    chromium.open(tmp_path / "page.html")
    place = (
        "[...document.querySelectorAll('img.slices')].map(i => getComputedStyle(i).objectPosition)"
    )
    assert set(chromium.ask(place)) == {"0px 75%"}
    sizes = "[...document.querySelectorAll('aside img')].map(i => [i.width, i.height])"
    ((width, height),) = chromium.ask(sizes)
    assert abs(width - height) <= 1  # one slice
    moved = "(() => {const s = document.querySelector('.slice input'); s.value = 1; "
    chromium.ask(moved + "s.dispatchEvent(new Event('input')); })()")
    assert set(chromium.ask(place)) == {"0px 25%"}
    assert chromium.ask("document.querySelector('.slice output').textContent") == "1"
    chromium.ask("document.querySelector('aside img').click()")
    enlarged = f"getComputedStyle({BOX}.querySelector('img')).objectPosition"
    assert chromium.ask(enlarged) == "0px 25%"
