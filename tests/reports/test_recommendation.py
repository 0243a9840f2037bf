"""Which candidate is recommended, and the page that says so, in HTML and in a browser."""

import json
import math
import re

import numpy as np
import pytest

from moreaugrad.reports.comparisons import may_be_best
from moreaugrad.reports.recommendation import PURPOSES, _chosen, _compared
from moreaugrad.reports.recommended import _words, recommended_files

from .conftest import NASTY
from .test_chromium import CONTRAST
from .test_page import Reader

CRITERIA = ("sparsity", "gini", "cost", "robustness", "faithfulness")


def candidate(label, place, *, zeros=0.0, cost=1.0, kept=0.5, lost=0):
    def summary(mean, **more):
        return {"mean": mean, "low": None if mean is None else mean - 0.05,
                "high": None if mean is None else mean + 0.05, "count": 8 - lost, "failed": lost,
                "undefined": 0, **more}  # fmt: skip

    difference = {"mean": kept and kept - 0.6, "low": -0.2, "high": 0.01, "count": 8}
    tested = {"p": 0.2, "tied": True, "few": False, "best": place == 0, "difference": difference}
    return {
        "label": label, "method": label.partition("@")[0], "settings": {"sigma": 0.2},
        "command": f"moreaugrad explain IMAGE --method '{label}'", "python": f"mg.build({label!r})",
        "front": True, "seconds": 0.3,
        "values": {
            "sparsity": summary(zeros), "gini": summary(0.5 + 0.03 * place), "cost": summary(cost),
            "robustness": summary(kept, **tested), "faithfulness": summary(0.3, **tested),
        },
    }  # fmt: skip


def make_record(nasty=NASTY, count=12):
    labels = [nasty, *(f"smoothgrad@{number}" for number in range(1, count))]
    candidates = [
        candidate(label, place, zeros=0.9 * (place % 2), cost=4.0**place,
                  kept=None if place == 2 else 0.6 - 0.04 * place, lost=8 if place == 2 else 0)
        for place, label in enumerate(labels)
    ]  # fmt: skip
    purposes = [
        {"purpose": one.name, "title": one.title, "criterion": one.criterion, "among": one.among,
         "considered": labels[:3], "chosen": labels[place], "best": labels[0],
         "tied": labels[:2], "difference": candidates[1]["values"]["robustness"]["difference"]}
        for place, one in enumerate(PURPOSES[:2])
    ]  # fmt: skip
    return {
        "images": 8, "epsilon": 0.5, "top": 0.04, "confidence": 0.95, "images_needed": 5,
        "criteria": CRITERIA, "candidates": candidates, "purposes": purposes, "rms": 0.009,
        "steps": 6, "exact": True, "failures": [nasty], "left_out": [nasty], "command": nasty,
        "model": nasty,
    }  # fmt: skip


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    def made(record):
        folder = tmp_path_factory.mktemp("advice")
        (folder / "config.toml").write_text("# Written by moreaugrad recommend.\ntime = 9.0\n")
        (folder / "recommendation.json").write_text(json.dumps(record))
        files, table = recommended_files(folder)
        (folder / "index.html").write_bytes(files["index.html"])
        (folder / "table.md").write_bytes(table)
        return folder / "index.html"

    return made


@pytest.fixture(scope="module")
def page(page_of):
    return page_of(make_record())


# The choice


def values_of(*columns):
    return np.array(columns, dtype=float).T


def choose(purpose, candidates, values):
    class Measurements:
        confidence, images = 0.95, range(len(values))

    found = next(one for one in PURPOSES if one.name == purpose)
    return _chosen(found, candidates, values, Measurements())


def test_of_tied_candidates_the_cheapest_is_recommended():
    good = np.array([0.6, 0.5, 0.7, 0.65, 0.6, 0.55, 0.62, 0.58])
    noise = np.array([1.2, -1, 1, -1, 1, -1, 1, -1]) / 50
    candidates = [candidate("a", 0, cost=9), candidate("b", 1, cost=4), candidate("c", 2, cost=1)]
    found = choose("robust", candidates, values_of(good, good - noise, good - 0.3))
    assert (found["chosen"], found["tied"]) == ("b", ["a", "b"])
    assert found["best"] == "a"
    assert found["difference"]["mean"] == pytest.approx(-noise.mean())
    assert found["considered"] == ["a", "b", "c"]


