"""The explorer in a browser: what a user does with pointer and keys, and what the page answers."""

import io
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
from browser import BROWSERS, Browser
from explored import (
    CELL,
    PANE,
    choose,
    complaints,
    serving,
    settled,
    slide,
    status,
    text,
    until,
)
from moreaugrad.explorer.core import Explorer
from moreaugrad.penalties import L1, GroupL2
from moreaugrad.solvers.sparsity import eta_for

pytestmark = pytest.mark.chromium


def point(page: Browser, x: float, y: float, kind: str = "mouseMoved", buttons: int = 0) -> None:
    """At fractions of the figure's sides."""
    box = page.ask(f"{PANE}.get('figure').getBoundingClientRect().toJSON()")
    button = "left" if buttons or kind == "mouseReleased" else "none"
    page.call(
        "Input.dispatchMouseEvent", type=kind, x=box["x"] + x * box["width"],
        y=box["y"] + y * box["height"], button=button, buttons=buttons, clickCount=1,
    )  # fmt: skip


def upload(page: Browser, file: Path) -> None:
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="[data-is=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


@pytest.fixture
def page(chromium: Browser, address: str) -> Any:
    chromium.open(address)
    settled(chromium, "window.explorer?.panes?.[0]")
    yield chromium
    assert complaints(chromium) == []
    chromium.open("about:blank")


def maps(page: Browser) -> torch.Tensor:
    return torch.tensor(page.ask(f"Array.from({PANE}.map)")).reshape(1, 3, 64, 64)


def test_the_map_is_that_of_the_method(page: Browser, explorer: Explorer) -> None:
    x = explorer.network.model.preprocess(mg.load_image(CELL))[None]
    expected = mg.SparseMoreauGrad(explorer.network.model.module).explain(x)
    assert (maps(page) - expected.maps).norm() <= 1e-5 * expected.maps.norm()
    assert status(page).startswith("converged to the stated accuracy")
    assert f"{int(expected.evaluations)} evaluations" in status(page)
    assert text(page, "model") == "builtin"
    drawn = page.ask(
        f"""[...{PANE}.get('map').getContext('2d').getImageData(0, 0, 64, 64).data]
        .filter((_, i) => i % 4 === 3 && _ > 0).length"""
    )
    assert drawn == int((expected.maps.abs().sum(1) > 0).sum())


@pytest.mark.parametrize("method", ["sparse-moreaugrad", "group-sparse-moreaugrad", "smoothgrad"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97])
def test_the_slider_thresholds_the_gradient(page: Browser, method: str, sparsity: float) -> None:
    page.ask(f"{PANE}.get('method').value = '{method}'; {PANE}.get('method').onchange()")
    settled(page)
    slide(page, "sparsity", float(-100 / 3 * np.log10(1 - sparsity)))
    gradient = torch.tensor(page.ask(f"Array.from({PANE}.gradient)")).reshape(1, 3, 64, 64)
    chosen = float(page.ask("explorer.state.sparsity"))
    penalty = GroupL2(1.0, size=4) if "group" in method else L1(1.0)
    eta = float(eta_for(penalty.magnitudes(gradient), chosen))
    expected = penalty.prox(gradient, eta)
    if method == "smoothgrad":
        expected = torch.where(gradient.abs() > eta, gradient, 0.0)
    assert (maps(page) - expected).norm() <= 1e-4 * gradient.norm()
    zeros = 1 - (penalty.magnitudes(maps(page)) != 0).double().mean()
    assert float(zeros) == pytest.approx(chosen, abs=0.005)


def test_the_slider_answers_at_once_and_the_map_is_solved_behind(page: Browser) -> None:
    before = page.ask(f"{PANE}.frame.eta")
    assert slide(page, "sparsity", 60) < 50
    assert page.ask(f"{PANE}.frame.eta") == before
    settled(page, f"{PANE}.state.sparsity > .98 && {PANE}.frame.eta > {before}")
    assert "98.4" in page.ask("explorer.get('sparsity').nextElementSibling.textContent")


@pytest.mark.parametrize(("name", "value"), [("rho", -1), ("sigma", 0.3), ("seed", 5)])
def test_a_setting_is_solved_again(page: Browser, name: str, value: float) -> None:
    before = maps(page)
    slide(page, name, value)
    settled(page, f"{PANE}.state.{name} === explorer.state.{name}")
    assert not torch.equal(maps(page), before)
    assert f"--{name} {page.ask(f'explorer.state.{name}')}" in text(page, "text")


