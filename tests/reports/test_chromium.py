"""The page as a browser shows it: wide, narrow, dark, printed, by keyboard, without scripts."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad import SimpleGradient

from .conftest import NASTY

pytestmark = pytest.mark.chromium

VISIBLE_VIEWS = """[...document.querySelectorAll('.tiles .viewer')].map(viewer =>
  [...viewer.querySelectorAll('.views > div')]
    .filter(view => view.checkVisibility({checkVisibilityCSS: true}))
    .map(view => view.querySelector('img').alt.split(' ')[0]))"""
VISIBLE_FRAMES = """[...document.querySelectorAll('.frame')]
  .filter(frame => frame.checkVisibility({checkVisibilityCSS: true}))
  .map(frame => frame.dataset.setting)"""


def shot(chromium):
    return np.asarray(Image.open(io.BytesIO(chromium.screenshot())).convert("RGB")).astype(float)


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_sticks_out(chromium, page_file, width):
    chromium.open(page_file, width=width)
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    outside = chromium.ask(
        f"""[...document.body.querySelectorAll('*')]
        .filter(e => !e.closest('.scroll, .settings, .skip, .contents') &&
                     e.checkVisibility({{checkVisibilityCSS: true}}) &&
                     e.getBoundingClientRect().right > {width} + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_every_image_is_decoded(chromium, page_file):
    chromium.open(page_file)
    widths = chromium.ask("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 1 + 1 + 3 * 4 + 2 + 3 * 4
    assert set(widths) == {48}


def test_nothing_is_fetched_and_nothing_complains(chromium, page_file):
    chromium.open(page_file)
    chromium.ask("1")
    wanted = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in wanted if not url.startswith("data:")] == [page_file.as_uri()]
    complaints = [
        event["params"]
        for event in chromium.events
        if event["method"]
        in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        or event["method"] == "Page.javascriptDialogOpening"
    ]
    assert complaints == []


def test_a_foreign_script_does_not_run(chromium, page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8")
    altered = tmp_path / "altered.html"
    inserted = "<script>document.title='taken'</script><img src=x onerror=\"document.title='t'\">"
    altered.write_text(text.replace("<main", f"{inserted}<main"), encoding="utf-8")
    chromium.open(altered)
    assert chromium.ask("document.title").startswith("Explanations <script>")
    assert chromium.ask("document.documentElement.className") == "js"


def test_one_view_is_shown_and_the_bar_changes_all(chromium, page_file):
    chromium.open(page_file)
    assert set(map(tuple, chromium.ask(VISIBLE_VIEWS))) == {("heat",)}
    chromium.ask("document.querySelector('.viewbar input[value=signed]').click()")
    assert set(map(tuple, chromium.ask(VISIBLE_VIEWS))) == {("signed",)}
    # A map without a photo has no overlay and keeps what it shows.
    chromium.ask("document.querySelector('.viewbar input[value=overlay]').click()")
    assert [names[0] for names in chromium.ask(VISIBLE_VIEWS)] == [
        "overlay",
        "overlay",
        "signed",
        "overlay",
    ]


def test_one_tile_is_toggled_by_keyboard(chromium, page_file):
    chromium.open(page_file)
    chromium.ask("document.querySelector('.tiles .pick').focus()")
    chromium.press("ArrowRight")
    views = chromium.ask(VISIBLE_VIEWS)
    assert [names[0] for names in views] == ["signed", "heat", "heat", "heat"]


def test_the_slider_moves_by_keyboard_and_reports_its_value(chromium, page_file):
    chromium.open(page_file)
    assert chromium.ask(VISIBLE_FRAMES) == ["rho = 0.1"]
    chromium.ask("document.querySelector('.slider input').focus()")
    for key, expected in (
        ("ArrowRight", "rho = 1"),
        ("ArrowRight", "rho = 1"),
        ("Home", "rho → 0 (limit: simple gradient)"),
        ("ArrowRight", "rho = 0.1"),
    ):
        chromium.press(key)
        assert chromium.ask(VISIBLE_FRAMES) == [expected]
        told = "document.querySelector('.slider input').getAttribute('aria-valuetext')"
        assert chromium.ask(told) == expected


def test_a_view_chosen_in_a_sweep_is_kept(chromium, page_file):
    chromium.open(page_file)
    chromium.ask("document.querySelector('.frame.current .pick[value=masked]').click()")
    chromium.ask("document.querySelector('.slider input').focus()")
    chromium.press("End")
    shown = chromium.ask(
        """[...document.querySelectorAll('.frame.current .views > div')]
        .filter(view => view.checkVisibility()).map(view => view.querySelector('img').alt)"""
    )
    assert [alt.split(" ")[0] for alt in shown] == ["masked"]


def test_without_scripts_everything_is_there(chromium, page_file):
    chromium.open(page_file, script=False)
    assert len(chromium.ask(VISIBLE_FRAMES)) == 3
    assert set(map(tuple, chromium.ask(VISIBLE_VIEWS))) == {("heat",)}
    bars = "[...document.querySelectorAll('.viewbar, .slider')].map(e => e.checkVisibility())"
    assert chromium.ask(bars) == [False, False]
    # The toggle needs none.
    chromium.ask("document.querySelector('.tiles .pick[value=masked]').checked = true")
    assert [names[0] for names in chromium.ask(VISIBLE_VIEWS)][:2] == ["masked", "heat"]


def test_print_shows_every_value_of_a_sweep(chromium, page_file):
    chromium.open(page_file, medium="print")
    assert len(chromium.ask(VISIBLE_FRAMES)) == 3
    pdf = base64.b64decode(chromium.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 1280])
def test_light_and_dark_follow_the_reader(chromium, page_file, width):
    chromium.open(page_file, width=width)
    light = shot(chromium)
    chromium.open(page_file, width=width, dark=True)
    dark = shot(chromium)
    assert light.shape[1] == dark.shape[1] == width
    # The margin is the page; the pictures are the same.
    assert light[:, 2].min() > 200
    assert dark[:, 2].max() < 70


CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = c => { const v = c.slice(0, 3).map(x => { x /= 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({checkVisibilityCSS: true})) continue;
    if (e.closest('script, style')) continue;
    const pair = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) found.push(walker.currentNode.data.trim().slice(0, 40));
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_of_wcag_aa(chromium, page_file, dark):
    chromium.open(page_file, dark=dark)
    assert chromium.ask(CONTRAST) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_an_explanation_fits_into_a_notebook(chromium, tmp_path, width):
    """All text has the colour around it, also on a dark page; images load; nothing is too wide."""
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3)).eval()
    batch = SimpleGradient(net).explain(x).with_labels([NASTY, "a" * 500, "b c " * 90])
    flat = SimpleGradient(torch.nn.Linear(30, 3)).explain(x[0, 0, :1, :30])
    body = "".join(each._repr_html_() for each in (batch, batch[0], flat))
    path = tmp_path / "notebook.html"
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    path.write_text(f"{head}<body style='background:#111;color:#eee'>{body}", "utf-8")
    chromium.open(path, width=width, dark=True)
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    assert chromium.ask("[...document.images].filter(i => i.naturalWidth).length") == 5
    used = "[...document.querySelectorAll('body *')].map(e => getComputedStyle(e).color)"
    assert chromium.ask(f"[...new Set({used})]") == ["rgb(238, 238, 238)"]
    fetched = [e for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    links = [event["params"]["request"]["url"] for event in fetched]
    assert [link for link in links if not link.startswith(("data:", "file:"))] == []