@pytest.mark.parametrize(("cost", "chosen"), [(34, "a"), (40, "a"), (41, "b")])
def test_of_tied_candidates_that_are_about_as_cheap_the_best_mean_is_recommended(cost, chosen):
    good = np.array([0.6, 0.5, 0.7, 0.65, 0.6, 0.55, 0.62, 0.58])
    noise = np.array([1.2, -1, 1, -1, 1, -1, 1, -1]) / 50
    candidates = [candidate("a", 0, cost=cost), candidate("b", 1, cost=32),
                  candidate("c", 2, cost=1)]  # fmt: skip
    found = choose("robust", candidates, values_of(good, good - noise, good - 0.3))
    assert (found["chosen"], found["best"], found["tied"]) == (chosen, "a", ["a", "b"])


def test_candidates_of_unknown_cost_are_not_the_cheapest():
    good = np.array([0.6, 0.5, 0.7, 0.65, 0.6, 0.55, 0.62, 0.58])
    unknown, known = candidate("a", 0, cost=None), candidate("b", 1, cost=9)
    assert choose("robust", [unknown, known], values_of(good, good))["chosen"] == "b"
    assert choose("robust", [unknown], values_of(good))["chosen"] == "a"


def test_with_too_few_images_for_a_test_the_best_mean_is_recommended():
    values = values_of([0.8, 0.7, 0.9, 0.8], [0.3, 0.4, 0.3, 0.4])
    candidates = [candidate("robust", 0, cost=99), candidate("cheap", 1, cost=1)]
    found = choose("robust", candidates, values)
    assert (found["chosen"], found["tied"]) == ("robust", ["robust", "cheap"])


def test_many_images_with_few_values_are_too_few_for_a_test_as_well():
    values = values_of([0.8, 0.7, 0.9, 0.8] + 6 * [math.nan], [0.3, 0.4, 0.3, 0.4] + 6 * [math.nan])
    candidates = [candidate("robust", 0, cost=99), candidate("cheap", 1, cost=1)]
    assert choose("robust", candidates, values)["chosen"] == "robust"


def test_a_purpose_has_only_what_suits_it():
    values = values_of(np.full(8, 0.9), np.full(8, 0.4), np.full(8, 0.2))
    candidates = [candidate("dense", 0, cost=99), candidate("sparse", 1, zeros=0.85, cost=99),
                  candidate("quick", 2, cost=16)]  # fmt: skip
    assert choose("robust", candidates, values)["chosen"] == "dense"
    assert choose("sparse", candidates, values)["chosen"] == "sparse"
    assert choose("quick", candidates, values)["chosen"] == "quick"
    assert choose("sparse", candidates[:1], values[:, :1]) is None


def test_a_candidate_with_few_values_is_neither_best_nor_tied():
    lucky = [0.99, 0.98, *[math.nan] * 6]
    good = [0.6, 0.5, 0.7, 0.65, 0.6, 0.55, 0.62, 0.58]
    found = _compared(values_of(lucky, good), [0, 1], 0.95)
    assert (found[0]["tied"], found[1]["tied"], found[1]["best"]) == (False, True, True)
    assert found[0]["difference"]["count"] == 2
    assert (found[0]["few"], found[1]["few"]) == (True, False)


def test_a_mean_over_other_images_is_not_the_best_where_a_test_shows_it_to_be_worse():
    """The second is better on every image that both have."""
    half = [0.9] * 5 + [math.nan] * 5
    values = values_of(half, [0.95] * 5 + [0.4] * 5)
    found = _compared(values, [0, 1], 0.95)
    assert found[0]["p"] == 1 / 32
    assert [found[place]["best"] for place in (0, 1)] == [False, True]
    assert [found[place]["tied"] for place in (0, 1)] == [False, True]
    candidates = [candidate("cheap", 0, cost=1), candidate("better", 1, cost=9)]
    assert choose("robust", candidates, values)["chosen"] == "better"


def test_few_values_are_not_the_best_where_all_others_are_worse():
    """The first is better on the five images that both have, and known on no others."""
    values = values_of([0.9] * 5 + [math.nan] * 7, [0.5] * 12)
    found = _compared(values, [0, 1], 0.95)
    assert [found[place]["best"] for place in (0, 1)] == [False, True]
    assert (found[0]["few"], found[0]["tied"]) == (True, False)