def test_a_fixed_weight_is_the_one_of_the_slider(page: Browser) -> None:
    page.ask("explorer.get('fix').click()")
    settled(page, f"{PANE}.state.eta")
    assert page.ask(f"{PANE}.frame.eta") == pytest.approx(page.ask("explorer.state.eta"))
    assert "--eta" in text(page, "text")
    assert "--sparsity" not in text(page, "text")


CLASS = "explorer.get('classes').querySelectorAll('li')[{}].children[{}]"


def test_a_click_explains_that_class(page: Browser) -> None:
    page.ask(CLASS.format(2, 0) + ".click()")
    settled(page)
    index = page.ask("explorer.shown[2]")
    assert page.ask(f"{PANE}.frame.target") == index
    assert page.ask(CLASS.format(2, 0) + ".getAttribute('aria-pressed')") == "true"
    assert f"--target {index}" in text(page, "text")


@pytest.mark.parametrize("shift", [False, True])
def test_one_class_against_another(page: Browser, shift: bool) -> None:
    if shift:
        click = ".dispatchEvent(new MouseEvent('click', {shiftKey: true}))"
        page.ask(CLASS.format(1, 0) + click)
    else:
        page.ask(CLASS.format(1, 1) + ".click()")
    settled(page, f"{PANE}.state.against != null")
    assert f"--score against:{page.ask('explorer.shown[1]')}" in text(page, "text")
    page.ask(CLASS.format(1, 1) + ".click()")
    until(page, f"{PANE}.state.against == null")


def test_any_class_can_be_named(page: Browser) -> None:
    named = page.ask("explorer.info.labels[9]")
    choose(page, "other", named)
    settled(page)
    assert page.ask(f"{PANE}.frame.target") == 9
    choose(page, "other", "x")
    until(page, "!explorer.get('error').hidden")
    assert "no class x" in text(page, "error")


@pytest.mark.parametrize("tool", ["blur", "mean"])
def test_a_brush_changes_the_probabilities(page: Browser, explorer: Explorer, tool: str) -> None:
    page.ask(f"explorer.root.querySelector('[data-tool={tool}]').click()")
    point(page, 0.4, 0.4)
    point(page, 0.4, 0.4, "mousePressed", 1)
    point(page, 0.6, 0.5, "mouseMoved", 1)
    point(page, 0.6, 0.5, "mouseReleased")
    until(page, "explorer.edited")
    mask = torch.tensor(page.ask("Array.from(explorer.mask)")).reshape(64, 64) > 0
    assert 20 < int(mask.sum()) < 200
    if tool == "mean":
        x = explorer.network.model.preprocess(mg.load_image(CELL))[None]
        expected = explorer.network.probabilities(torch.where(mask, 0.0, x))
        assert page.ask("explorer.edited") == pytest.approx(expected[0].tolist())
    assert text(page, "effect").startswith("Now ")
    assert "→" in text(page, "classes")
    page.ask("explorer.get('clear').click()")
    assert "→" not in text(page, "classes")


def test_pixels_are_erased_by_their_rank(page: Browser) -> None:
    page.ask("explorer.get('measure').click()")
    until(page, "!explorer.get('scrub').hidden")
    slide(page, "step", 12)
    assert "50 % of the pixels erased" in text(page, "effect")
    share = page.ask("[...explorer.replaced.data].filter((v, i) => i % 4 === 3 && v).length / 4096")
    assert share == pytest.approx(0.5, abs=0.02)
    choose(page, "curve", "insertion")
    assert "inserted" in text(page, "effect")


def test_stop_ends_it_and_keeps_the_map(page: Browser, explorer: Explorer) -> None:
    choose(page, "quality", "fine")
    until(page, f"{PANE}.abort && {PANE}.frame && !{PANE}.frame.done")
    page.ask(f"{PANE}.get('stop').click()")
    assert status(page).startswith("stopped")
    time.sleep(0.4)
    assert not explorer._turns._busy
    assert status(page).startswith("stopped")
    assert page.ask(f"{PANE}.get('stop').disabled")
    assert maps(page).any()


def test_two_methods_have_one_crosshair(page: Browser) -> None:
    page.ask(f"{PANE}.get('compare').click()")
    until(page, "explorer.panes[1]?.frame?.done")
    assert page.ask("explorer.panes[1].method") == "smoothgrad"
    point(page, 0.3, 0.7)
    x, y = page.ask("explorer.cross")
    assert (x, y) == pytest.approx((19, 44), abs=1)
    for number in (0, 1):
        read = page.ask(f"explorer.panes[{number}].get('readout').textContent")
        assert read.startswith(f"({x}, {y})")
    value = float(maps(page)[0, :, y, x].sum())
    read = page.ask(f"{PANE}.get('readout').textContent")
    assert ("zero in this map" in read) if value == 0 else (f"{value:.3g}"[:5] in read)
    page.ask("explorer.panes[1].get('compare').click()")
    assert page.ask("explorer.panes.length") == 1


def test_an_attack_shows_the_map_before_and_after(page: Browser, explorer: Explorer) -> None:
    second = "explorer.panes[1]"
    choose(page, "budget", "8")
    until(page, f"{second}?.attacked && {second}.frame?.done")
    before, after = (
        torch.tensor(page.ask(f"Array.from({pane}.map)")).reshape(3, -1).abs().sum(0)
        for pane in (PANE, second)
    )
    attacked = explorer._image(page.ask(f"{second}.attacked.image")).x
    target = page.ask("explorer.state.target ?? explorer.classes[0]")
    expected = mg.SparseMoreauGrad(explorer.network.model.module).explain(attacked, target)
    assert torch.allclose(after, expected.maps[0].abs().sum(0).flatten(), atol=1e-5)
    most = math.ceil(before.numel() / 10)
    same = len(set(before.topk(most).indices.tolist()) & set(after.topk(most).indices.tolist()))
    assert same < 0.9 * most
    found = re.search(r"tenth of the pixels ([\d.]+) %", text(page, "attacked"))
    assert found is not None
    assert float(found[1]) == pytest.approx(100 * same / most, abs=1.0)
    page.ask("explorer.explain(1, null)")
    settled(page)
    assert page.ask(f"{second}.attacked") is None
    assert page.ask("explorer.get('budget').value") == "0"


def test_an_attack_that_fails_is_said(page: Browser) -> None:
    page.ask("explorer.state.target = 99")
    choose(page, "budget", "8")
    until(page, "!explorer.get('error').hidden")
    assert "target" in text(page, "error")
    until(page, "explorer.get('attacked').textContent.includes('a little')")


def test_the_readout_has_rank_sign_and_certainty(page: Browser) -> None:
    flat = maps(page).abs().sum(1).flatten()
    at = int(flat.argmax())
    page.ask(f"explorer.look([{at % 64}, {at // 64}])")
    read = page.ask(f"{PANE}.get('readout').textContent")
    assert "rank 1 of 4096" in read
    assert ("raises" if maps(page)[0].sum(0).flatten()[at] > 0 else "lowers") in read
    assert "(z = " in read


@pytest.fixture
def saved(page: Browser, tmp_path: Path) -> Callable[[str], bytes]:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))

    def save(kind: str) -> bytes:
        page.ask(f"explorer.root.querySelector('[data-save={kind}]').click()")
        end = time.monotonic() + 20
        while not (found := [f for f in tmp_path.iterdir() if f.suffix == f".{kind}"]):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.1)
        assert found[0].name == f"cell.{kind}"
        return found[0].read_bytes()

    return save


def test_exports(page: Browser, saved: Callable[[str], bytes]) -> None:
    assert Image.open(io.BytesIO(saved("png"))).size == (192, 192)
    svg = saved("svg").decode()
    assert "sparse-moreaugrad" in svg
    assert "data:image/png" in svg
    found = np.load(io.BytesIO(saved("npz")))
    assert np.array_equal(found["map"], maps(page)[0].numpy())
    assert json.loads(str(found["state"]))["method"] == "sparse-moreaugrad"


def test_what_is_copied_is_what_is_shown(page: Browser) -> None:
    for kind, start in (
        ("toml", "seed ="),
        ("python", "import moreaugrad"),
        ("command", "moreaugrad explain"),
    ):
        page.ask(f"explorer.get('recipe').value = '{kind}'; explorer.recipe()")
        assert text(page, "text").startswith(start)


NASTY = "<img src=x onerror=document.title='taken'> \"'&.png"


@pytest.mark.parametrize("body", [b"<script>alert(1)</script>", CELL.read_bytes()[:100]])
def test_a_hostile_upload_is_refused_in_words(page: Browser, tmp_path: Path, body: bytes) -> None:
    file = tmp_path / NASTY.replace("/", "")
    file.write_bytes(body)
    upload(page, file)
    until(page, "!explorer.get('error').hidden")
    assert "expected an image" in text(page, "error")
    assert NASTY in text(page, "error")
    assert page.ask("document.title") == "moreaugrad explorer"
    assert page.ask("document.querySelectorAll('img').length") == 0