def test_one_image_cannot_call_a_candidate_worse():
    found = _compared(values_of([0.9], [0.1]), [0, 1], 0.95)
    assert [one["tied"] for one in found.values()] == [True, True]


def test_what_is_shown_to_be_worse_is_not_called_unknown():
    values = values_of(np.arange(12) + 1.0, [*np.arange(5.0), *[math.nan] * 7])
    found = _compared(values, [0, 1], 0.95)[1]
    assert (found["p"], found["tied"], found["few"]) == (1 / 32, False, False)


def test_without_any_value_nothing_is_tied():
    nothing = np.full((8, 2), math.nan)
    assert not any(one["tied"] for one in _compared(nothing, [0, 1], 0.95).values())


def test_significance_is_at_the_stated_confidence():
    values = values_of(np.arange(5) + 1.0, np.arange(5.0))
    assert may_be_best(values)[1] == 1 / 32
    assert not _compared(values, [0, 1], 0.95)[1]["tied"]
    assert _compared(values, [0, 1], 0.98)[1]["tied"]


def test_a_candidate_is_called_by_its_label_where_that_says_more():
    at = {"settings": {"sigma": 0.2}}
    for label, more, words in (
        ("smoothgrad-0.2", at, "smoothgrad at sigma 0.2"),
        ("smoothgrad-quick-0.2", at | {"method": "smoothgrad"},
         "smoothgrad at sigma 0.2 (smoothgrad-quick-0.2)"),
        ("smoothgrad", {"settings": {"sigma": "auto"}}, "smoothgrad at sigma auto"),
        ("simple-gradient", {"settings": {}}, "simple-gradient"),
    ):  # fmt: skip
        one = candidate(label, 0) | {"method": label.removesuffix("-0.2")} | more
        assert _words(one) == words


# The page


def test_names_are_text_and_nothing_else(page, page_of):
    text = page.read_text("utf-8")
    read = Reader(text)
    assert "<script>alert" not in text
    assert len(read.all("script")) == 1
    assert text.count("</style>") == 1
    assert read.words.count(NASTY) >= 8
    plain = Reader(page_of(make_record("label")).read_text("utf-8"))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]


def test_nothing_refers_to_elsewhere(page):
    text = re.sub(r"base64,[^\"]*", "", page.read_text("utf-8"))
    assert re.findall(r"https?:(?!//www\.w3\.org/2000/svg)", text) == []


def test_the_recommendation_comes_first_and_says_what_is_tied(page):
    words = Reader(page.read_text("utf-8")).words
    assert words.index("A sparse map") < words.index("A robust map") < words.index("All candidates")
    for expected in ("90\u202f% zeros", "keeps 56\u202f% [51 to 61\u202f%]", "AOPC 0.30", "(300",
                     "Tied with the best", "8 failed", "How sure this is", "flips of signs",
                     "What could change the answer"):  # fmt: skip
        assert expected in words, expected
    table = (page.parent / "table.md").read_text("utf-8")
    assert "300" not in table, "a time"


def test_the_attacks_are_those_that_ran(page_of):
    with_own, without = (
        page_of(make_record() | {"exact": exact}).read_text("utf-8") for exact in (True, False)
    )
    assert "6 steps by the derivative of the map itself" in with_own
    assert "6 steps by the derivative of SmoothGrad" in without
    assert "map itself" not in without


def test_too_few_values_are_not_called_worse(page_of):
    record = make_record("label")
    record["candidates"][1]["values"]["faithfulness"] |= {"tied": False, "few": True, "p": 0.25}
    record["candidates"][3]["values"]["faithfulness"] |= {"tied": False, "p": 0.01}
    page = page_of(record)
    table = (page.parent / "table.md").read_text("utf-8").splitlines()
    lucky, worse = (next(row for row in table if f"smoothgrad@{n} " in row) for n in (1, 3))
    assert ("too few" in lucky, "worse" in lucky) == (True, False)
    assert ("too few" in worse, "worse" in worse) == (False, True)
    assert "too few images to compare" in Reader(page.read_text("utf-8")).words


def test_too_few_images_are_named(page_of):
    text = page_of(make_record() | {"images": 4}).read_text("utf-8")
    assert "4 images cannot tell candidates apart" in text
    assert "guess" in text
    assert "cannot tell" not in page_of(make_record()).read_text("utf-8")


def test_many_images_with_few_values_are_named(page_of):
    record = make_record()
    record["candidates"][0]["values"]["robustness"] |= {"count": 3}
    assert "known on 3 images" in page_of(record).read_text("utf-8")


DRAWN = "document.querySelectorAll('.plane .candidate').length"
READING = "document.querySelector('.reading').textContent"


@pytest.mark.chromium
@pytest.mark.parametrize("width", [360, 400, 768, 1280])
def test_nothing_sticks_out(chromium, page, width):
    chromium.open(page, width=width)
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    outside = chromium.ask(
        f"""[...document.body.querySelectorAll('*')]
        .filter(e => !e.closest('.scroll, .settings, .skip') &&
                     e.checkVisibility({{checkVisibilityCSS: true}}) &&
                     e.getBoundingClientRect().right > {width} + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    assert chromium.ask(DRAWN) == 11


@pytest.mark.chromium
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_of_wcag_aa(chromium, page, dark):
    chromium.open(page, dark=dark)
    assert chromium.ask(CONTRAST) == []


@pytest.mark.chromium
def test_each_method_has_marks_of_its_own(chromium, page_of):
    record = make_record("label", 12)
    for place, one in enumerate(record["candidates"]):
        one["method"] = f"method-{place}"
    chromium.open(page_of(record))
    marks = chromium.ask("""[...document.querySelectorAll('.plane .candidate .mark')]
        .map(e => { const s = getComputedStyle(e); return `${s.fill} ${s.stroke}`; })""")
    assert len(set(marks)) == len(marks) == 11
    items = chromium.ask("""[...document.querySelectorAll('.methods li')].map(e => {
        const s = getComputedStyle(e, '::before'); return s.backgroundColor + s.borderColor; })""")
    assert len(set(items)) == len(items) == 12


@pytest.mark.chromium
def test_axes_are_chosen_by_the_reader(chromium, page):
    chromium.open(page)
    before = chromium.ask("document.querySelector('.plane svg').outerHTML")
    chromium.ask("""(() => { const select = document.querySelector('[data-axis=x]');
        select.value = 'cost'; select.dispatchEvent(new Event('change')); })()""")
    title = "document.querySelector('.plane svg').getAttribute('aria-label')"
    assert chromium.ask(title) == "kept under attack against evaluations"
    assert chromium.ask("document.querySelector('.plane svg').outerHTML") != before
    front = chromium.ask("document.querySelector('.plane .front').getAttribute('points')")
    assert len(front.split()) == 1, "the cheapest is also the most robust"


@pytest.mark.chromium
def test_pointing_and_the_keyboard_read_the_numbers(chromium, page):
    chromium.open(page)
    chromium.ask("document.querySelectorAll('.plane .candidate')[1].focus()")
    assert re.search(
        r"smoothgrad@1: .*kept under attack 56.% \[51 to 61.%\]", chromium.ask(READING)
    )
    chromium.ask("""document.querySelector('.plane .candidate')
        .dispatchEvent(new PointerEvent('pointerenter'))""")
    assert NASTY in chromium.ask(READING)
    complaints = [event for event in chromium.events
                  if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded",
                                         "Page.javascriptDialogOpening")]  # fmt: skip
    assert complaints == []


@pytest.mark.chromium
def test_a_candidate_in_focus_stays_so_when_the_page_is_laid_out(chromium, page):
    focus = "document.querySelectorAll('.plane .candidate')[1].focus()"
    with chromium.before_pages(f"document.addEventListener('DOMContentLoaded', () => {focus})"):
        chromium.open(page)
    assert "smoothgrad@1" in chromium.ask(READING), "before the first frame"
    chromium.ask("document.querySelector('.plane').style.width = '500px'")
    chromium.settle()
    assert chromium.ask("document.querySelector('.plane svg').getAttribute('width')") == "500"
    assert "smoothgrad@1" in chromium.ask("document.activeElement.getAttribute('aria-label')")
    assert "smoothgrad@1" in chromium.ask(READING)


@pytest.mark.chromium
def test_without_scripts_a_drawing_is_shown(chromium, page):
    for script in (True, False):
        chromium.open(page, script=script)
        seen = "document.querySelector('{}').checkVisibility()"
        assert chromium.ask(seen.format(".fronts")) == script
        assert chromium.ask(seen.format(".without-script .chart")) != script
    assert chromium.ask("document.querySelector('.without-script img').naturalWidth") > 0