def test_a_hostile_name_is_text(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / NASTY
    shutil.copy(CELL, file)
    upload(page, file)
    settled(page, "explorer.name !== 'cell.png'")
    assert page.ask("explorer.name") == NASTY
    assert NASTY in page.ask("explorer.get('images').selectedOptions[0].textContent")
    assert page.ask("document.title") == "moreaugrad explorer"
    assert page.ask("document.querySelectorAll('img').length") == 0


def test_a_pasted_and_a_dropped_image_are_opened(page: Browser) -> None:
    for kind, make in (("paste", "ClipboardEvent"), ("drop", "DragEvent")):
        page.ask(
            f"""(async () => {{
            const made = document.createElement('canvas'); made.width = made.height = 80;
            const blob = await new Promise(found => made.toBlob(found)), data = new DataTransfer();
            data.items.add(new File([blob], '{kind}.png', {{type: 'image/png'}}));
            const given = {{bubbles: true, clipboardData: data, dataTransfer: data}};
            explorer.root.dispatchEvent(new {make}('{kind}', given));
            }})().then(() => null)"""
        )
        until(page, f"explorer.name === '{kind}.png'")


@pytest.mark.parametrize("width", [360, 400, 800, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out(chromium: Browser, address: str, width: int, dark: bool) -> None:
    chromium.open(address, width=width, dark=dark)
    until(chromium, f"window.explorer?.panes?.[0]?.frame && {PANE}.recipes")
    chromium.ask(f"{PANE}.get('compare').click()")
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    outside = chromium.ask(
        f"""[...document.body.querySelectorAll('*')].filter(e => !e.closest('.unseen') &&
        e.checkVisibility() && e.getBoundingClientRect().right > {width} + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    chromium.open("about:blank")


def tab_to(page: Browser, which: str) -> None:
    for _ in range(60):
        if page.ask(f"document.activeElement.matches({json.dumps(which)})"):
            return
        page.press("Tab")
    raise AssertionError(f"{which} is not reached by the tabulator")


def test_everything_works_by_keyboard(page: Browser) -> None:
    tab_to(page, "figure")
    for key in ("ArrowRight", "ArrowDown"):
        page.press(key)
    assert page.ask("explorer.cross") == [33, 33]
    tab_to(page, "li:nth-child(2) .class")
    page.press("Enter")
    settled(page, f"{PANE}.state.target === explorer.shown[1]")
    assert page.ask("document.activeElement.className") == "class"  # the focus stays
    tab_to(page, "[data-is=sparsity]")
    before = page.ask("explorer.state.sparsity")
    page.press("ArrowRight")
    assert page.ask("explorer.state.sparsity") > before
    tab_to(page, "[data-tool=mean]")
    page.press("Enter")
    tab_to(page, "[data-is=clear]")
    page.ask(f"{PANE}.get('figure').focus()")
    page.press(" ")
    until(page, "explorer.edited")
    page.press("Escape")
    assert page.ask("explorer.cross") is None


def test_two_clients_see_their_own(
    page: Browser, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)))
    other = Browser(program, tmp_path_factory.mktemp("other"))
    try:
        other.open(address)
        slide(page, "seed", 7)
        settled(other, "window.explorer?.panes?.[0]")
        settled(page, f"{PANE}.state.seed === 7")
        assert not torch.equal(maps(page), maps(other))
        assert other.ask("explorer.state.seed") == 0
        assert complaints(other) == []
    finally:
        other.close()


def test_without_images_the_page_asks_for_one(
    chromium: Browser, network: Any, tmp_path: Path
) -> None:
    with serving(Explorer(network=network)) as address:
        chromium.open(address)
        until(chromium, "window.explorer?.info")
        assert chromium.ask("explorer.get('drop').checkVisibility()")
        assert not chromium.ask("explorer.get('main').checkVisibility()")
        upload(chromium, CELL)
        settled(chromium)
        assert not chromium.ask("explorer.get('drop').checkVisibility()")
        chromium.open("about:blank")


def test_a_server_that_has_gone_is_said(chromium: Browser, explorer: Explorer) -> None:
    with serving(explorer) as address:
        chromium.open(address)
        settled(chromium, "window.explorer?.panes?.[0]")
    slide(chromium, "seed", 3)
    until(chromium, "!explorer.get('error').hidden")
    assert "still running" in text(chromium, "error")
    chromium.open("about:blank")
